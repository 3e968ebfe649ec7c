"""Ranking metrics on plain arrays."""

import numpy as np
import numpy.typing as npt

Ranks = npt.NDArray[np.int64]


def ranking_metrics(ranks: Ranks, offsets: npt.NDArray[np.int64], k: int = 10) -> dict[str, float]:
    """HR, NDCG and recall at ``k``, MRR: means over cases.

    ``ranks`` are 1-based ranks of the targets, case ``i`` owning ``ranks[offsets[i]:offsets[i+1]]`` (at least
    one each). NDCG has binary gains and the ideal ordering of min(k, targets) hits.
    """
    counts = np.diff(offsets)
    if len(counts) == 0:
        return {f"hr@{k}": 0.0, f"ndcg@{k}": 0.0, f"recall@{k}": 0.0, "mrr": 0.0}
    hit = ranks <= k
    gain = np.where(hit, 1 / np.log2(ranks + 1.0), 0.0)
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(k) + 2.0))])
    hits = np.add.reduceat(hit.astype(np.float64), offsets[:-1])
    ndcg = np.add.reduceat(gain, offsets[:-1]) / ideal[np.minimum(counts, k)]
    best = np.minimum.reduceat(ranks, offsets[:-1])
    return {
        f"hr@{k}": float((hits > 0).mean()),
        f"ndcg@{k}": float(ndcg.mean()),
        f"recall@{k}": float((hits / counts).mean()),
        "mrr": float((1 / best).mean()),
    }
