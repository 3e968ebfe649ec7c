import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config import apply_sets, read_toml
from shared.errors import ConfigError
from shared.plan import Plan, differences, plan_from_json, read_plan


def test_defaults_and_sets():
    plan = read_plan(
        apply_sets({"train": {"lr": 0.1}}, ["train.lr=1", "model.base=my/bert", 'model.targets=["query"]'])
    )
    assert (plan.train.lr, plan.model.base, plan.model.targets) == (1.0, "my/bert", ("query",))
    assert read_plan({}) == Plan()


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        (["train.lrr=1"], r"\[train\] has no setting 'lrr'"),
        (["trian.lr=1"], r"no section \[trian\]"),
        (["train.lr"], "expects section.key=value"),
        (["train.lr=fast"], "train.lr: expected float, found 'fast'"),
        (["train.epochs=1.5"], "train.epochs: expected int"),
        (["train.epochs=true"], "train.epochs: expected int"),
        (["model.targets=query"], "model.targets: expected a list"),
        (['model.targets=["querry"]'], "model.targets: expected one of"),
        (["train.loss=hinge"], "train.loss: expected one of"),
        (["train.loss=bpr"], "needs sampled negatives"),
        (["model.width=1000000"], "model.width: expected at most 4,096, found 1,000,000"),
        (["train.epochs=2000000"], "train.epochs: expected at most 1,000,000"),
        (["model.rank=0"], "model.rank: expected at least 1"),
        (["model.width=10", "model.heads=3"], "multiple of model.heads"),
        (["model.dropout=1.0"], "less than 1"),
        (["privacy.epsilon=-1"], "privacy.epsilon: expected at least 0"),
        (["privacy.epsilon=1e-12"], "privacy.epsilon: expected 0 or at least 1e-09, found 1e-12"),
        (["privacy.delta=1e-300"], "privacy.delta: expected a probability of at least 1e-15"),
        (
            ["federation.rounds=200000"],
            "federation.rounds x privacy.steps: expected at most 1,000,000, found 2,000,000",
        ),
        (["train.lr=nan"], "train.lr: expected at least 0"),
        (["federation.rounds=0"], "federation.rounds: expected at least 1, found 0"),
        (["privacy.delta=1.0"], "privacy.delta"),
        (["privacy.epsilon=1.0", "federation.family=fedavg"], "family=ffa"),
        (["privacy.noise_by=nobody"], "privacy.noise_by: expected one of server, devices"),
        (["privacy.noise_by=devices"], r"noise_by=devices needs privacy\.transitions=1"),
        (["federation.secure=true", "federation.family=affinity"], "looks at each domain's own update"),
        (["federation.secure=true", "federation.weight_cap=4097"], "weight_cap of at most 4096"),
        (["train.lr=1" + "0" * 400], "expected a number"),
        (["model.shared_items=true", "privacy.epsilon=1.0", "federation.family=affinity"], "cannot go with privacy"),
        (["model.shared_items=true"], "needs federation.family=affinity"),
        (["model.shared_items=true", "federation.family=affinity", "train.private_rounds=false"], "private_rounds"),
    ],
)
def test_a_wrong_setting_is_one_clear_error(sets, says):
    with pytest.raises(ConfigError, match=says):
        read_plan(apply_sets({}, sets))


def test_a_settings_file_that_cannot_be_used(tmp_path):
    (tmp_path / "a.toml").write_text("lr = 1\n")
    (tmp_path / "b.toml").write_text("[train\n")
    for name, says in (("a.toml", "outside a section"), ("b.toml", "not a TOML file"), ("c.toml", "check the path")):
        with pytest.raises(ConfigError, match=says):
            read_toml(tmp_path / name)


@given(st.text(max_size=60) | st.just("[]") | st.just('{"train": 3}') | st.just("[" * 100_000))
def test_a_peers_plan_never_raises_anything_else(text):
    try:
        plan_from_json(text)
    except ConfigError:
        return


def test_a_plan_survives_its_bytes():
    plan = read_plan(apply_sets({}, ["train.lr=0.003", "privacy.epsilon=2.5", 'model.targets=["key", "value"]']))
    assert plan_from_json(plan.to_json()) == plan


def test_differences_are_told_with_both_values_and_only_a_few():
    assert differences(Plan(), Plan()) == ""
    one = read_plan({"train": {"lr": 0.5}})
    assert differences(Plan(), one) == "train.lr 0.001, asked 0.5"
    many = read_plan({"train": {"lr": 0.5, "epochs": 9, "pull": 1.0}, "model": {"rank": 2}, "federation": {"seed": 8}})
    assert (
        differences(Plan(), many) == "model.rank 8, asked 2; train.epochs 6, asked 9; train.pull 0.0, asked 1.0; 2 more"
    )
