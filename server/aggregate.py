"""Linear rules, and the table of all of them."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from server.affinity import by_affinity
from server.likeness import NOISED
from server.rule import Aggregator
from shared.errors import FederationError
from shared.payload import AdapterUpdate, Tensors
from shared.plan import Plan


def weighted_mean(cap: float, note: str = "exact: A is common and frozen, mean(B) A = mean(B A)") -> Aggregator:
    """Mean of domain deltas; no domain weighs more than ``cap``.

    Holds one running sum, so memory is one adapter whatever the number of clients. Exact for LoRA only
    while A is common to all clients: mean(B) A = mean(B A) (FFA-LoRA, arXiv 2403.12313).
    Raises FederationError when no update came.
    """

    def apply(memory: None, updates: Iterable[AdapterUpdate]) -> tuple[Tensors, None, dict[str, Any]]:
        total = 0.0
        sums: dict[str, np.ndarray[Any, np.dtype[np.float64]]] = {}
        for update in updates:
            weight = min(update.weight, cap)
            total += weight
            for key, value in update.delta.items():
                part = weight * value.astype(np.float64)
                sums[key] = sums[key] + part if key in sums else part
        if total == 0:
            raise FederationError("no usable update this round; keep the last adapter and retry")
        return {key: (value / total).astype(np.float32) for key, value in sums.items()}, None, {}

    return Aggregator(init=lambda: None, apply=apply, note=note)


def fedavg(cap: float) -> Aggregator:
    """The named baseline: A and B averaged apart. Inexact: mean(B) mean(A) != mean(B A)."""
    return weighted_mean(cap, note="inexact: A and B are averaged apart, mean(B) mean(A) != mean(B A)")


AGGREGATORS: dict[str, Callable[[float], Aggregator]] = {
    "ffa": weighted_mean,
    "fedavg": fedavg,
    "affinity": by_affinity,
}


def aggregator_for(plan: Plan) -> Aggregator:
    """The rule that a plan names; under a promise of privacy affinity reckons with the noise."""
    cap = plan.federation.weight_cap
    if plan.federation.family == "affinity" and plan.private:
        return by_affinity(cap, NOISED)
    return AGGREGATORS[plan.federation.family](cap)
