"""Ranking metrics on plain arrays: per case, their means, and what the lists expose.

A case is one history and what its user did next. Ranks are 1-based; case ``i`` owns
``ranks[offsets[i]:offsets[i+1]]``, at least one each.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
CUTOFFS = (5, 10, 20)


def case_metrics(ranks: Ints, offsets: Ints, candidates: Ints, cutoffs: Sequence[int] = CUTOFFS) -> dict[str, Floats]:
    """HR, NDCG, precision, recall, F1 at each cutoff, MRR and AUC of each case: (cases,) each.

    ``candidates`` (cases,) is how many items each ranking held. AUC is the part of (target, other item) pairs in the
    right order; a tie counts as wrong, as it does in the ranks.
    """
    found: dict[str, Floats] = {}
    for k in cutoffs:
        found |= _at(k, ranks, offsets)
    counts = np.diff(offsets)
    # A target at rank r has r - 1 items above it, of which its own place among the targets less one are targets.
    above = _sums(ranks, offsets) - counts * (counts + 1) / 2
    pairs = counts * (candidates - counts)
    first = np.minimum.reduceat(ranks, offsets[:-1]) if len(counts) else counts
    return {**found, "mrr": 1 / first, "auc": 1 - np.minimum(above / np.maximum(pairs, 1), 1)}


def _at(k: int, ranks: Ints, offsets: Ints) -> dict[str, Floats]:
    """NDCG has binary gains and the ideal ordering of min(k, targets) hits."""
    counts, hit = np.diff(offsets), ranks <= k
    hits = _sums(hit, offsets)
    gain = np.where(hit, 1 / np.log2(ranks + 1.0), 0.0)
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(k) + 2.0))])
    precision, recall = hits / k, hits / counts
    return {
        f"hr@{k}": (hits > 0).astype(np.float64),
        f"ndcg@{k}": _sums(gain, offsets) / ideal[np.minimum(counts, k)],
        f"precision@{k}": precision,
        f"recall@{k}": recall,
        f"f1@{k}": 2 * precision * recall / np.maximum(precision + recall, 1e-12),
    }


def _sums(values: npt.NDArray[Any], offsets: Ints) -> Floats:
    """Of each case, (cases,); of no case, none."""
    return np.add.reduceat(values.astype(np.float64), offsets[:-1]) if len(offsets) > 1 else np.zeros(0)


def means(values: dict[str, Floats]) -> dict[str, float]:
    """The mean of each metric; 0 where there is no case."""
    return {name: float(value.mean()) if len(value) else 0.0 for name, value in values.items()}


def ranking_metrics(ranks: Ints, offsets: Ints, candidates: Ints) -> dict[str, float]:
    """Means of ``case_metrics``."""
    return means(case_metrics(ranks, offsets, candidates))


def only(ranks: Ints, offsets: Ints, keep: npt.NDArray[np.bool_]) -> tuple[Ints, Ints, Ints]:
    """Cases reduced to the targets kept: (ranks, offsets, which cases are left).

    What else a user did is no mistake: of the targets left out, those above are taken off a rank.
    """
    counts = np.add.reduceat(keep.astype(np.int64), offsets[:-1]) if len(offsets) > 1 else np.zeros(0, np.int64)
    left = np.flatnonzero(counts)
    case, far = np.repeat(np.arange(len(counts)), np.diff(offsets)), int(ranks.max(initial=0)) + 1
    gone = np.sort(case[~keep] * far + ranks[~keep])
    above = np.searchsorted(gone, case[keep] * far + ranks[keep], "right") - np.searchsorted(gone, case[keep] * far)
    return ranks[keep] - above, np.concatenate([[0], np.cumsum(counts[left])]).astype(np.int64), left


def exposure(top: Ints, popularity: Ints) -> dict[str, float]:
    """What lists (cases, k) show of a catalogue: coverage, Gini of exposure, mean popularity of a shown item.

    ``popularity`` (items,) counts training interactions.
    """
    k = top.shape[1]
    shown = np.bincount(top.ravel(), minlength=len(popularity)).astype(np.float64)
    return {f"{name}@{k}": value for name, value in exposure_of(shown, popularity).items()}


def exposure_of(shown: Floats, popularity: Ints) -> dict[str, float]:
    """The same of how often each item was shown, (items,).

    Gini is 0 when every item is shown equally often, and near 1 when few items take all places.
    """
    items, total = len(shown), shown.sum()
    if total == 0:
        return {"coverage": 0.0, "gini": 0.0, "popularity": 0.0}
    place = np.arange(1, items + 1)
    return {
        "coverage": float((shown > 0).mean()),
        "gini": float(((2 * place - items - 1) * np.sort(shown)).sum() / (items * total)),
        "popularity": float((shown * popularity).sum() / total),
    }
