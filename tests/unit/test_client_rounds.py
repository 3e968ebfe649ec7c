from dataclasses import replace

import numpy as np
import pytest
import torch
from support.tiny_members import first_task, tiny_plan

import client.rounds as rounds
from client.budget import Limits, declared
from client.dataset import Interactions
from client.recommend import open_serving
from client.rounds import DomainMember, must_move, personalise
from client.splits import split
from client.store import Home
from shared.errors import BaseModelError, BudgetError, DataError, PayloadError, TrainingError
from shared.model import load_adapter_tensors
from shared.payload import PAIRS, common, run_of, table, table_name, update_from_bytes, update_to_bytes
from shared.private import item_table


def test_an_update_holds_what_is_released_and_nothing_else(members, plan):
    task, released = first_task(plan)
    before = {name: value.copy() for name, value in task.adapter.items()}
    update = members[0].train(task)
    assert update.delta.keys() == released
    assert all(np.abs(value).max() > 0 for name, value in update.delta.items() if ".lora_" in name)
    assert all(np.array_equal(value, before[name]) for name, value in task.adapter.items())
    raw = update_to_bytes(update)
    assert not any(user.encode() in raw for user in members[0].domain.interactions.user_ids)
    assert update_from_bytes(raw).weight in {2.0**power for power in range(12)}


def test_quality_travels_only_where_the_owner_says_so(members, plan, tmp_path):
    task, _ = first_task(plan)
    assert members[0].train(task).quality is None
    open_one = DomainMember(members[0].domain, Home(tmp_path), members[0].workshop, limits=Limits(share_quality=True))
    found = open_one.train(task)
    assert found.quality == round(found.quality, 2)
    assert 0 < found.quality < 1
    closed = members[0].train(task)
    assert all(np.array_equal(found.delta[name], closed.delta[name]) for name in closed.delta)  # looking moves nothing


@pytest.mark.parametrize(
    ("sets", "says"),
    [(["privacy.epsilon=8"], "a release without noise"), (["federation.secure=true"], "a secure sum")],
)
def test_quality_never_travels_under_a_promise_or_in_a_secure_sum(members, tiny_base, tmp_path, sets, says):
    task, _ = first_task(tiny_plan(tiny_base, *sets))
    member = DomainMember(members[0].domain, Home(tmp_path), members[0].workshop, limits=Limits(share_quality=True))
    with pytest.raises(BudgetError, match=says):
        member.train(task)
    assert not member.home.ledger.exists()


def test_a_promise_after_rounds_without_one_learns_of_each_user_by_themselves(members, plan):
    """What tells held-out events of others is left out of a round without a promise, and of none with one."""
    domain = members[0].domain
    undated = replace(domain.interactions, times=np.full(len(domain.interactions), np.nan))
    order = np.lexsort((undated.items, undated.users))
    columns = (undated.users, undated.items, undated.behaviours, undated.times, undated.weights)
    by_item = replace(domain, interactions=Interactions(undated.user_ids, *(column[order] for column in columns)))
    member = DomainMember(by_item, members[0].home, members[0].workshop)
    as_filed = split(by_item.interactions, "loo", plan.train.user_events).train.items.tolist()
    assert member.corpus(plan).split.train.items.tolist() != as_filed
    promised = replace(plan, privacy=replace(plan.privacy, epsilon=8.0))
    assert member.corpus(promised).split.train.items.tolist() == as_filed


def test_a_round_is_a_function_of_its_task(members, plan):
    task, _ = first_task(plan)
    one = members[0].train(task)
    members[0].train(replace(task, round=2))
    members[1].train(task)  # another domain on the same resident model in between
    two = members[0].train(task)
    assert all(np.array_equal(one.delta[name], two.delta[name]) for name in one.delta)


