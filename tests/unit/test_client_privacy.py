import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.tiny_members import tiny_plan

from client.budget import (
    Limits,
    check_budget,
    check_passports,
    declared,
    forecast,
    planned_noise,
    sample_rate,
    spent_at,
)
from client.chance import GRID, Repeatable, Unforeseen
from client.privacy import Lot, PerUserGradients, lots, sampled_users, train_privately
from client.released import pay
from client.splits import Histories
from client.store import Home
from shared.accounting import epsilon, noise_for
from shared.errors import BudgetError, ConfigError, DataError
from shared.ledger import GaussianSteps, TokenRelease, append_event, read_events
from shared.model import Recommender, adapter_tensors, initial_state, released_names, shared_parameters
from shared.payload import Task
from shared.plan import read_plan
from shared.prefix import find_base


@pytest.fixture(
    params=[(0.0, "all"), (1.0, "all"), (0.0, "towers"), (0.0, "outputs"), (1.0, "outputs"), (0.0, "mix")],
    ids=["clean", "adversarial", "towers", "outputs", "adversarial outputs", "mix"],
)
def bench(request, members, tiny_base, monkeypatch):
    """A stirred model with hooks on, and a lot of users of the first domain; single precision, to compare exactly."""
    monkeypatch.setattr("shared.model.BF16", False)
    weight, releases = request.param
    settings = (f"adversary.weight={weight}", "privacy.epsilon=8.0", f"privacy.releases={releases}")
    plan = tiny_plan(tiny_base, *settings)
    model = Recommender(plan.model, find_base(plan.model.base), 7)
    draw = torch.Generator().manual_seed(0)
    for value in shared_parameters(model).values():  # away from the zeros of the start
        value.data.add_(0.1 * torch.randn(value.shape, generator=draw))
    corpus = members[0].corpus(plan)
    engine = PerUserGradients(model, corpus.space, plan, released_names(plan, list(adapter_tensors(model))))
    users = sampled_users(corpus)[:7]
    (lot,) = lots(corpus.split.train, users, plan, len(corpus.space), Repeatable(0))
    yield engine, lot, plan, corpus
    engine.close()


def clear(engine):
    for value in engine.named.values():
        value.grad = value.grad_sample = None


def alone(engine, lot, user):
    """Plain autograd on a lot of that user only, hooks off: the slow truth."""
    engine.hooks.disable_hooks()
    one = Lot(lot.items[[user]], lot.behaviours[[user]], lot.mask[[user]])
    x = engine.encode(one)
    loss = engine.losses(x, one).sum()
    if weight := engine.plan.adversary.weight:
        from client.adversary import worst_case

        shift = worst_case(lambda probe: engine.losses(probe, one).sum(), x, engine.plan.adversary.radius)
        loss = loss + weight * engine.losses(x + shift, one).sum()
    loss.backward()
    found = {name: value.grad.clone() for name, value in engine.named.items()}
    clear(engine)
    engine.hooks.enable_hooks()
    return found


def test_per_user_gradients_are_those_of_each_user_alone(bench):
    engine, lot, *_ = bench
    together = {name: value.clone() for name, value in engine.per_user(lot).items()}
    clear(engine)
    for user in range(len(lot.items)):
        for name, truth in alone(engine, lot, user).items():
            error = (together[name][user] - truth).norm() / truth.norm().clamp(min=1e-9)
            assert error < 1e-5, (name, user, float(error))


