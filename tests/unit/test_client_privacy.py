import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.tiny_members import tiny_plan

from client.budget import (
    declared,
    sample_rate,
)
from client.chance import GRID, Repeatable, Unforeseen
from client.privacy import Lot, PerUserGradients, lots, sampled_users, train_privately
from client.splits import Histories
from shared.ledger import GaussianSteps
from shared.model import Recommender, adapter_tensors, released_names, shared_parameters
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
