"""Devices under a promise: gradients against each device alone, bounds, noise, and what the result says was spent."""

import json
import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from support.tiny_members import tiny_plan
from torch.nn import functional as F

from client.budget import Limits
from client.chance import Repeatable, Unforeseen
from client.privacy import sampled_users
from client.rounds import DomainMember
from client.store import Home
from client.train import answers, predictions
from shared.accounting import epsilon
from shared.errors import BudgetError, ConfigError
from shared.ledger import GaussianSteps, PlainRelease, append_event, read_events
from shared.model import Batch, Recommender
from shared.neighbours import Neighbours
from shared.plan import PrivacyPlan
from shared.prefix import find_base
from shared.secure_sum import quorum
from simulations import private_devices
from simulations.compare import Comparison
from simulations.devices import train_devices
from simulations.private_devices import (
    Learnt,
    Windows,
    check_devices,
    clipped_sum,
    schedule,
    train_privately,
    train_under_promise,
    windows_of,
)
from simulations.private_transitions import put, release, summed, table

PROMISE = ("privacy.epsilon=8.0", "privacy.item_rank=3")
# Devices that train in no step, and every setting of such steps as it is by itself.
TOLD = ("privacy.epsilon=8.0", "privacy.transitions=1")
UNTRAINED = (*TOLD, *(f"privacy.{name}={getattr(PrivacyPlan(), name)}" for name in private_devices.OF_STEPS))


@pytest.fixture(params=["all", "outputs", "mix", "all, told"])
def bench(request, members, tiny_base, monkeypatch):
    """What devices learn, away from its start and in single precision, and windows of seven of them."""
    monkeypatch.setattr("shared.model.BF16", False)
    releases, *told = request.param.split(", ")
    plan = tiny_plan(tiny_base, *PROMISE, f"privacy.releases={releases}")
    corpus = members[0].corpus(plan)
    follows = None
    if told or releases == "mix":
        noised = release(corpus.split.train, sampled_users(corpus), len(corpus.space), 0.5, Repeatable(2))
        follows = table(noised)
    learnt = Learnt(Recommender(plan.model, find_base(plan.model.base), 7), corpus, plan, follows)
    learnt.flat += 0.05 * torch.randn(learnt.flat.shape, generator=torch.Generator().manual_seed(1))
    return learnt, corpus, plan, drawn(corpus, plan, 7)


def sparse(follows):
    values, rows = follows.topk(len(follows))
    return Neighbours(rows.int(), values)


def drawn(corpus, plan, devices):
    users = sampled_users(corpus)[:devices]
    events = plan.model.max_history
    return windows_of(corpus.split.train, users, events, plan.privacy.events, len(corpus.space), Repeatable(0))


def test_gradients_are_those_of_each_device_alone(bench):
    learnt, _, _, windows = bench
    together, told = learnt.gradients(windows), learnt.told(windows)
    for device in range(len(together)):
        flat = learnt.flat.clone().requires_grad_(True)
        loss = learnt.loss(flat, Windows(*(part[device] for part in windows)), told[device])
        (truth,) = torch.autograd.grad(loss, flat)
        assert truth.norm() > 0
        assert (together[device] - truth).norm() / truth.norm() < 1e-5


def test_the_loss_is_that_of_the_model_which_serves(bench):
    learnt, corpus, plan, _ = bench
    users = sampled_users(corpus)[:5]
    longest = plan.model.max_history
    windows = windows_of(corpus.split.train, users, longest, longest, len(corpus.space), Unforeseen())
    private = corpus.private(learnt.model)
    if learnt.follows is not None:
        put(private, sparse(learnt.follows))
    told = learnt.told(windows)
    losses = [
        learnt.loss(learnt.flat, Windows(*(part[row] for part in windows)), told[row]) for row in range(len(users))
    ]
    learnt.put(private)
    for row in range(len(users)):
        counts, at = windows.counts[row], windows.at[row]
        last = at[counts].max() + 1  # inputs; the answer to the last of them is no input itself
        items = torch.cat([windows.items[row][:last], windows.answers[row][at == last - 1]])[None]
        nothing = torch.tensor([], dtype=torch.int64)
        behaviours = F.pad(windows.behaviours[row][:last], (0, 1))[None]
        batch = Batch(torch.tensor([-1]), items, behaviours, torch.ones_like(items, dtype=torch.bool))
        logits = predictions(learnt.model, corpus.space, learnt.x, private, batch, 0)
        truth = F.cross_entropy(logits, answers(batch, nothing)).detach()
        assert len(logits) == int(counts.sum())
        assert float(truth) == pytest.approx(float(losses[row].detach()), rel=1e-4)


