"""What a finished model says of one person's history: a score for each item of the catalogue, in one pass.

The training loop scores many positions of many users at once (``shared.model.positions_logits``, the slow truth that a
test holds this against); here all that does not depend on the history is computed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from shared.model import Recommender
from shared.private import Private
from shared.towers import prepare, recency_weights, weighted_mean

BLOCK = 8192  # items that pass through the tower at a time
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

    @cached_property
    def listed(self) -> torch.Tensor:
        """Rows of the catalogue that stand in it, each once, ascending."""
        found: torch.Tensor = self.rows[self.rows != UNLISTED].unique()
        return found

    def last(self, count: int) -> "Past":
        """A copy where it is shorter: who keeps it does not keep the whole."""
        return self if len(self) <= count else Past(*(part[-count:].clone() for part in self._parts()))

    def without(self, event: int) -> "Past":
        """As if that event had not been."""
        kept = torch.arange(len(self)) != event
        return Past(*(part[kept] for part in self._parts()))

    def _parts(self) -> tuple[torch.Tensor, ...]:
        return self.rows, self.behaviours, self.tuned, self.plain


def _found(ascending: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(where among them each of the rows is, whether it is), both (rows,). What is looked through is not empty."""
    place = torch.searchsorted(ascending, rows).clamp(max=len(ascending) - 1)
    return place, ascending[place] == rows


def _of_new_items(known: torch.Tensor, private: Private) -> float:
    """What an item scores by itself that came after the counts: as those that nobody met with another, on average; the
    least of all where there are none. ``known`` (items,)."""
    if private.neighbours is not None:
        unmet = known[private.neighbours.cosines[: len(known), 0] <= 0]  # the nearest comes first
        if len(unmet):
            return float(unmet.mean())
    return float(known.min())


@dataclass(frozen=True)
class Near:
    """What neighbours of a history add to the scores (``Private.nearness``), both (found,); nothing to other items."""

    rows: torch.Tensor  # ascending
    added: torch.Tensor

    def to(self, rows: torch.Tensor) -> torch.Tensor:
        """(rows,)"""
        place, there = _found(self.rows, rows)
        return torch.where(there, self.added[place], 0.0)

    def best(self, count: int) -> torch.Tensor:
        """Rows of the ``count`` that gain most."""
        return self.rows if count >= len(self.rows) else self.rows[torch.topk(self.added, count, sorted=False).indices]


@dataclass(frozen=True)
class Query:
    """A history as the items are compared with it."""

    past: Past  # as much of it as the model reads
    listed: torch.Tensor  # (items,) rows of the catalogue in all of it, each once, ascending
    user: torch.Tensor  # (dim,) for the item vectors
    prior: torch.Tensor  # (dim,) for the base's own vectors of the texts
    near: Near | None  # None: nothing is near


@dataclass(frozen=True)
class Vectors:
    """A catalogue through one model; a private part of the domain's home where private parameters are in it."""

    base: torch.Tensor  # (items, dim): whitened text vectors of the base itself
    x: torch.Tensor  # (items, dim): of the adapted encoder
    v: torch.Tensor  # (items, dim): item vectors, with the domain's residuals

    def __len__(self) -> int:
        return len(self.base)

    def __add__(self, more: "Vectors") -> "Vectors":
        return Vectors(*(torch.cat(pair) for pair in zip(self.parts(), more.parts(), strict=True)))

    def parts(self) -> tuple[torch.Tensor, ...]:
        return self.base, self.x, self.v


@torch.no_grad()
def item_vectors(model: Recommender, base: torch.Tensor, x: torch.Tensor, private: Private | None) -> Vectors:
    """From whitened text vectors (items, dim) by base and adapted encoder."""
    v = torch.cat([model.items(part) for part in x.split(BLOCK)])  # the tower's inner layer is wider than what it reads
    return Vectors(base, x, v if private is None else private.items(v))