def test_vectors_that_nothing_moves_are_read_as_they_would_be_encoded(bench):
    engine, lot, *_ = bench
    with torch.no_grad():
        engine.hooks.disable_hooks()
        read = engine.encode(lot)
        losses = engine.losses(read, lot)
        engine.vectors = engine.items = None
        torch.testing.assert_close(read, engine.encode(lot), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(losses, engine.losses(read, lot), rtol=1e-4, atol=1e-5)
        engine.hooks.enable_hooks()


@pytest.mark.parametrize("what", [torch.nan, torch.inf])
def test_a_user_whose_gradient_is_no_number_is_left_out_and_nobody_hears_of_it(bench, what):
    """An adapter may be made to overflow on one item: then a failure would tell who met it."""
    engine, lot, *_ = bench
    told = engine.per_user
    sums = []
    for bad in (None, 2):

        def spoilt(one, bad=bad):
            told(one)
            if bad is not None:
                next(iter(engine.named.values())).grad_sample[bad].view(-1)[0] = what

        engine.per_user = spoilt
        optimizer = engine.optimizer(0.0, 1.0)
        optimizer.original_optimizer.step = lambda: sums.append(
            torch.cat([value.grad.flatten() for value in engine.named.values()])
        )
        rest = [row for row in range(len(lot.items)) if bad is not None or row != 2]
        engine.noisy_step(optimizer, [Lot(lot.items[rest], lot.behaviours[rest], lot.mask[rest])], Repeatable(0))
    assert sums[0].abs().max() > 0
    torch.testing.assert_close(sums[1], sums[0], rtol=1e-3, atol=1e-5)


def test_a_users_slots_are_the_same_whoever_else_is_there(members, tiny_base):
    """Padded to the longest of a group, a long history would say what stands in the others' slots."""
    plan = tiny_plan(tiny_base, "privacy.epsilon=8.0", "privacy.events=5")
    corpus = members[0].corpus(plan)
    train, users = corpus.split.train, sampled_users(corpus)
    short, long = (users[found] for found in (train.lengths[users] <= 3, train.lengths[users] >= 5))
    assert min(len(short), len(long)) > 0
    together = np.append(short, long[0])
    ((apart,), (beside,)) = (lots(train, some, plan, len(corpus.space), Repeatable(0)) for some in (short, together))
    for one, other in ((apart.items, beside.items), (apart.behaviours, beside.behaviours), (apart.mask, beside.mask)):
        assert torch.equal(one, other[:-1])
    for user, items, mask in zip(short, apart.items[:, :5], apart.mask, strict=True):
        own = train.row(int(user))
        assert items[mask].tolist() == own.tolist()
        assert set(items[~mask].tolist()) == {own[0]}  # nobody else's


def test_an_adapter_that_overflows_where_others_have_nothing_moves_the_sum_no_further(members, tiny_base):
    plan = tiny_plan(tiny_base, "privacy.epsilon=8.0", "privacy.events=5", "privacy.releases=towers")
    corpus, model = members[0].corpus(plan), Recommender(plan.model, find_base(plan.model.base), 7)
    train, users = corpus.split.train, sampled_users(corpus)
    others = np.array([user for user in users if 0 not in train.row(int(user))[-5:] and train.lengths[user] < 5])[:6]
    longest = next(user for user in users if train.lengths[user] >= 5 and 0 not in train.row(int(user))[-5:])
    released = released_names(plan, list(adapter_tensors(model)))
    with torch.no_grad():  # finite numbers, which make none of item 0's vector alone
        x = corpus.space.base
        second = float((x @ x[0]).sort().values[-2])
        shared = shared_parameters(model)
        shared["item.inner.weight"][0] = 1e20 * x[0]
        shared["item.inner.bias"][0] = -1e20 * (1 + second) / 2
        shared["item.outer.weight"][:, 0] = 3e38
    sums = []
    for some in (others, np.append(others, longest)):
        engine = PerUserGradients(model, corpus.space, plan, released)
        optimizer = engine.optimizer(0.0, 1.0)
        optimizer.original_optimizer.step = lambda engine=engine: sums.append(
            torch.cat([value.grad.flatten() for value in engine.named.values()])
        )
        group = [*lots(train, some, plan, len(corpus.space), NoZero(3))]
        engine.noisy_step(optimizer, group, Repeatable(0))
        engine.close()
    assert sums[0].norm() > plan.privacy.clip_norm / 2  # the others count
    assert (sums[1] - sums[0]).norm() <= plan.privacy.clip_norm * 1.001


class NoZero(Repeatable):
    """Never draws item 0 for a negative."""

    def integers(self, most, size):
        return 1 + super().integers(most - 1, size)


def test_each_text_has_a_place_without_a_token(members, tiny_base):
    plan = tiny_plan(tiny_base, "privacy.epsilon=8.0")
    corpus, model = members[0].corpus(plan), Recommender(plan.model, find_base(plan.model.base), 7)
    engine = PerUserGradients(model, corpus.space, plan, released_names(plan, list(adapter_tensors(model))))
    masks = []
    handle = model.top.register_forward_pre_hook(lambda _, given: masks.append(given[1]))
    engine.per_user(
        next(iter(lots(corpus.split.train, sampled_users(corpus)[:3], plan, len(corpus.space), Repeatable(0))))
    )
    handle.remove()
    engine.close()
    assert len(masks) == 1
    assert not masks[0].all(1).any()


def test_a_step_moves_on_the_grid(bench):
    engine, lot, plan, _ = bench
    optimizer = engine.optimizer(0.5, 1.0)
    assert plan.privacy.clip_norm == 1.0
    engine.noisy_step(optimizer, [lot], Repeatable(0))
    kept = []
    optimizer.original_optimizer.step = lambda: kept.extend(value.grad.flatten() for value in engine.named.values())
    engine.noisy_step(optimizer, [lot], Repeatable(0))
    places = torch.cat(kept).double() / GRID
    assert torch.equal(places, places.round())
    assert places.abs().max() > 1


def test_a_domain_of_nobody_sends_noise(members, tiny_base):
    """Its size class is that of one user; that there is none it may not tell."""
    plan = tiny_plan(tiny_base, "privacy.epsilon=8.0")
    whole = members[0].corpus(plan)
    nothing = Histories.from_lists([[] for _ in whole.domain.interactions.user_ids])
    corpus = replace(whole, split=replace(whole.split, train=nothing))
    model = Recommender(plan.model, find_base(plan.model.base), 7)
    released, before = released_names(plan, list(adapter_tensors(model))), adapter_tensors(model)
    event = train_privately(model, corpus, plan, 1.0, released, ("p", 1), simulated=False)
    assert event == GaussianSteps(1.0, 1.0, plan.privacy.steps)
    assert all((adapter_tensors(model)[name] != before[name]).any() for name in released)


def test_no_more_events_are_read_than_the_tower_has_places_for(members, tiny_base):
    plan = tiny_plan(tiny_base, "privacy.epsilon=8.0", "privacy.events=100", "model.max_history=3")
    corpus = members[0].corpus(plan)
    assert corpus.split.train.lengths.max() > 3
    (lot, *_) = lots(corpus.split.train, sampled_users(corpus), plan, len(corpus.space), Repeatable(0))
    assert lot.events == 3


def test_one_users_data_move_only_their_own_gradient(bench):
    engine, lot, *_ = bench
    before = {name: value.clone() for name, value in engine.per_user(lot).items()}
    clear(engine)
    items = lot.items.clone()
    items[0] = (items[0] + 1) % len(engine.space)
    after = engine.per_user(Lot(items, lot.behaviours, lot.mask))
    for name, value in after.items():
        torch.testing.assert_close(value[1:], before[name][1:], rtol=1e-4, atol=1e-7)
    assert any(not torch.allclose(value[0], before[name][0]) for name, value in after.items())


def test_each_user_moves_the_sum_by_the_clip_norm_at_most(bench):
    engine, lot, *_ = bench
    optimizer = engine.optimizer(0.0, 1.0)
    optimizer.max_grad_norm = 0.01  # below every user's norm
    engine.per_user(lot)
    norms = sum(value.grad_sample.flatten(1).pow(2).sum(1) for value in engine.named.values()).sqrt()
    assert (norms > 0.01).all()
    for value in engine.named.values():
        value.summed_grad = torch.zeros_like(value)
    optimizer.clip_and_accumulate()
    total = math.sqrt(sum(float(value.summed_grad.pow(2).sum()) for value in engine.named.values()))
    assert total <= 0.01 * len(lot.items) * (1 + 1e-5)


@pytest.mark.parametrize("chance", [Unforeseen(bytes(32)), Repeatable(1, "noise")], ids=["real", "simulated"])
def test_an_empty_lot_releases_noise_of_the_stated_size(bench, chance):
    engine, _, plan, _ = bench
    optimizer = engine.optimizer(2.0, 10.0)
    noises = []
    optimizer.original_optimizer.step = lambda: noises.append(
        torch.cat([value.grad.flatten() for value in engine.named.values()])
    )
    for _ in range(3):
        engine.noisy_step(optimizer, [], chance)
    drawn = torch.cat(noises)
    expected = 2.0 * plan.privacy.clip_norm / 10.0  # multiplier x clip / expected users
    assert abs(float(drawn.std()) / expected - 1) < 3 / math.sqrt(2 * len(drawn))
    assert abs(float(drawn.mean())) < 3 * expected / math.sqrt(len(drawn))
    assert not torch.equal(noises[0], noises[1])


def test_a_noisy_step_without_noise_is_the_clipped_sum_over_expected_users(bench):
    engine, lot, plan, _ = bench
    truth = [alone(engine, lot, user) for user in range(len(lot.items))]
    optimizer = engine.optimizer(0.0, 20.0)
    seen = {}
    optimizer.original_optimizer.step = lambda: seen.update({n: v.grad.clone() for n, v in engine.named.items()})
    engine.noisy_step(optimizer, [lot], Unforeseen())
    scales = [
        min(1.0, plan.privacy.clip_norm / math.sqrt(sum(float(g.pow(2).sum()) for g in user.values())))
        for user in truth
    ]
    for name, value in seen.items():
        expected = sum(scale * user[name] for scale, user in zip(scales, truth, strict=True)) / 20.0
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-6)


