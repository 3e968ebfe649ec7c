"""Which of LoRA's directions stay: one budget over all adapted matrices (AdaLoRA, Zhang et al. 2023, section 3.2).

An adapted matrix moves by B A, the sum over its ranks of a column of B times a row of A. Those that move it least give
their place to others, wherever these are. The server knows only what members released, so the choice costs no privacy;
and as all start a round from its answer, B A stays the mean of theirs.
"""

import numpy as np

from shared.payload import Tensors
from shared.plan import FederationPlan

A, B = ".lora_A.", ".lora_B."


def budget(plan: FederationPlan, rank: int, round: int) -> float:
    """The mean rank after this round, from 1: from nearly all of ``rank`` down to ``mean_rank`` in the last.

    Ibid., eq. 12, without its warm-up and its end.
    """
    left = 1 - round / plan.rounds
    return plan.mean_rank + (rank - plan.mean_rank) * max(left, 0.0) ** 3


def allocate(adapter: Tensors, mean_rank: float) -> tuple[Tensors, dict[str, int]]:
    """The adapter with the rest of B's columns at zero, and the ranks that are left of each matrix.

    A direction's size is the Frobenius norm of its part of B A: the product of both vectors' lengths. The largest
    ``mean_rank`` times as many as there are matrices stay, those that have not moved not among them.
    """
    matrices = {name: name.replace(B, A) for name in sorted(adapter) if B in name}
    sizes = {
        name: np.linalg.norm(adapter[name].astype(np.float64), axis=0)
        * np.linalg.norm(adapter[factor].astype(np.float64), axis=1)
        for name, factor in matrices.items()
    }
    together = np.concatenate([np.empty(0), *sizes.values()])
    first = np.argsort(-together, kind="stable")[: round(mean_rank * len(matrices))]
    stays = np.zeros(len(together), bool)
    stays[first[together[first] > 0]] = True
    ends = np.cumsum([len(size) for size in sizes.values()])
    kept = dict(zip(sizes, np.split(stays, ends[:-1]), strict=True)) if sizes else {}
    pruned = {name: adapter[name] * found.astype(np.float32) for name, found in kept.items()}
    return {**adapter, **pruned}, {name.partition(B)[0]: int(found.sum()) for name, found in kept.items()}
