"""Every user a client of their own, under a promise: one device gives one clipped gradient, the server adds the noise.

First they tell which item follows which (``private_transitions.py``), paid by ``privacy.transitions``, a part of the
budget. What is left of it pays for training on top of that, by devices that told nothing. In each step a cohort of
these is called. Each takes one window of its own history at random, computes the gradient of its mean loss at some of
the window's positions, all items ranked, and sends that; the server clips what each sent, adds up, adds noise
(``server/central.py``), divides by the cohort that was to be expected and makes one step of Adam. The promise holds for
a device with all its history; whoever sees the model of every step is told no more than that.

What is learnt is small, for noise grows with the root of its size: the weights of a score's parts, and unless
``privacy.releases=mix`` the user tower, a bias for each item and ``privacy.item_rank`` numbers for each item beyond its
text. Texts are read once, by the base as it is. The last step's model counts: choosing among steps by validation would
tell of its users, and nobody pays for that.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import shared.model as shared_model
from client.budget import check_budget, check_delta, check_passports, check_protocol, sample_rate, spent_at
from client.chance import Chance, Repeatable, noised
from client.corpus import Corpus
from client.privacy import sampled_users
from client.rounds import DomainMember
from client.splits import Histories
from client.train import Tick
from server.central import CorrelatedNoise, clip_factors, next_clip, split_noise
from shared.accounting import epsilon, noise_for
from shared.errors import ConfigError, TrainingError
from shared.ledger import GaussianSteps, append_event, read_events, reserved
from shared.model import Recommender, released_names, shared_parameters
from shared.neighbours import Neighbours
from shared.plan import Plan, PrivacyPlan
from shared.private import Private
from shared.seeding import torch_stream
from shared.towers import Mix, prepare, recency_mean
from simulations import private_transitions as transitions

Ints = npt.NDArray[np.int64]
MICRO_DEVICES = 50  # whose gradients are held at a time: some forty megabytes
TELLERS = 0.9  # of the devices, by chance; in the ledger both releases are charged to everybody
# Of the section privacy, what shapes steps alone; so do lr and releases, but the scenario ``devices`` sets them always.
OF_STEPS = ("clip_norm", "lot_users", "steps", "events", "negatives", "mechanism", "clip_quantile", "item_rank")
# A step of the optimiser moves each number by about lr, and noise is the same on each: what shall weigh more is scaled.
BIAS_SCALE, ITEM_SCALE, TOLD_SCALE = 20.0, 10.0, 4.0  # the last of a logarithm


class Windows(NamedTuple):
    """What some devices compute on, side by side; a device alone has no first dimension."""

    items: torch.Tensor  # (devices, events), oldest first, padded at the end
    behaviours: torch.Tensor  # (devices, events)
    mask: torch.Tensor  # (devices, events)
    at: torch.Tensor  # (devices, positions): events after which the next is foretold
    counts: torch.Tensor  # (devices, positions): false where a device has fewer
    answers: torch.Tensor  # (devices, positions): the items that came next
    seen: torch.Tensor  # (devices, positions, items): true for those in the history by then


@dataclass(frozen=True)
class Schedule:
    """Who is called when, under which mechanism, and what that costs."""

    steps: int
    apart: int  # banded: each device is called every so many steps; 0 = Poisson
    expected: float  # devices in a cohort
    event: GaussianSteps
    told: GaussianSteps | None = None  # what tells transitions first (``private_transitions.py``), of the same budget

    @property
    def events(self) -> tuple[GaussianSteps, ...]:
        """All that is released, in its order."""
        return tuple(event for event in (self.told, self.event) if event is not None and event.steps)

    def cohorts(self, devices: int, chance: Chance) -> Iterator[Ints]:
        """The devices of each step. Nobody's turn depends on who else is there."""
        turns = (chance.uniform(devices) * self.apart).astype(np.int64) if self.apart else None
        for step in range(self.steps):
            if turns is None:
                yield np.flatnonzero(chance.uniform(devices) < self.event.sample_rate)
            else:
                yield np.flatnonzero(turns == step % self.apart)


