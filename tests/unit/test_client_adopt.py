"""A domain that took no part in any round serves with what a server gave away, and with what it counts itself."""

import json
import shutil

import numpy as np
import pytest
from support.tiny_federation import begin_run
from support.tiny_members import tiny_plan
from typer.testing import CliRunner

from client.__main__ import app
from client.adopt import ADOPTED, DRAWN, adopt, best
from client.evaluate import validate
from client.recommend import open_serving
from client.rounds import DomainMember, open_member
from client.store import load
from client.workshop import Workshop
from server import registry
from server.export import export
from shared.errors import ConfigError, DataError, PayloadError
from shared.exported import read_exported
from shared.model import adapter_tensors, initial_state


@pytest.fixture
def plan(tiny_base):
    return tiny_plan(tiny_base, "federation.family=affinity")


@pytest.fixture
def given(plan, tmp_path):
    """The model of a run, moved away from what was drawn."""
    begin_run(tmp_path / "run", plan)
    state = registry.load_state(tmp_path / "run")
    moved = {name: value + (0.01 if "lora_B" in name else 0) for name, value in state.adapter.items()}
    registry.save_state(tmp_path / "run", type(state)(**{**vars(state), "adapter": moved}))
    export(tmp_path / "run", tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def newcomer(members, tiny_base):
    member = members[0]
    return DomainMember(member.domain, member.home, Workshop(member.workshop.cache), base=str(tiny_base))


def test_what_is_served_is_the_adapter_given_with_the_domains_own_counts(newcomer, given, plan):
    found = adopt(newcomer, read_exported(given))
    kept = load(newcomer.home)
    assert found == json.loads(newcomer.home.result.read_text())
    assert found["served"] in (ADOPTED, DRAWN)
    assert found["valid"][found["served"]] == max(found["valid"][name] for name in (ADOPTED, DRAWN))
    assert found["valid"]["counted"] > found["valid"][found["served"]]
    served = read_exported(given).adapter if found["served"] == ADOPTED else initial_state(plan)[0]
    assert all(np.array_equal(kept.adapter[name], served[name]) for name in served)
    assert found["personal"]["ndcg@10"] != found["federated"]["ndcg@10"]
    assert kept.private["near"][0] > 0 or kept.private["lift"].abs().sum() > 0
    assert not kept.private["item.weight"].any()  # nothing was trained
    assert not newcomer.home.ledger.exists()
    serving = open_serving(newcomer.home, newcomer.workshop.cache, None)
    assert serving.top(serving.described(["a film"]), 5, frozenset())


def test_whichever_adapter_validates_better_is_served(newcomer, plan):
    model, corpus = newcomer.workshop.model(plan), newcomer.corpus(plan)
    drawn = initial_state(plan)[0]
    private, same = best(model, corpus, drawn, drawn)
    assert same["served"] == ADOPTED  # of equals
    assert same["valid"][ADOPTED] == same["valid"][DRAWN]
    assert same["valid"]["counted"] == pytest.approx(validate(model, corpus, private), abs=1e-6)
    spoilt = {**drawn, "mix.parts.weight": -drawn["mix.parts.weight"]}
    _, other = best(model, corpus, drawn, spoilt)
    assert other["served"] == DRAWN
    assert other["valid"][ADOPTED] < other["valid"][DRAWN] == same["valid"][DRAWN]
    assert other["valid"]["counted"] == same["valid"]["counted"]
    assert np.array_equal(adapter_tensors(model)["mix.parts.weight"], drawn["mix.parts.weight"])


def test_a_trained_home_is_not_replaced_and_an_adopted_one_is(newcomer, given):
    adopt(newcomer, read_exported(given))
    adopt(newcomer, read_exported(given))
    newcomer.home.result.write_text(json.dumps({"served": "federated"}))
    before = newcomer.home.adapter.read_bytes()
    for left in (True, False):
        if not left:
            newcomer.home.result.unlink()
        with pytest.raises(ConfigError, match="trained there"):
            adopt(newcomer, read_exported(given))
    assert newcomer.home.adapter.read_bytes() == before


def test_another_base_and_another_shape_are_refused_before_anything_is_written(newcomer, given, tmp_path):
    manifest = json.loads((given / "manifest.json").read_text())
    other = shutil.copytree(given, tmp_path / "other")
    (other / "manifest.json").write_text(json.dumps({**manifest, "base": "another"}))
    with pytest.raises(DataError, match="--base"):
        adopt(newcomer, read_exported(other))
    wider = {**manifest, "plan": {**manifest["plan"], "model": {**manifest["plan"]["model"], "hidden": 17}}}
    (other / "manifest.json").write_text(json.dumps(wider))
    with pytest.raises(PayloadError, match="shape"):
        adopt(newcomer, read_exported(other))
    assert not newcomer.home.about.exists()


def test_a_domain_too_small_to_ask_anybody_is_told_so(given, tiny_world, tiny_base, cache, tmp_path):
    folder = shutil.copytree(tiny_world["video"], tmp_path / "data")
    (path,) = folder.glob("*.inter")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))  # one event of one user
    member = open_member(folder, "video", tmp_path / "home", cache=str(cache), base=str(tiny_base))
    with pytest.raises(DataError, match="bring more interactions"):
        adopt(member, read_exported(given))
    assert not member.home.about.exists()


def test_by_command(tiny_world, tiny_base, given, cache, tmp_path):
    words = ["--domain", "video", "--home", str(tmp_path / "home"), "--cache", str(cache), "--base", str(tiny_base)]
    data = ["--data", str(tiny_world["video"])]
    done = CliRunner().invoke(app, [*words, *data, "adopt", str(given)])
    assert done.exit_code == 0, done.output
    assert "with what is counted: HR@10" in done.output
    listed = CliRunner().invoke(app, [*words, "recommend", "--history", "a film", "-k", "3", "--json"])
    assert len(json.loads(listed.stdout)["items"]) == 3
    for wrong, said in (
        ([*words, "adopt", str(given)], "needs --data"),
        ([*words, *data, "adopt", str(tmp_path)], "holds no exported model"),
        ([*words, *data, "--protocol", "lou", "adopt", str(given)], "--protocol: expected"),
    ):
        failed = CliRunner().invoke(app, wrong)
        assert failed.exit_code == 2
        assert said in failed.output
        assert "Traceback" not in failed.output
