"""User-level DP-SGD (Abadi et al. 2016): per-user gradients, clip, Gaussian noise; Opacus is the engine.

A row is not a user: the encoder sees ``users x slots`` texts, so its per-row gradients are summed to users
before anything is clipped. The loss is a sum over users; negatives come from the public catalogue.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

import shared.model
from client.adversary import worst_case
from client.batches import pad
from client.budget import declared, sample_rate
from client.chance import Chance, Repeatable, Unforeseen, noised
from client.corpus import Corpus
from client.losses import LOSSES
from client.splits import Histories
from client.train import Tick
from shared.errors import TrainingError
from shared.ledger import GaussianSteps
from shared.model import Recommender, Space, shared_parameters
from shared.plan import Plan
from shared.towers import prepare, recency_mean, similar

if TYPE_CHECKING:
    from opacus.optimizers import DPOptimizer

HELD = 2**24  # numbers of per-user gradients held at a time: 64 MB, and some times that in activations
MOST_HELD = 256  # users, however few numbers are released of each


@dataclass(frozen=True)
class Lot:
    """Some users of a Poisson sample, each with ``events`` history slots and ``negatives`` public ones."""

    items: torch.Tensor  # (users, events + negatives)
    behaviours: torch.Tensor  # (users, events)
    mask: torch.Tensor  # (users, events)

    @property
    def events(self) -> int:
        return self.mask.shape[1]


def sampled_users(corpus: Corpus) -> npt.NDArray[np.int64]:
    """Who is learnt from: see ``learnt_from``."""
    return learnt_from(corpus.split.train)


def learnt_from(train: Histories) -> npt.NDArray[np.int64]:
    """Users with something to predict: two training events or more."""
    return np.flatnonzero(train.lengths >= 2)


def train_privately(
    model: Recommender,
    corpus: Corpus,
    plan: Plan,
    noise_multiplier: float,
    released: frozenset[str],
    place: tuple[str | int, ...],
    *,
    simulated: bool,
    tick: Tick | None = None,
) -> GaussianSteps:
    """Take ``privacy.steps`` noisy steps on the released parameters, in place; what they cost.

    ``simulated`` draws users and noise from the run's seed, so that a simulation can be repeated; otherwise
    both come from the operating system. Raises TrainingError on numbers that are not finite.
    """
    users = sampled_users(corpus)  # of none all steps are noise: that there is one may not be told
    rate = sample_rate(plan, declared(len(users)))
    chance: Chance = Repeatable(plan.federation.seed, *place) if simulated else Unforeseen()
    engine = PerUserGradients(model, corpus.space, plan, released)
    try:
        optimizer = engine.optimizer(noise_multiplier, rate * declared(len(users)))
        for done in range(plan.privacy.steps):
            chosen = users[chance.uniform(len(users)) < rate]
            groups = lots(corpus.split.train, chosen, plan, len(corpus.space), chance, engine.group)
            engine.noisy_step(optimizer, groups, chance)
            if tick is not None:
                tick("noisy step", done + 1, plan.privacy.steps)
    finally:
        engine.close()
    for name, value in shared_parameters(model).items():
        if not bool(torch.isfinite(value).all()):
            raise TrainingError(f"{name} is not finite after private training; lower privacy.lr")
    return GaussianSteps(noise_multiplier, rate, plan.privacy.steps)


def lots(
    histories: Histories, users: npt.NDArray[np.int64], plan: Plan, catalogue: int, chance: Chance, group: int = 16
) -> Iterable[Lot]:
    """The sampled users in groups of so many, each user with negatives of its own from the public catalogue.

    Nothing of a user's slots hangs on who else is in the group: there are as many for everybody, and those that a short
    history leaves hold its own first event again. A mask multiplies by 0, and 0 times a number without bound is none:
    an adapter made to overflow on what others' slots hold would make their gradients vanish with the user who is there.
    """
    events = events_of(plan)
    for start in range(0, len(users), group):
        some = users[start : start + group]
        batch = pad(histories, some, some, events)
        items, behaviours = _own(batch.items, batch.mask, events), _own(batch.behaviours, batch.mask, events)
        mask = torch.arange(events) < batch.mask.sum(1)[:, None]
        negatives = chance.integers(catalogue, (len(some), plan.privacy.negatives))
        yield Lot(torch.cat([items, torch.from_numpy(negatives)], 1), behaviours, mask)


def _own(of: torch.Tensor, mask: torch.Tensor, events: int) -> torch.Tensor:
    """(users, events), each row's first entry wherever it has none of its own."""
    first = of[:, :1]
    return torch.cat([torch.where(mask, of, first), first.expand(-1, events - of.shape[1])], 1)


