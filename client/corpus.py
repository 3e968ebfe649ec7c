"""A domain ready to train on: its catalogue seen through the base, its split, its private counts."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from client.dataset import Domain
from client.splits import Split
from client.telltale import split_of
from shared.model import Recommender, Space
from shared.neighbours import Neighbours, met_together, sketch_pairs
from shared.plan import Plan
from shared.private import Private


@dataclass(frozen=True)
class Corpus:
    """Stays in the domain's own process; nothing of it is ever sent."""

    domain: Domain
    split: Split
    space: Space
    near: int = 0  # neighbours of an item; 0 = none

    @property
    def name(self) -> str:
        return self.domain.name

    @property
    def popularity(self) -> NDArray[np.int64]:
        """Training interactions of each item, (items,)."""
        return np.bincount(self.split.train.items, minlength=len(self.domain.catalog)).astype(np.int64)

    @cached_property
    def neighbours(self) -> Neighbours:
        """Which items the domain's users met together in training."""
        return met_together(*self._events, len(self.domain.catalog), self.near)

    def pairs(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The counts behind it as a sketch that adds up with other owners' (``shared.neighbours.sketch_pairs``)."""
        return sketch_pairs(*self._events, len(self.domain.catalog))

    @property
    def _events(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        train = self.split.train
        return np.repeat(np.arange(len(train)), train.lengths), train.items

    def private(self, model: Recommender) -> Private:
        """Fresh private parameters."""
        users = len(self.domain.interactions.user_ids)
        return Private(self.popularity, users, model.dim, model.plan, self.neighbours if self.near else None)


def build_corpus(domain: Domain, protocol: str, space: Space, plan: Plan) -> Corpus:
    """Split the interactions of a domain whose catalogue has been read. Raises DataError."""
    parts = split_of(domain, protocol, plan)
    return Corpus(domain, parts, space, plan.model.neighbours)
