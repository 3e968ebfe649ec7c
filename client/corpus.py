"""A domain ready to train on: its catalogue seen through the base, its split, its private counts."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from client.dataset import Domain
from client.splits import Split, split
from shared.model import Private, Recommender, Space
from shared.plan import Plan


@dataclass(frozen=True)
class Corpus:
    """Stays in the domain's own process; nothing of it is ever sent."""

    domain: Domain
    split: Split
    space: Space

    @property
    def name(self) -> str:
        return self.domain.name

    @property
    def popularity(self) -> npt.NDArray[np.int64]:
        """Training interactions of each item, (items,)."""
        return np.bincount(self.split.train.items, minlength=len(self.domain.catalog)).astype(np.int64)

    def private(self, model: Recommender) -> Private:
        """Fresh private parameters."""
        return Private(self.popularity, len(self.domain.interactions.user_ids), model.dim, model.plan)


def build_corpus(domain: Domain, protocol: str, space: Space, plan: Plan) -> Corpus:
    """Split the interactions of a domain whose catalogue has been read. Raises DataError."""
    return Corpus(domain, split(domain.interactions, protocol, plan.model.max_history, plan.train.user_events), space)
