"""The model and the cache on one machine: what is slow to make is made once."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client.dataset import Domain
from client.train import Tick
from shared.model import Recommender, Space
from shared.plan import ModelPlan, Plan
from shared.prefix import find_base


@dataclass
class Workshop:
    """The model and the cache on one machine; a simulation's domains share it, one at a time."""

    cache: Path
    tick: Tick | None = None
    _spaces: dict[str, Space] = field(default_factory=dict, repr=False)  # of the model below, by catalogue
    _made: tuple[ModelPlan, int, Recommender] | None = field(default=None, repr=False)

    def model(self, plan: Plan) -> Recommender:
        """A recommender for this plan: the resident one where the plan's model is the same."""
        key = (plan.model, plan.federation.seed)
        if self._made is None or self._made[:2] != key:
            base = find_base(plan.model.base)
            self._made = (*key, Recommender(plan.model, base, plan.federation.seed))
            self._spaces.clear()
        return self._made[2]

    def space(self, plan: Plan, domain: Domain) -> Space:
        """The domain's catalogue as this plan's base sees it; owners of the same catalogue share it."""
        model, key = self.model(plan), domain.catalog.fingerprint
        if key not in self._spaces:
            self._spaces[key] = model.space(
                domain.catalog.texts, self.cache, self.progress(f"{domain.name}: reading texts")
            )
        return self._spaces[key]

    def progress(self, what: str) -> Any:
        """A prefix-cache progress callback that reports under ``what``."""
        tick = self.tick
        return None if tick is None else lambda done, total: tick(what, done, total)