def schedule(plan: Plan, devices: int) -> Schedule:
    """What the plan comes to for so many devices. Raises BudgetError where its epsilon and delta cannot be had."""
    check_delta(plan, devices)
    promise, steps, told = plan.privacy, plan.federation.rounds * plan.privacy.steps, _told(plan)
    if told is not None:
        devices = max(1, round((1 - TELLERS) * devices))
    rate = sample_rate(plan, devices)
    if told is not None and promise.transitions == 1:
        return Schedule(0, 0, rate * devices, GaussianSteps(told.noise_multiplier, rate, 0), told)
    beside = () if told is None else (told,)
    if promise.mechanism == "poisson":
        noise = noise_for(promise.epsilon, promise.delta, rate, steps, beside)
        return Schedule(steps, 0, rate * devices, GaussianSteps(noise, rate, steps), told)
    apart = max(1, round(1 / rate))
    # All steps together are one Gaussian release in which everybody takes part.
    whole = GaussianSteps(noise_for(promise.epsilon, promise.delta, 1.0, 1, beside), 1.0, 1)
    return Schedule(steps, apart, devices / apart, whole, told)


def _told(plan: Plan) -> GaussianSteps | None:
    """The release of transitions: of 1 / multiplier^2, which adds up over Gaussian releases, its part."""
    promise = plan.privacy
    if not promise.transitions:
        return None
    return GaussianSteps(noise_for(promise.epsilon, promise.delta, 1.0, 1) / math.sqrt(promise.transitions), 1.0, 1)


def check_devices(plan: Plan) -> None:
    """Raises ConfigError on a setting that devices under a promise do not know."""
    if plan.model.similarity == "euclidean":
        raise ConfigError("devices under privacy.epsilon expect model.similarity=cosine or dot, found euclidean")
    if plan.train.loss != "softmax" or plan.adversary.weight:
        raise ConfigError(
            f"devices under privacy.epsilon train.loss=softmax and without an adversary, found {plan.train.loss} and "
            f"adversary.weight={plan.adversary.weight:g}; leave both as they are, or promise nothing"
        )
    for name in OF_STEPS if plan.privacy.transitions == 1 else ():
        if (found := getattr(plan.privacy, name)) != (usual := getattr(PrivacyPlan(), name)):
            raise ConfigError(
                f"privacy.{name}={found} is for steps of training, and privacy.transitions=1 leaves no budget for any: "
                f"leave it at {usual}, or lower privacy.transitions"
            )