def test_negatives_come_from_the_catalogue_not_from_the_lot(members, tiny_base):
    plan = tiny_plan(tiny_base, "privacy.negatives=50")
    corpus = members[0].corpus(plan)
    users = sampled_users(corpus)

    def negatives(some):
        draw = Repeatable(3)
        return next(iter(lots(corpus.split.train, some, plan, len(corpus.space), draw))).items[:, plan.privacy.events :]

    first, others = negatives(users[:5]), negatives(users[5:10])
    assert torch.equal(first, others)  # the same draw for other users: nothing of theirs is in it


def noisy(members, plan, place=("p", 1), simulated=True):
    model = Recommender(plan.model, find_base(plan.model.base), 7)
    released = released_names(plan, list(adapter_tensors(model)))
    before = adapter_tensors(model)
    event = train_privately(model, members[0].corpus(plan), plan, 1.0, released, place, simulated=simulated)
    return before, adapter_tensors(model), released, event


def test_private_training_moves_what_is_released_and_nothing_else(members, tiny_base):
    plan = tiny_plan(tiny_base, "privacy.epsilon=8.0", "adversary.weight=1.0")
    before, after, released, event = noisy(members, plan)
    for name in before:
        assert (np.abs(after[name] - before[name]).max() > 0) == (name in released), name
    users = len(sampled_users(members[0].corpus(plan)))
    assert event == GaussianSteps(1.0, sample_rate(plan, declared(users)), plan.privacy.steps)