def test_private_parameters_go_on_from_the_round_before(members, plan, tmp_path):
    member = DomainMember(members[0].domain, Home(tmp_path), members[0].workshop)
    task, _ = first_task(plan)
    model = member.workshop.model(plan)
    assert not member.private_before(task, model)[0].item.weight.any()
    member.train(task)
    first = member.private_before(replace(task, round=2), model)[0].state_dict()
    assert first["item.weight"].any()
    member.train(replace(task, round=2))
    second = member.private_before(replace(task, round=3), model)[0].state_dict()
    assert not np.array_equal(first["item.weight"], second["item.weight"])
    # Asked again for round 2, it starts where round 1 ended, not where round 2 did.
    again = member.private_before(replace(task, round=2), model)[0].state_dict()
    assert np.array_equal(first["item.weight"], again["item.weight"])
    assert sorted(path.name for path in member.home.rounds.iterdir()) == ["1.safetensors", "2.safetensors"]
    (member.home.rounds / "2.safetensors").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"is damaged .* remove it"):
        member.private_before(replace(task, round=3), model)


def test_who_missed_a_round_goes_on_from_the_last_before_it(members, plan, tmp_path):
    member = DomainMember(members[0].domain, Home(tmp_path), members[0].workshop)
    task, _ = first_task(plan)
    model = member.workshop.model(plan)
    assert not member.private_before(replace(task, round=3), model)[1]  # nor did it take part in any
    member.train(task)
    after = {number: member.private_before(replace(task, round=number), model) for number in (2, 4)}
    assert after[2][1]
    assert after[4][1]
    assert torch.equal(after[2][0].item.weight, after[4][0].item.weight)
    assert after[4][0].item.weight.any()
    member.train(replace(task, round=4))
    assert sorted(path.name for path in member.home.rounds.iterdir()) == ["1.safetensors", "4.safetensors"]
    member.train(replace(task, round=4))  # asked again
    again = member.private_before(replace(task, round=4), model)[0]
    assert torch.equal(again.item.weight, after[4][0].item.weight)


def test_what_another_run_left_is_nobodys_start(members, plan, tiny_base, tmp_path):
    member = DomainMember(members[0].domain, Home(tmp_path), members[0].workshop)
    task, _ = first_task(plan)
    model = member.workshop.model(plan)
    member.train(task)
    other = replace(task, round=2, plan=tiny_plan(tiny_base, "train.lr=0.123"))
    private, trained = member.private_before(other, model)
    assert not trained
    assert not private.item.weight.any()
    elsewhere = replace(plan, model=replace(plan.model, base="the/same/base/elsewhere"))
    assert run_of(replace(task, plan=elsewhere)) == run_of(task) != run_of(other)


def test_private_parameters_that_no_round_trained_take_a_training_of_full_length(members, plan, monkeypatch):
    asked = []

    def tuned(*args, epochs, pull, **kwargs):
        asked.append((epochs, pull))
        return rounds.Outcome(epochs, 0.0, (0.0,))

    monkeypatch.setattr(rounds, "train", tuned)
    corpus, model = members[0].corpus(plan), members[0].workshop.model(plan)
    plan = replace(plan, train=replace(plan.train, pull=3.0))
    for trained in (False, True):
        personalise(model, corpus, plan, corpus.private(model), trained)
    assert asked == [(plan.train.epochs, 3.0), (plan.train.personal_epochs, 3.0)]
    assert asked[0] != asked[1]


def test_private_parameters_stay_out_where_noise_is_promised(members, tiny_base):
    task, _ = first_task(tiny_plan(tiny_base, "privacy.epsilon=8.0"))
    assert members[0].private_before(task, members[0].workshop.model(task.plan)) == (None, False)


def test_the_learning_rate_falls_over_all_rounds(members, plan, monkeypatch):
    parts = []
    plain = rounds.train
    monkeypatch.setattr(rounds, "train", lambda *a, **k: (parts.append(k["part"]), plain(*a, **k))[1])
    task, _ = first_task(plan)  # of two rounds
    for number in (1, 2, 3):
        members[0].train(replace(task, round=number))
    assert parts == [(0, 2), (1, 2), (1, 2)]


