"""How far what a domain shows has moved since the audit before: distributions that audits keep, and their stability."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from client.recommend import Serving
from shared.attributes import values_of

BINS = 10
NONE = "(none)"  # of items without a value


def distributions(
    serving: Serving,
    lists: Sequence[Sequence[tuple[int, float]]],
    popularity: npt.NDArray[np.int64],
    category: str | None,
    before: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What a later audit compares with: shares of the lists over popularity, scores and categories."""
    rows = np.array([row for one in lists for row, _ in one], np.int64)
    scores = np.array([score for one in lists for _, score in one])
    met = np.log1p(popularity[rows]) if len(rows) else np.zeros(0)
    earlier = (before or {}).get("distributions", {})
    found = {"popularity": _binned(met, earlier.get("popularity")), "scores": _binned(scores, earlier.get("scores"))}
    if category is not None:
        values = values_of(serving.engine.catalog.columns[category])
        mix = Counter(value for row in rows.tolist() for value in values[row] or [NONE])
        total = max(sum(mix.values()), 1)
        found["categories"] = {"column": category, "shares": {v: n / total for v, n in mix.most_common(200)}}
    return found


def _binned(values: npt.NDArray[np.float64], earlier: Mapping[str, Any] | None) -> dict[str, Any]:
    """Shares between the edges of the audit before, else between deciles."""
    if earlier:
        edges = np.array(earlier["edges"])
    else:
        edges = np.unique(np.quantile(values, np.arange(1, BINS) / BINS)) if len(values) else np.zeros(0)
    shares = np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1) / max(len(values), 1)
    return {"edges": edges.tolist(), "shares": shares.tolist()}


def drift(now: Mapping[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Population stability index of each distribution against the audit before; None where there is none."""
    if before is None:
        return None
    found: dict[str, Any] = {"since": before["made"], "model": before["model"], "psi": {}}
    old, new = before["distributions"], now["distributions"]
    for name in ("popularity", "scores"):
        found["psi"][name] = stability(old[name]["shares"], new[name]["shares"])
    mixes = [one.get("categories", {}) for one in (old, new)]
    if mixes[0] and mixes[1] and mixes[0]["column"] == mixes[1]["column"]:
        values = sorted(mixes[0]["shares"].keys() | mixes[1]["shares"].keys())
        old_mix, new_mix = ([mix["shares"].get(value, 0.0) for value in values] for mix in mixes)
        found["psi"]["categories"] = stability(old_mix, new_mix)
    return found


def stability(old: Sequence[float], new: Sequence[float], least: float = 1e-4) -> float:
    """sum (new - old) log(new / old): below .1 steady, above .25 another population, as the rule of thumb goes."""
    pairs = [(max(a, least), max(b, least)) for a, b in zip(old, new, strict=True)]
    return math.fsum((b - a) * math.log(b / a) for a, b in pairs)