def test_simulated_noise_repeats_and_real_noise_does_not(members, tiny_base):
    plan = tiny_plan(tiny_base, "privacy.epsilon=8.0")

    def run(**how):
        return noisy(members, plan, **how)[1]["item.outer.bias"]

    assert np.array_equal(run(), run())
    assert not np.array_equal(run(), run(place=("p", 2)))
    assert not np.array_equal(run(simulated=False), run(simulated=False))


def test_epsilon_is_what_the_plan_asked_for():
    noise = noise_for(4.0, 1e-5, 0.05, 300)
    assert 3.8 < epsilon([GaussianSteps(noise, 0.05, 100)] * 3, 1e-5) <= 4.0
    assert epsilon([], 1e-5) == 0.0
    with pytest.raises(BudgetError, match="another unit"):
        epsilon([GaussianSteps(1.0, 0.1, 1, unit="row")], 1e-5)
    with pytest.raises(BudgetError, match="no noise reaches"):
        noise_for(1e-9, 1e-5, 1.0, 100_000)


def test_the_ledger_is_kept_line_by_line_and_refuses_what_it_does_not_know(tmp_path):
    path = tmp_path / "home" / "ledger.jsonl"
    assert read_events(path) == ()
    events = (GaussianSteps(1.0, 0.1, 5), GaussianSteps(2.0, 0.2, 7))
    for event in events:
        append_event(path, event)
    assert read_events(path) == events
    for damage in ("{\n", '{"noise_multiplier": 0, "sample_rate": 0.1, "steps": 1}', '{"steps": 1}', "[]"):
        path.write_text(damage + "\n")
        with pytest.raises(DataError, match="line 1"):
            read_events(path)


def test_a_line_torn_off_in_the_writing_is_dropped_and_a_whole_one_never(tmp_path):
    path = tmp_path / "ledger.jsonl"
    events = (GaussianSteps(1.0, 0.1, 5), GaussianSteps(2.0, 0.2, 7))
    for event in events:
        append_event(path, event)
    raw = path.read_bytes()
    first = raw.index(b"\n") + 1
    for length in range(first, len(raw) + 1):
        path.write_bytes(raw[:length])
        kept = events if length >= len(raw) - 1 else events[:1]  # without its line break it is still whole
        assert read_events(path) == kept
        append_event(path, events[0])
        assert read_events(path) == (*kept, events[0])
    assert path.stat().st_mode & 0o077 == 0