def test_owners_of_one_catalogue_share_item_tables_where_the_plan_says_so(members, tiny_base, tmp_path):
    plan = tiny_plan(tiny_base, "model.shared_items=true", "federation.family=affinity")
    member = DomainMember(members[0].domain, Home(tmp_path), members[0].workshop)
    task, released = first_task(plan)
    with pytest.raises(BudgetError, match="only when started with --share-items"):
        member.train(task)
    assert not member.home.rounds.exists()
    member.limits = Limits(share_items=True)
    update = member.train(task)
    own = table(update.delta)
    assert common(update.delta).keys() == released
    assert sorted(name.rpartition(".")[2] for name in own) == ["bias", "vectors"]
    got = {name: value + np.float32(0.25) for name, value in own.items()}
    second = replace(task, round=2, adapter={**task.adapter, **got})
    start, _ = member.private_before(second, member.workshop.model(plan))
    np.testing.assert_array_equal(start.bias.detach(), next(v for name, v in got.items() if name.endswith("bias")))
    last = member.train(second)  # of two rounds: what was counted comes too
    moved = table(last.delta)
    after, _ = member.private_before(replace(task, round=3), member.workshop.model(plan))
    for name, value in got.items():
        now = after.bias if name.endswith("bias") else after.item.weight
        np.testing.assert_allclose(value + moved[name], now.detach(), atol=1e-6)
    met, pairs = (moved[table_name(member.domain.catalog.fingerprint, key)] for key in ("met", "pairs"))
    rows = member.corpus(plan).split.train
    users = np.bincount(np.concatenate([np.unique(rows.row(row)) for row in range(len(rows))]), minlength=len(met))
    np.testing.assert_allclose(met * last.weight, users, rtol=1e-5)
    assert pairs.shape == (len(met), PAIRS)
    # One owner's table gives it back what it counted itself, and serves from it.
    finish = replace(task, kind="finish", round=3, adapter={**task.adapter, **moved})
    model = member.workshop.model(plan)
    load_adapter_tensors(model, task.adapter)  # as ``finish`` does
    private, _ = member.serve_best(model, finish)
    counted = member.corpus(plan).neighbours
    np.testing.assert_allclose(private.neighbours.cosines, counted.cosines, atol=0.05)
    member.finish(finish)
    np.testing.assert_array_equal(open_serving(member.home, member.workshop.cache).private.near, private.near)
    broken = {**moved, table_name(member.domain.catalog.fingerprint, "pairs"): pairs[:, :-1]}
    with pytest.raises(PayloadError, match="pairs has shape"):
        member.finish(replace(finish, adapter={**task.adapter, **broken}))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda items: {name.replace("items.", "items.0"): v for name, v in items.items()}, "lacks tensor 'items."),
        (lambda items: {name: v[:-1] for name, v in items.items()}, "has shape"),
        (lambda items: {name: v * np.nan for name, v in items.items()}, "not finite"),
    ],
)
def test_an_item_table_of_another_catalogue_is_refused(members, tiny_base, tmp_path, change, says):
    plan = tiny_plan(tiny_base, "model.shared_items=true", "federation.family=affinity")
    task, _ = first_task(plan)
    private = members[0].corpus(plan).private(members[0].workshop.model(plan))
    items = change(item_table(private, members[0].domain.catalog.fingerprint))
    task = replace(task, adapter={**task.adapter, **items})
    owner = DomainMember(members[0].domain, Home(tmp_path), members[0].workshop, limits=Limits(share_items=True))
    with pytest.raises(PayloadError, match=says):
        owner.train(task)
    for asked in (members[0].train, members[0].finish):  # who shares none tells nothing of the catalogue either
        with pytest.raises(BudgetError, match="only when started with --share-items"):
            asked(task)


def test_an_item_table_that_the_plan_does_not_share_is_refused(members, plan):
    task, _ = first_task(plan)
    private = members[0].corpus(plan).private(members[0].workshop.model(plan))
    items = item_table(private, members[0].domain.catalog.fingerprint)
    with pytest.raises(PayloadError, match="its plan shares none"):
        members[0].train(replace(task, adapter={**task.adapter, **items}))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: replace(t, base="other"), "the same checkpoint"),
        (lambda t: replace(t, adapter={}), "lacks tensor"),
        (lambda t: replace(t, adapter={**t.adapter, "more": np.zeros(1, np.float32)}), "unknown tensor"),
        (lambda t: replace(t, adapter={n: v[..., :1] for n, v in t.adapter.items()}), "has shape"),
        (lambda t: replace(t, adapter={n: v * np.float32("nan") for n, v in t.adapter.items()}), "not finite"),
    ],
)
def test_a_task_that_does_not_fit_is_refused(members, plan, change, says):
    with pytest.raises(PayloadError, match=says):
        members[0].train(change(first_task(plan)[0]))