def test_windows_hold_events_that_follow_each_other_and_tell_what_was_seen(bench):
    _, corpus, plan, windows = bench
    for row, user in enumerate(sampled_users(corpus)[:7]):
        history = corpus.split.train.row(int(user)).tolist()
        own = windows.items[row][windows.mask[row]].tolist()
        for place, count, answer, seen in zip(
            windows.at[row], windows.counts[row], windows.answers[row], windows.seen[row], strict=True
        ):
            if count:
                whole = [*own[: int(place) + 1], int(answer)]
                assert whole in [history[at : at + len(whole)] for at in range(len(history))]
                assert seen.nonzero().flatten().tolist() == sorted(set(own[: int(place) + 1]))
        assert int(windows.counts[row].sum()) == min(plan.privacy.events, len(history) - 1, plan.model.max_history)


def test_a_device_moves_the_sum_by_the_clip_at_most(bench):
    learnt, _, _, windows = bench
    gradients = learnt.gradients(windows)
    clip = float(gradients.norm(dim=1).median())
    whole = clipped_sum(gradients, clip)
    for device in range(len(gradients)):
        without = clipped_sum(gradients[torch.arange(len(gradients)) != device], clip)
        assert float((whole - without)[:-1].norm()) <= clip * (1 + 1e-5)
        assert abs(float(whole[-1] - without[-1])) == 0.5
    assert float((whole[:-1] / clip).norm()) > 0


def test_numbers_that_are_not_finite_count_for_nothing(bench):
    learnt, _, _, windows = bench
    learnt.space.base[int(windows.items[0, 0])] *= math.nan
    assert learnt.gradients(windows).isfinite().all()


def test_nobodys_turn_depends_on_who_else_is_there(tiny_base):
    all_train = (*PROMISE, "privacy.transitions=0")
    banded = schedule(tiny_plan(tiny_base, *all_train, "privacy.mechanism=banded", "privacy.steps=9"), 120)
    assert (banded.steps, banded.apart, banded.expected) == (18, 5, 24.0)
    cohorts = list(banded.cohorts(120, Repeatable(1)))
    for device in range(120):
        turns = [step for step, cohort in enumerate(cohorts) if device in cohort]
        assert set(np.diff(turns)) == {5}
    poisson = schedule(tiny_plan(tiny_base, *all_train, "privacy.steps=200"), 120)
    sizes = [len(cohort) for cohort in poisson.cohorts(120, Repeatable(1))]
    assert abs(np.mean(sizes) - poisson.expected) < 4 * math.sqrt(120 * 0.2 * 0.8 / 400)


@pytest.mark.parametrize("transitions", [0, 0.4, 1])
@pytest.mark.parametrize("mechanism", ["poisson", "banded"])
def test_a_schedule_costs_what_the_plan_allows_and_hardly_less(tiny_base, mechanism, transitions):
    plan = tiny_plan(tiny_base, *PROMISE, f"privacy.mechanism={mechanism}", f"privacy.transitions={transitions}")
    found = schedule(plan, 120)
    assert 7.9 < epsilon(found.events, plan.privacy.delta) <= 8.0
    assert len(found.events) == (2 if transitions == 0.4 else 1)
    assert (found.told is None) == (transitions == 0)
    assert found.steps == (0 if transitions == 1 else 4)
    if mechanism == "banded" and transitions == 0.4:  # two Gaussian releases: 1 / noise^2 adds up
        parts = [1 / event.noise_multiplier**2 for event in found.events]
        assert parts[0] / sum(parts) == pytest.approx(0.4, abs=0.01)
    assert schedule(plan, 3).expected > 0  # of three, none may be left to train
    with pytest.raises(BudgetError, match="well below one"):
        schedule(plan, 20_000)