def test_two_writers_lose_nothing(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: append_event(path, GaussianSteps(1.0, 0.5, n + 1)), range(100)))
    assert sorted(event.steps for event in read_events(path)) == list(range(1, 101))


def test_the_data_owner_may_refuse(tiny_base):
    plan = tiny_plan(tiny_base, "privacy.epsilon=8.0")
    event = GaussianSteps(1.0, 0.2, 10)
    once = epsilon([event], plan.privacy.delta)
    assert check_budget(plan, Limits(once + 0.01, plan.privacy.delta), (), event) == pytest.approx(once)
    with pytest.raises(BudgetError, match=r"above this domain's limit"):
        check_budget(plan, Limits(once + 0.01, plan.privacy.delta), (event,), event)
    with pytest.raises(BudgetError, match="at delta 1e-05"):  # though the plan's own delta would let it pass
        check_budget(plan, Limits(once + 0.01), (), event)
    with pytest.raises(BudgetError, match="the plan adds no noise"):
        check_budget(tiny_plan(tiny_base), Limits(8.0), (), None)
    with pytest.raises(BudgetError, match="well below one"):
        planned_noise(tiny_plan(tiny_base, "privacy.delta=0.01"), 200)


def test_refusals_do_not_tell_how_many_users_there_are(tiny_base):
    said = set()
    for users in (190, 250):  # of one declared weight, 256
        plan = tiny_plan(tiny_base, "privacy.epsilon=1e-9", "privacy.lot_users=50")
        with pytest.raises(BudgetError) as refused:
            planned_noise(plan, users)
        said.add(str(refused.value))
        for delta in (1 / 191, 1 / 249, 1 / 300):
            with pytest.raises(BudgetError, match="well below one"):
                planned_noise(tiny_plan(tiny_base, f"privacy.delta={delta}"), users)
    assert len(said) == 1


def test_what_a_round_costs_is_that_of_the_declared_number(tiny_base):
    plan = tiny_plan(tiny_base, "privacy.epsilon=6.0", "privacy.lot_users=50")
    ahead = [replace(forecast(plan, users, Limits(8.0), ()), users=0) for users in (190, 250, 400)]
    assert ahead[0] == ahead[1] != ahead[2]
    assert ahead[0].sample_rate == 50 / 256


def test_an_overspent_budget_tells_its_owner_by_how_much_and_a_peer_only_that(tiny_base):
    plan = tiny_plan(tiny_base, "privacy.epsilon=8.0")
    event = GaussianSteps(1.0, 0.2, 10)
    after = epsilon([event, event], 1e-5)
    with pytest.raises(BudgetError) as refused:
        check_budget(plan, Limits(1.5), (event,), event)
    assert f"bring epsilon to {after:.3f}, {after - 1.5:.3f} above this domain's limit of 1.5" in str(refused.value)
    assert "above this domain's limit of 1.5 at delta 1e-05" in refused.value.told
    assert f"{after:.3f}"[:4] not in refused.value.told


def test_a_round_is_refused_alike_whatever_passports_users_were_given():
    """A server is refused for nothing: by asking for ever less it would find out."""
    plan, event = read_plan({"privacy": {"epsilon": 8.0}}), GaussianSteps(1.0, 0.2, 10)
    cost, tokens = epsilon([event], 1e-5), (TokenRelease(2.5, "near-set", user="x"), TokenRelease(1.0, "near-set"))
    for limit in (cost - 0.01, cost + 0.01, cost + 0.99, cost + 1.01):
        told = set()
        for spent in ((), tokens[:1], tokens):
            try:
                check_budget(plan, Limits(limit, passports=1.0), spent, event)
                told.add("")
            except BudgetError as refused:
                told.add(refused.told)
        assert len(told) == 1
        assert ("" in told) == (limit > cost + 1)