class Learnt:
    """What the devices' server trains, as one vector; and what one device makes of it."""

    def __init__(self, model: Recommender, corpus: Corpus, plan: Plan, follows: Neighbours | None = None) -> None:
        """``follows`` is what the devices told before."""
        self.model, self.space, self.plan = model.eval(), corpus.space, plan
        self.follows = None if follows is None else transitions.dense(follows)
        few = plan.privacy.releases == "mix"
        items, rank = len(corpus.space), 0 if few or not model.plan.item_embedding else plan.privacy.item_rank
        rank = min(rank, model.dim)
        shared = shared_parameters(model)
        names = [n for n in sorted(released_names(plan, list(shared))) if n.startswith(("user.", "mix."))]
        values = {name: shared[name].detach() for name in names}
        if not few:
            values |= {"bias": torch.zeros(items), "item": torch.zeros(items, rank)}
        if follows is not None:
            values["told"] = torch.zeros(1)
        self.shapes = {name: value.shape for name, value in values.items()}
        self.flat = torch.cat([value.flatten() for value in values.values()])
        with torch.no_grad():
            self.x = model.encode(corpus.space)  # (items, dim)
            exact = torch.cat([model.items(self.x), corpus.space.base], 1).T
        self.both = exact.bfloat16() if shared_model.BF16 else exact  # (2 dim, items): similarity, prior
        # Directions that items may leave their texts in, (rank, dim): drawn, so they tell nothing.
        drawn = torch.randn(model.dim, rank, generator=torch_stream(plan.federation.seed, "devices", "plane"))
        self.plane = torch.linalg.qr(drawn).Q.T

    def named(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """The vector's parts under their names and in their shapes; zeros for what is not learnt."""
        parts = flat.split([shape.numel() for shape in self.shapes.values()])
        still = {"bias": torch.zeros(1), "item": torch.zeros(len(self.space), 0), "told": torch.zeros(1)}
        return still | {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def told(self, some: Windows) -> torch.Tensor:
        """What transitions add to the scores, (devices, positions, items); one zero for all items where none are."""
        if self.follows is None:
            return torch.zeros(*some.at.shape, 1)
        return transitions.added(self.follows, some.items, some.mask, some.at)

    def loss(self, flat: torch.Tensor, one: Windows, told: torch.Tensor) -> torch.Tensor:
        """Mean loss of one device over its positions, ``told`` (positions, items or 1) being added to its scores."""
        named, plan = self.named(flat), self.model.plan
        item, known = ITEM_SCALE * named["item"], one.mask[:, None]
        x = self.x[one.items] + (item[one.items] @ self.plane if plan.item_reading else 0.0)
        told = told * (TOLD_SCALE * named["told"]).exp()
        x = (x * known)[None]
        tower = {name.removeprefix("user."): value for name, value in named.items() if name.startswith("user.")}
        u = functional_call(self.model.user, tower, (x, one.behaviours[None], recency_mean(x, plan.recency)))
        u = prepare(u[0, one.at], plan.similarity)
        z = recency_mean((self.space.base[one.items] * known)[None], plan.recency)[0, one.at]
        similarity, prior, repeat = named.get("mix.parts.weight", self.model.mix.parts.weight)[0] * Mix.SCALE
        scores = (torch.cat([similarity * u, prior * z], 1).to(self.both.dtype) @ self.both).float()
        scores = (
            scores + similarity * (u @ self.plane.T) @ item.T + repeat * one.seen + BIAS_SCALE * named["bias"] + told
        )
        losses = F.cross_entropy(scores, one.answers, reduction="none") * one.counts
        return losses.sum() / one.counts.sum().clamp(min=1)

    @torch.no_grad()  # of the rest of the model; ``grad`` minds only its own
    def gradients(self, some: Windows) -> torch.Tensor:
        """Of each device by itself, (devices, numbers); of one whose numbers are not finite, zeros."""
        with sdpa_kernel(SDPBackend.MATH):  # the others know no gradients side by side
            found: torch.Tensor = vmap(grad(self.loss), in_dims=(None, 0, 0))(self.flat, some, self.told(some))
        return torch.where(found.norm(dim=1, keepdim=True).isfinite(), found, 0.0)

    def put(self, private: Private) -> None:
        """The vector's numbers into the model and into ``private``, where scores come out as in ``loss``."""
        named, shared = self.named(self.flat), shared_parameters(self.model)
        for name in named.keys() & shared.keys():
            shared[name].data.copy_(named[name])
        with torch.no_grad():
            private.strength.fill_(BIAS_SCALE)
            private.bias.copy_(named["bias"].expand_as(private.bias))
            private.near[0] *= float((TOLD_SCALE * named["told"]).exp())
            if private.item is not None:
                private.item.weight.copy_(ITEM_SCALE * named["item"] @ self.plane)


def windows_of(histories: Histories, chosen: Ints, events: int, positions: int, items: int, chance: Chance) -> Windows:
    """At random: a window of each chosen device's history, of at most ``events`` + 1, and some positions in it."""
    lengths = np.minimum(histories.lengths[chosen], events + 1)
    starts = (chance.uniform(len(chosen)) * (histories.lengths[chosen] - lengths + 1)).astype(np.int64)
    column = np.arange(events + 1)
    inside = column < lengths[:, None]
    places = np.where(inside, (histories.offsets[chosen] + starts)[:, None] + column, 0)
    rows, done = torch.from_numpy(histories.items[places].astype(np.int64)), histories.behaviours[places]
    mask = torch.from_numpy(inside)
    keys = chance.uniform(len(chosen) * events).reshape(-1, events)
    at = torch.from_numpy(np.argsort(np.where(inside[:, 1:], keys, 1.0), 1)[:, :positions])
    counts = mask[:, 1:].gather(1, at)
    visible = (torch.arange(events) <= at[..., None]) & mask[:, None, :-1]
    seen = torch.zeros(*at.shape, items, dtype=torch.bool)
    device, position, event = visible.nonzero(as_tuple=True)
    seen[device, position, rows[device, event]] = True
    behaviours = torch.from_numpy(done.astype(np.int64))[:, :-1]
    return Windows(rows[:, :-1], behaviours, mask[:, :-1], at, counts, rows.gather(1, at + 1), seen)


def clipped_sum(gradients: torch.Tensor, clip: float) -> torch.Tensor:
    """Sum over devices of the clipped gradients, then of +1/2 for a norm below the clip, -1/2 above: (numbers + 1,)."""
    norms = gradients.norm(dim=1)
    below = (norms <= clip).float() - 0.5
    return torch.cat([clip_factors(norms, clip) @ gradients, below.sum()[None]])


def train_privately(
    model: Recommender, corpus: Corpus, plan: Plan, calls: Schedule, chance: Chance, tick: Tick | None = None
) -> tuple[Private, float]:
    """All of the schedule, in place: (what is beside the adapter, the last clip). Raises ConfigError, TrainingError."""
    users, private = sampled_users(corpus), corpus.private(model)
    private.neighbours = None  # those are counts without noise
    if calls.told is not None:
        telling = chance.uniform(len(users)) < (TELLERS if calls.steps else 1)
        # The others train: who told a pair that few others met would find itself in the table, and trust it too much.
        tellers, users = users[telling], users[~telling]
        told = transitions.release(
            corpus.split.train,
            tellers,
            len(corpus.space),
            calls.told.noise_multiplier,
            chance,
            plan.privacy.noise_by == "devices",
        )
        transitions.put(private, transitions.table(told))
    learnt = Learnt(model, corpus, plan, private.neighbours)
    optimizer = torch.optim.Adam([learnt.flat], lr=plan.privacy.lr, betas=(0.9, 0.98))
    clip, quantile, multiplier = plan.privacy.clip_norm, plan.privacy.clip_quantile, calls.event.noise_multiplier
    of_sum, of_count = split_noise(multiplier) if quantile else (multiplier, 0.0)
    correlated = CorrelatedNoise(calls.steps, calls.apart) if calls.apart else None
    for step, cohort in enumerate(calls.cohorts(len(users), chance)):
        total = torch.zeros(len(learnt.flat) + 1)
        for start in range(0, len(cohort), MICRO_DEVICES):
            some = users[cohort[start : start + MICRO_DEVICES]]
            drawn = windows_of(
                corpus.split.train, some, model.plan.max_history, plan.privacy.events, len(corpus.space), chance
            )
            total += clipped_sum(learnt.gradients(drawn), clip)
        fresh = chance.normal(tuple(total.shape))
        noise = fresh if correlated is None else correlated.next(fresh)
        learnt.flat.grad = noised(total[:-1], of_sum * clip * noise[:-1], clip) / calls.expected
        for group in optimizer.param_groups:
            group["lr"] = plan.privacy.lr * pace(step, calls.steps, plan.train.warmup)
        optimizer.step()
        if quantile:
            below = float(noised(total[-1:], of_count * noise[-1:], clip=1.0)) / calls.expected + 0.5
            clip = next_clip(clip, below, quantile)
        if tick is not None:
            tick("noisy step", step + 1, calls.steps)
    if not bool(torch.isfinite(learnt.flat).all()):
        raise TrainingError("the devices' model is not finite after the last step; lower privacy.lr")
    learnt.put(private)
    return private, clip


def train_under_promise(
    model: Recommender, member: DomainMember, plan: Plan, tick: Tick | None = None
) -> tuple[Private, float]:
    """The whole federation of a domain's devices; what it costs stands in their ledger before the first step.

    In a simulation, so the draws come from the run's seed. Raises BudgetError where the domain's limit is in the way.
    """
    corpus, home = member.corpus(plan), member.home
    users = len(sampled_users(corpus))
    check_devices(plan)
    calls = schedule(plan, users)
    if calls.told is not None:
        transitions.check_catalogue(len(corpus.space))
    if plan.privacy.noise_by == "devices":
        transitions.check_shares(users)
    check_protocol(plan, member.protocol)
    with reserved(home.ledger):  # as rounds do: both are held against one limit
        *first, last = calls.events
        check_passports(member.limits, spent_at(home))
        check_budget(plan, member.limits, [*spent_at(home), *first], last)
        for event in calls.events:
            append_event(home.devices, event)
    chance = Repeatable(plan.federation.seed, "devices", corpus.name, "private")
    return train_privately(model, corpus, plan, calls, chance, tick)


def spent_by_devices(member: DomainMember, plan: Plan) -> dict[str, float | None]:
    """Epsilon of the devices' federations so far, at the plan's delta; empty where there was none under a promise."""
    events = read_events(member.home.devices)
    return {"epsilon": epsilon(events, plan.privacy.delta), "delta": plan.privacy.delta} if events else {}


def pace(step: int, steps: int, warmup: float) -> float:
    """Of the learning rate: up to 1 over the first part of the steps, then down to a twentieth."""
    return min((step + 1) / max(1.0, warmup * steps), max(0.05, 1 - step / steps))
