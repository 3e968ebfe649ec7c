"""What a finished model says of one person's history: a score for each item of the catalogue, in one pass.

The training loop scores many positions of many users at once (``shared.model.positions_logits``, the slow truth that a
test holds this against); here all that does not depend on the history is computed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from shared.model import Private, Recommender, Space
from shared.towers import prepare, recency_mean, similar

UNLISTED = -1  # an event that is no item of the catalogue


@dataclass(frozen=True)
class Past:
    """A history as the towers read it, oldest first."""

    rows: torch.Tensor  # (events,) of the catalogue, or UNLISTED
    behaviours: torch.Tensor  # (events,)
    tuned: torch.Tensor  # (events, dim): vectors by the adapted encoder, with what the domain knows beyond the text
    plain: torch.Tensor  # (events, dim): by the base alone

    def __len__(self) -> int:
        return len(self.rows)

    def __add__(self, later: "Past") -> "Past":
        pairs = zip(self._parts(), later._parts(), strict=True)
        return Past(*(torch.cat(pair) for pair in pairs))

    def last(self, count: int) -> "Past":
        return Past(*(part[-count:] for part in self._parts()))

    def without(self, event: int) -> "Past":
        """As if that event had not been."""
        kept = torch.arange(len(self)) != event
        return Past(*(part[kept] for part in self._parts()))

    def _parts(self) -> tuple[torch.Tensor, ...]:
        return self.rows, self.behaviours, self.tuned, self.plain


class Scorer:
    """Model, catalogue and private parameters, at rest."""

    @torch.no_grad()
    def __init__(self, model: Recommender, space: Space, private: Private) -> None:
        self.model, self.space, self.private = model, space, private
        self.x = model.encode(space)
        self.v = private.items(model.items(self.x))
        self.own = private.strength * private.bias + private.lift
        self.weights = model.mix.weights()

    def past(self, rows: Sequence[int], behaviours: Sequence[int]) -> Past:
        """A history of items of the catalogue."""
        at = torch.tensor(rows, dtype=torch.int64)
        kinds = torch.tensor(behaviours, dtype=torch.int64)
        return Past(at, kinds, self.private.read(self.x[at], at), self.space.base[at])

    def unlisted(self, tuned: torch.Tensor, plain: torch.Tensor, behaviour: int) -> Past:
        """Events of which only vectors (events, dim) are known."""
        rows = torch.full((len(tuned),), UNLISTED)
        return Past(rows, torch.full((len(tuned),), behaviour), tuned, plain)

    @torch.no_grad()
    def scores(self, past: Past, user: int | None = None) -> torch.Tensor:
        """(items,) after this history; ``user`` is the row of somebody whom the domain has a residual of."""
        past = past.last(self.model.plan.max_history)
        similarity, recency = self.model.plan.similarity, self.model.plan.recency
        tuned, plain, kinds = past.tuned, past.plain, past.behaviours
        if not len(past):  # nobody's history: one event that is nothing
            tuned = plain = torch.zeros(1, self.model.dim)
            kinds = torch.zeros(1, dtype=torch.int64)
        u = self.model.user(tuned[None], kinds[None], recency_mean(tuned[None], recency))[0, -1:]
        if user is not None:
            u = self.private.users(u, torch.tensor([user]))
        z = recency_mean(plain[None], recency)[0, -1:]
        found = self.weights[0] * similar(prepare(u, similarity), self.v, similarity)[0]
        found = found + self.weights[1] * similar(z, self.space.base, "dot")[0] + self.own
        listed = past.rows[past.rows != UNLISTED]
        if self.private.near[0] > 0 and len(listed):
            found = found + self._nearness(past)
        found[listed.unique()] += self.weights[2]
        return found

    def _nearness(self, past: Past) -> torch.Tensor:
        """(items,): ``Private.nearness``; what the catalogue does not list has no neighbours, but ages the others."""
        weight, sharpness, decay = self.private.near
        assert self.private.neighbours is not None
        age = torch.arange(len(past) - 1, -1, -1)
        listed = past.rows != UNLISTED
        weights = (float(decay) ** age[listed])[None]
        alike = self.private.neighbours.likeness(past.rows[listed][None], weights)[0]
        added: torch.Tensor = weight * torch.log1p(sharpness * alike)
        return added