def test_passports_have_the_part_that_is_kept_for_them():
    plan, trained = read_plan({"privacy": {"epsilon": 8.0}}), (GaussianSteps(1.0, 0.2, 10),)
    cost, before = epsilon(trained, 1e-5), (TokenRelease(2.5, "near-set", user="x"),)
    limits = Limits(cost + 4, passports=4.0)
    assert check_budget(plan, limits, [*trained, *before], TokenRelease(1.5, "near-set", user="x")) == cost + 4
    with pytest.raises(BudgetError, match=r"4\.100, 0\.100 above the 4 of --max-epsilon"):
        check_budget(plan, limits, [*trained, *before], TokenRelease(1.6, "near-set", user="x"))
    with pytest.raises(BudgetError, match=r"start with --for-passports 2\.5 or more"):
        check_passports(Limits(9.0, passports=2.0), before)
    check_passports(Limits(9.0, passports=2.5), before)
    thirds = [TokenRelease(part, "near-set", user="x") for part in (0.1, 0.2)]  # whose sum is a little above .3
    check_passports(Limits(9.0, passports=0.3), thirds)
    check_passports(Limits(), before)


def test_what_devices_spent_counts_against_the_same_limit(tmp_path):
    home, plan, event = Home(tmp_path), read_plan({"privacy": {"epsilon": 8.0}}), GaussianSteps(1.0, 0.2, 10)
    cost = epsilon([event], 1e-5)
    append_event(home.devices, event)
    with pytest.raises(BudgetError, match="above this domain's limit"):
        pay(home, plan, Limits(cost + 0.01), event, simulated=False)
    assert read_events(home.ledger) == ()
    pay(home, plan, Limits(2 * cost), event, simulated=False)
    assert spent_at(home) == [event, event]


def test_a_cut_in_time_and_a_promise_do_not_go_together(members, tiny_base):
    member, plan = members[0], tiny_plan(tiny_base, "privacy.epsilon=8.0")
    adapter, _, base = initial_state(plan)
    before = read_events(member.home.ledger)
    member.protocol = "time"
    try:
        with pytest.raises(BudgetError, match="start with --protocol loo"):
            member.train(Task("train", 1, plan, adapter, base))
    finally:
        member.protocol = "loo"
    assert read_events(member.home.ledger) == before


@pytest.mark.parametrize("setting", ["privacy.mechanism=banded", "privacy.clip_quantile=0.5", "privacy.item_rank=4"])
def test_a_promise_that_devices_alone_can_keep_is_refused_before_it_costs(members, tiny_base, setting):
    member, plan = members[0], tiny_plan(tiny_base, "privacy.epsilon=8.0", setting)
    adapter, _, base = initial_state(plan)
    before = read_events(member.home.ledger)
    with pytest.raises(ConfigError, match="is for a federation of devices"):
        member.train(Task("train", 1, plan, adapter, base))
    assert read_events(member.home.ledger) == before


def test_a_forecast_is_what_the_rounds_then_cost(members, tiny_base):
    plan = tiny_plan(tiny_base, "privacy.epsilon=6.0", "federation.rounds=3")
    before = (GaussianSteps(2.0, 0.1, 5),)
    users = len(sampled_users(members[0].corpus(plan)))
    ahead = forecast(plan, users, Limits(), before)
    assert (ahead.users, ahead.rounds, ahead.rounds_allowed) == (users, 3, 3)
    one = GaussianSteps(ahead.noise_multiplier, ahead.sample_rate, ahead.steps)
    assert 5.9 < ahead.epsilon == epsilon([one] * 3, plan.privacy.delta) <= 6
    assert ahead.after == epsilon([*before, one, one, one], plan.privacy.delta) > ahead.epsilon


def test_a_forecast_counts_the_rounds_that_a_limit_lets_pass(members, tiny_base):
    plan = tiny_plan(tiny_base, "privacy.epsilon=6.0", "federation.rounds=3")
    one = forecast(plan, 100, Limits(), ())
    event = GaussianSteps(one.noise_multiplier, one.sample_rate, one.steps)
    for allowed in range(4):
        limit = epsilon([event] * allowed, plan.privacy.delta) + 0.01
        assert forecast(plan, 100, Limits(limit, plan.privacy.delta), ()).rounds_allowed == allowed
        for done in range(3):  # and the check before each round agrees
            spent = [event] * done
            if done < allowed:
                check_budget(plan, Limits(limit, plan.privacy.delta), spent, event)
            else:
                with pytest.raises(BudgetError):
                    check_budget(plan, Limits(limit, plan.privacy.delta), spent, event)