def events_of(plan: Plan) -> int:
    """Slots of a user's history."""
    return min(plan.privacy.events, plan.model.max_history)


class PerUserGradients:
    """Opacus' hooks on the model while it is trained privately; ``close`` takes them off again."""

    def __init__(self, model: Recommender, space: Space, plan: Plan, released: frozenset[str]) -> None:
        self.model, self.space, self.plan = model, space, plan
        self.named = {name: value for name, value in shared_parameters(model).items() if name in released}
        for name, value in shared_parameters(model).items():
            value.requires_grad_(name in released)
        model.train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.eval()
        numbers, events = sum(value.numel() for value in self.named.values()), events_of(plan)
        slots = events + plan.privacy.negatives
        self.group = min(MOST_HELD, max(1, HELD // max(numbers, slots * model.dim, events * slots)))
        # What no step moves is computed once, (items, dim): text vectors, and what the item tower makes of them.
        self.vectors = None if any(".lora_" in name for name in self.named) else model.encode(space)
        still = not plan.adversary.weight and not any(name.startswith("item.") for name in self.named)
        self.items = model.items(self.vectors).detach() if still and self.vectors is not None else None
        from opacus import GradSampleModule  # half of what a command takes to begin, and few train under a promise

        self.hooks = GradSampleModule(model, batch_first=True, loss_reduction="sum", strict=False)

    def close(self) -> None:
        self.hooks.remove_hooks()
        for value in self.named.values():
            value.grad = None
            for name in ("grad_sample", "summed_grad", "_forward_counter", "_current_grad_sample"):
                if hasattr(value, name):
                    delattr(value, name)
        self.model.eval()

    def optimizer(self, noise_multiplier: float, expected_users: float) -> "DPOptimizer":
        """Adam on the clipped and noised sum, divided by the expected (not the actual) number of users.

        Expected of those ``declared``: the true number is nobody's to learn from the length of a step."""
        from opacus.optimizers import DPOptimizer  # as above

        inner = torch.optim.Adam(self.named.values(), lr=self.plan.privacy.lr)
        return DPOptimizer(
            inner,
            noise_multiplier=noise_multiplier,
            max_grad_norm=self.plan.privacy.clip_norm,
            expected_batch_size=max(expected_users, 1.0),
            loss_reduction="sum",
        )

    def noisy_step(self, optimizer: "DPOptimizer", groups: Iterable[Lot], chance: Chance) -> None:
        """One step over the whole lot, a group of users at a time. An empty lot still releases its noise."""
        for value in self.named.values():
            value.summed_grad = torch.zeros_like(value)  # type: ignore[attr-defined]
        for lot in groups:
            self.per_user(lot)
            self._drop_unbounded()
            optimizer.clip_and_accumulate()
            for value in self.named.values():
                value.grad_sample = None  # type: ignore[attr-defined]
        deviation = optimizer.noise_multiplier * optimizer.max_grad_norm
        for value in self.named.values():
            noise = deviation * chance.normal(tuple(value.shape))
            found = noised(value.summed_grad, noise, optimizer.max_grad_norm)  # type: ignore[attr-defined]
            value.grad = found / optimizer.expected_batch_size
        optimizer.original_optimizer.step()
        for value in self.named.values():
            value.grad = None

    def _drop_unbounded(self) -> None:
        """A user whose gradient is not finite counts as one without any: no clip bounds it and no noise hides it, so
        that an adapter made to overflow on some item would tell who met it."""
        rows: list[torch.Tensor] = [value.grad_sample for value in self.named.values()]  # type: ignore[attr-defined]
        bad = ~torch.stack([row.flatten(1).isfinite().all(1) for row in rows]).all(0)
        if bool(bad.any()):
            for row in rows:
                row[bad] = 0

    def per_user(self, lot: Lot) -> dict[str, torch.Tensor]:
        """Gradient of each user's own loss, (users, *shape) for each released name; left in ``grad_sample`` too."""
        x = self.encode(lot)
        loss = self.losses(x, lot).sum()
        if self.plan.adversary.weight:
            # Without hooks: a gradient recorded while the perturbation is sought would enter the update.
            self.hooks.disable_hooks()
            shift = worst_case(lambda probe: self.losses(probe, lot).sum(), x, self.plan.adversary.radius)
            self.hooks.enable_hooks()
            loss = loss + self.plan.adversary.weight * self.losses(x + shift, lot).sum()
        loss.backward()
        users = len(lot.items)
        for name, value in self.named.items():
            rows: torch.Tensor = value.grad_sample  # type: ignore[attr-defined]
            if ".lora_" in name:  # the encoder's rows are texts, user by user: fold them
                value.grad_sample = rows.view(users, len(rows) // users, *value.shape).sum(1)  # type: ignore[attr-defined]
            value.grad = None
        return {name: value.grad_sample for name, value in self.named.items()}  # type: ignore[attr-defined]

    def encode(self, lot: Lot) -> torch.Tensor:
        """Whitened text vectors of each user's slots, (users, slots, dim); one row per slot, shared or not."""
        if self.vectors is not None:
            return self.vectors[lot.items]
        hidden, mask = self.space.states.padded(lot.items.flatten().numpy())
        # Each text has a place that holds no token, whether or not another is longer: what becomes of such places,
        # which are all alike, then hangs on that text alone.
        hidden, mask = F.pad(hidden, (0, 0, 0, 1)), F.pad(mask, (0, 1))
        # Half precision where the CPU has it: gradients are clipped and noised after it, so the bound holds.
        with torch.autocast("cpu", torch.bfloat16, enabled=shared.model.BF16):
            raw = self.model.top(hidden if shared.model.BF16 else hidden.float(), mask)
        x = self.space.whitening(raw)
        return x.view(*lot.items.shape, -1)

    def losses(self, x: torch.Tensor, lot: Lot) -> torch.Tensor:
        """Mean loss over each user's own positions, (users,). No term mixes two users."""
        model, events = self.model, lot.events
        known = x[:, :events] * lot.mask[..., None]
        u = model.user(known, lot.behaviours, recency_mean(known, model.plan.recency))[:, :-1]
        base = self.space.base[lot.items]
        z = recency_mean(base[:, :events] * lot.mask[..., None], model.plan.recency)[:, :-1]
        v = prepare(model.item(x), model.plan.similarity) if self.items is None else self.items[lot.items]
        seen = _seen_before(lot)
        parts = torch.stack(
            [
                similar(prepare(u, model.plan.similarity), v, model.plan.similarity),
                similar(z, base, "dot"),
                seen.float(),
            ],
            -1,
        )
        scores = model.mix(parts)  # (users, events - 1, slots)
        target = torch.arange(1, events)
        positive = scores[:, torch.arange(events - 1), target]
        counts = lot.items[:, None, events:] != lot.items[:, 1:events, None]
        loss = LOSSES[self.plan.train.loss](positive, scores[:, :, events:], counts) * lot.mask[:, 1:]
        return loss.sum(1) / lot.mask[:, 1:].sum(1).clamp(min=1)


def _seen_before(lot: Lot) -> torch.Tensor:
    """Whether a slot's item stands in the history at a position, (users, events - 1, slots)."""
    same = (lot.items[:, : lot.events, None] == lot.items[:, None, :]) & lot.mask[..., None]
    return same.cumsum(1)[:, :-1] > 0