def test_a_member_opens_its_own_checkpoint_whatever_the_server_names(members, plan, tiny_base, tmp_path):
    task, released = first_task(plan)
    elsewhere = replace(task, plan=replace(plan, model=replace(plan.model, base=str(tmp_path / "theirs"))))
    with pytest.raises(BaseModelError, match="theirs"):
        members[0].train(elsewhere)
    one = members[0]
    own = DomainMember(one.domain, Home(tmp_path / "home"), one.workshop, base=str(tiny_base))
    assert own.train(elsewhere).delta.keys() == released


def test_training_that_moves_nothing_is_an_error():
    with pytest.raises(TrainingError, match="moved nothing in 2 of 2"):
        must_move({"a": np.zeros(2, np.float32), "b": np.zeros(1, np.float32)})
    with pytest.raises(TrainingError, match="lora_B"):
        must_move({"a": np.ones(2, np.float32), "x.lora_B.weight": np.zeros(1, np.float32)})
    must_move({"a": np.zeros(2, np.float32), "x.lora_B.weight": np.ones(1, np.float32)})


def test_a_learning_rate_of_nothing_stops_the_run(members, tiny_base):
    plan = tiny_plan(tiny_base, "train.lr=0.0", "train.lora_lr=0.0")
    task, released = first_task(plan)
    with pytest.raises(TrainingError, match="moved nothing") as failed:
        members[0].train(task)
    nothing = failed.value.instead  # what a secure sum takes
    assert (nothing.weight, nothing.delta.keys()) == (0.0, released)
    assert all(value.shape == task.adapter[name].shape and not value.any() for name, value in nothing.delta.items())


def test_weights_tell_no_count():
    assert [declared(users) for users in (0, 1, 3, 100, 17_112)] == [1, 1, 4, 128, 16384]


def test_a_finished_run_serves(members, plan, tmp_path):
    member = members[0]
    member.finish(first_task(plan, "finish")[0])
    serving = open_serving(member.home, member.workshop.cache)
    interactions, catalog = member.domain.interactions, member.domain.catalog
    user = interactions.user_ids[0]
    seen = {catalog.ids[item] for item in interactions.items[interactions.users == 0]}
    found = serving.top(serving.known(user), 5)
    assert [item.rank for item in found] == [1, 2, 3, 4, 5]
    assert list(found) == sorted(found, key=lambda item: -item.score)
    assert not seen & {item.item_id for item in serving.top(serving.known(user), len(catalog))}
    assert len(serving.top(serving.known(user), len(catalog))) == len(catalog) - len(seen)

    title = catalog.titles[3]
    by_title = serving.top(serving.described([title.upper(), "something the catalogue never heard of"]), 4)
    assert len(by_title) == 4
    assert catalog.ids[3] not in {item.item_id for item in by_title}
    with pytest.raises(DataError, match="knows no such user") as caught:
        serving.known("secret-person")
    assert "secret-person" not in str(caught.value)


def test_a_last_task_whose_delta_says_nothing_is_refused(members, tiny_base):
    task, _ = first_task(tiny_plan(tiny_base, "privacy.epsilon=8.0", "privacy.delta=0.9"), "finish")
    with pytest.raises(BudgetError, match=r"privacy\.delta 0\.9 allows a full leak"):
        members[0].finish(task)
    assert not members[0].home.about.exists()


def test_homes_that_cannot_serve_say_why(members, plan, tmp_path):
    member = members[0]
    with pytest.raises(DataError, match="no finished run"):
        open_serving(member.home, member.workshop.cache)
    member.finish(first_task(plan, "finish")[0])
    member.home.private.write_bytes(b"junk")
    with pytest.raises(DataError, match="damaged"):
        open_serving(member.home, member.workshop.cache)