class Scorer:
    """Model, catalogue and private parameters, at rest. Without private parameters: what a federation knows."""

    @torch.no_grad()
    def __init__(self, model: Recommender, vectors: Vectors, private: Private | None = None) -> None:
        """More vectors than ``private`` has items: the others are new, and count as items that nobody met."""
        self.model, self.vectors, self.private = model, vectors, private
        self.weights = model.mix.weights()
        own = torch.zeros(len(vectors))
        if private is not None:
            known = private.strength * private.bias + private.lift
            own = torch.full((len(vectors),), _of_new_items(known, private))
            own[: len(known)] = known
        if model.plan.similarity == "euclidean":  # minus half the squared distance
            own = own - self.weights[0] * (vectors.v**2).sum(1) / 2
        self.own = own  # (items,): what an item scores whoever asks

    def __len__(self) -> int:
        return len(self.vectors)

    def past(self, rows: Sequence[int], behaviours: Sequence[int]) -> Past:
        """A history of items of the catalogue."""
        at = torch.tensor(rows, dtype=torch.int64)
        kinds = torch.tensor(behaviours, dtype=torch.int64)
        x = self.vectors.x[at]
        if self.private is not None and self.private.item is not None:
            known = self.private.item.num_embeddings
            x = torch.where((at < known)[:, None], self.private.read(x, at.clamp(max=known - 1)), x)
        return Past(at, kinds, x.detach(), self.vectors.base[at])

    def unlisted(self, tuned: torch.Tensor, plain: torch.Tensor, behaviour: int) -> Past:
        """Events of which only vectors (events, dim) are known."""
        rows = torch.full((len(tuned),), UNLISTED)
        return Past(rows, torch.full((len(tuned),), behaviour), tuned, plain)

    def query(self, past: Past, user: int | None = None) -> Query:
        """``user`` is the row of somebody whom the domain has a residual of."""
        return self.queries([past], user)[0]

    @torch.no_grad()
    def queries(self, pasts: Sequence[Past], user: int | None = None) -> list[Query]:
        """The same for several histories at once, of one person or of people unknown."""
        plan = self.model.plan
        listed = [past.listed for past in pasts]
        pasts = [past.last(plan.max_history) for past in pasts]
        if len(pasts) == 1 and len(pasts[0]):  # as nearly always: nothing to fill up
            past = pasts[0]
            last = torch.tensor([len(past) - 1])
            u, z = self.towers(past.tuned[None], past.plain[None], past.behaviours[None], last, user)
            return [Query(past, listed[0], u[0], z[0], self.nearness(past))]
        lengths = [max(1, len(past)) for past in pasts]  # of nobody's history: one event that is nothing
        shape = (len(pasts), max(lengths), self.model.dim)
        tuned, plain = torch.zeros(shape), torch.zeros(shape)
        kinds = torch.zeros(shape[:2], dtype=torch.int64)
        for row, past in enumerate(pasts):
            tuned[row, : len(past)], plain[row, : len(past)] = past.tuned, past.plain
            kinds[row, : len(past)] = past.behaviours
        u, z = self.towers(tuned, plain, kinds, torch.tensor(lengths) - 1, user)
        return [Query(*parts, self.nearness(parts[0])) for parts in zip(pasts, listed, u, z, strict=True)]

    def towers(
        self, tuned: torch.Tensor, plain: torch.Tensor, kinds: torch.Tensor, last: torch.Tensor, user: int | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """User vectors and priors after the last event of each history, both (histories, dim), with gradient.

        ``tuned`` and ``plain`` (histories, events, dim), ``kinds`` their behaviours, ``last`` (histories,): the towers
        look back only, padding behind it tells nothing.
        """
        plan = self.model.plan
        age = recency_weights(last, tuned.shape[1], plan.recency)
        u = self.model.user.after(tuned, kinds, weighted_mean(tuned, age), last)
        if user is not None and self.private is not None:
            u = self.private.users(u, torch.full((len(u),), user))
        return prepare(u, plan.similarity), weighted_mean(plain, age)

    @torch.no_grad()
    def scores(self, query: Query, rows: torch.Tensor | None = None) -> torch.Tensor:
        """(items,), or of some rows of the catalogue (rows,)."""
        v, base, own = self.vectors.v, self.vectors.base, self.own
        if rows is not None:
            v, base, own = v[rows], base[rows], own[rows]
        found = self.weights[0] * (v @ query.user) + self.weights[1] * (base @ query.prior) + own
        if self.model.plan.similarity == "euclidean":
            found = found - self.weights[0] * (query.user**2).sum() / 2
        near, listed = query.near, query.listed
        if rows is None:
            found[listed] += self.weights[2]
            if near is not None:
                found[near.rows] += near.added
            return found
        if len(listed):
            found += self.weights[2] * _found(listed, rows)[1]
        return found if near is None else found + near.to(rows)

    def nearness(self, past: Past) -> Near | None:
        """What neighbours of the history add. What the catalogue does not list has none, but ages the others."""
        if self.private is None or self.private.neighbours is None or self.private.near[0] <= 0:
            return None
        kept = (past.rows != UNLISTED) & (past.rows < len(self.private.neighbours))
        if not bool(kept.any()):
            return None
        weight, sharpness, decay = self.private.near
        age = torch.arange(len(past) - 1, -1, -1)
        rows, alike = self.private.neighbours.met_with(past.rows[kept], float(decay) ** age[kept])
        return Near(rows, weight * torch.log1p(sharpness * alike))

    @torch.no_grad()
    def places(self, rows: slice | torch.Tensor = slice(None)) -> torch.Tensor:
        """(items, 2 dim + 1): their products with ``question`` are the scores, less repeats and nearness."""
        v, base = self.vectors.v[rows], self.vectors.base[rows]
        return torch.cat([self.weights[0] * v, self.weights[1] * base, self.own[rows, None]], 1)

    def question(self, query: Query) -> torch.Tensor:
        """(2 dim + 1,)"""
        return torch.cat([query.user, query.prior, torch.ones(1)])


@dataclass(frozen=True)
class Places:
    """A scorer's ``places``, made for the rows that are read: all at once are twice as large as the vectors."""

    scorer: Scorer

    def __len__(self) -> int:
        return len(self.scorer)

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        return self.scorer.places(rows)