@pytest.mark.parametrize("quantile", [0.0, 0.5])
def test_a_step_that_nobody_joins_releases_noise_of_the_stated_size(members, tiny_base, monkeypatch, quantile):
    plan = tiny_plan(tiny_base, *PROMISE, f"privacy.clip_quantile={quantile}", "privacy.clip_norm=0.5")
    corpus = members[0].corpus(plan)
    steps = []
    monkeypatch.setattr(
        "torch.optim.Adam.step", lambda self: steps.append(self.param_groups[0]["params"][0].grad.clone())
    )
    nobody = private_devices.Schedule(1, 0, 10.0, GaussianSteps(2.0, 1e-9, 1))
    model = Recommender(plan.model, find_base(plan.model.base), 7)
    train_privately(model, corpus, plan, nobody, Repeatable(1))
    expected = 2.0 * 0.5 / 10.0 * (1 / math.sqrt(0.99) if quantile else 1)  # multiplier x clip / expected devices
    assert abs(float(steps[0].std()) / expected - 1) < 3 / math.sqrt(2 * len(steps[0]))
    assert abs(float(steps[0].mean())) < 3 * expected / math.sqrt(len(steps[0]))


@pytest.mark.parametrize("transitions", [0, 0.5, 1])
def test_who_told_transitions_does_not_train_on_them(members, tiny_base, monkeypatch, transitions):
    plan = tiny_plan(tiny_base, *PROMISE, f"privacy.transitions={transitions}")
    corpus, told, trained = members[0].corpus(plan), set(), set()
    true_release, true_windows = private_devices.transitions.release, private_devices.windows_of
    monkeypatch.setattr(
        "simulations.private_transitions.release",
        lambda part, who, *more: told.update(who) or true_release(part, who, *more),
    )
    monkeypatch.setattr(
        "simulations.private_devices.windows_of",
        lambda part, who, *more: trained.update(who) or true_windows(part, who, *more),
    )
    users = sampled_users(corpus)
    model = Recommender(plan.model, find_base(plan.model.base), 7)
    train_privately(model, corpus, plan, schedule(plan, len(users)), Repeatable(1))
    assert not told & trained
    assert bool(trained) == (transitions < 1)
    share = len(told) / len(users)
    assert share == transitions if transitions != 0.5 else abs(share - 0.9) < 4 * math.sqrt(0.09 / len(users))


def comparison(members, plan, out):
    return Comparison(plan, members[:1], members[0].workshop, out, "loo", say=lambda line: None)


@pytest.mark.parametrize("settings", [(), ("privacy.mechanism=banded", "privacy.clip_quantile=0.5")])
def test_a_run_tells_what_it_spent_and_never_trains_without_noise(members, tiny_base, tmp_path, monkeypatch, settings):
    def never(*args, **more):
        raise AssertionError("trained without noise under a promise")

    monkeypatch.setattr("simulations.devices.train", never)
    monkeypatch.setattr("simulations.compare.train", never)
    plan = tiny_plan(tiny_base, *PROMISE, *settings)
    members[0].home.folder.mkdir(parents=True, exist_ok=True)
    result = comparison(members, plan, tmp_path / "run").run(["devices"])
    found = result["domains"][members[0].name]
    events = read_events(members[0].home.devices)
    assert len(events) == 2
    assert events[0].sample_rate == events[0].steps == 1
    assert found["devices_privacy"]["epsilon"] == epsilon(events, plan.privacy.delta) <= plan.privacy.epsilon
    assert "ndcg@10" in found["devices"]
    assert json.loads((tmp_path / "run" / "result.json").read_text())["domains"] == result["domains"]


def test_devices_keep_the_limits_of_their_silo(members, tiny_base, monkeypatch):
    """They are the same users, and a cut in time is no more private for them."""
    plan, member = tiny_plan(tiny_base, *PROMISE), members[0]
    model = member.workshop.model(plan)
    member.home.folder.mkdir(parents=True, exist_ok=True)
    before = read_events(member.home.devices)
    member.protocol = "time"
    try:
        with pytest.raises(BudgetError, match="start with --protocol loo"):
            train_under_promise(model, member, plan)
    finally:
        member.protocol = "loo"
    append_event(member.home.ledger, PlainRelease("update"))
    member.limits = Limits(max_epsilon=100.0)
    try:
        with pytest.raises(BudgetError, match="released without a promise before"):
            train_under_promise(model, member, plan)
    finally:
        member.limits = Limits()
        member.home.ledger.unlink()
    with monkeypatch.context() as few:  # nor is anything written for a sum of two
        few.setattr("simulations.private_devices.sampled_users", lambda corpus: np.arange(2))
        alone = tiny_plan(tiny_base, *UNTRAINED, "privacy.noise_by=devices")
        with pytest.raises(ConfigError, match="takes 3 devices at least, found 2"):
            train_under_promise(model, member, alone)
    assert read_events(member.home.devices) == before


@pytest.mark.parametrize("by", ["server", "devices"])
def test_noise_in_shares_is_a_little_more(members, tiny_base, monkeypatch, by):
    plan = tiny_plan(tiny_base, *PROMISE, "privacy.transitions=1", f"privacy.noise_by={by}")
    made = []
    monkeypatch.setattr("simulations.private_transitions.table", lambda noised: made.append(noised) or table(noised))
    corpus = members[0].corpus(plan)
    users = sampled_users(corpus)
    calls = schedule(plan, len(users))
    train_privately(members[0].workshop.model(plan), corpus, plan, calls, Repeatable(1))
    noise = made[0].numpy() - summed(corpus.split.train, users, len(corpus.space))
    expected = calls.told.noise_multiplier * (math.sqrt(len(users) / quorum(len(users))) if by == "devices" else 1)
    assert noise.std() == pytest.approx(expected, abs=4 * expected / math.sqrt(2 * noise.size))


def test_rounds_and_devices_wait_for_each_other(members, tiny_base, tmp_path, monkeypatch):
    """One limit bounds both, so neither pays between the other's look at the ledgers and what it writes."""
    member = DomainMember(members[0].domain, Home(tmp_path), members[0].workshop, simulated=True)
    held = []
    monkeypatch.setattr(private_devices, "reserved", lambda path: held.append(path) or nullcontext())
    monkeypatch.setattr(private_devices, "train_privately", lambda *_, **__: None)
    train_under_promise(None, member, tiny_plan(tiny_base, *PROMISE))
    assert held == [member.home.ledger]


def test_what_adds_no_noise_is_refused_under_a_promise(members, tiny_base, tmp_path):
    plan = tiny_plan(tiny_base, *PROMISE)
    model = members[0].workshop.model(plan)
    with pytest.raises(ConfigError, match="adds no noise"):
        train_devices(model, members[0].corpus(plan), plan)
    for setting, says in (
        ("model.similarity=euclidean", "found euclidean"),
        ("train.loss=bpr", "found bpr and adversary.weight=0"),
        ("adversary.weight=0.5", "found softmax and adversary.weight=0.5"),
    ):
        member = DomainMember(members[0].domain, Home(tmp_path), members[0].workshop, simulated=True)
        with pytest.raises(ConfigError, match=says):
            train_under_promise(model, member, tiny_plan(tiny_base, *PROMISE, setting))
        assert not member.home.devices.exists()  # nothing is paid


@pytest.mark.parametrize("setting", ["mechanism=banded", "clip_quantile=0.5", "steps=3", "events=4", "item_rank=3"])
def test_devices_that_only_tell_transitions_refuse_settings_of_steps(tiny_base, setting):
    check_devices(tiny_plan(tiny_base, *UNTRAINED, "privacy.lr=0.05", "privacy.releases=mix"))  # a scenario's
    check_devices(tiny_plan(tiny_base, "privacy.epsilon=8", f"privacy.{setting}"))
    with pytest.raises(ConfigError, match=f"privacy.{setting} is for steps .* leave it at"):
        check_devices(tiny_plan(tiny_base, *UNTRAINED, f"privacy.{setting}"))
