"""What this server has shown since it started, as counts of items: nothing of who asked, or what for."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.published import GROUPS

Counts = npt.NDArray[np.int64]


class Exposure:
    """Counted from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shown: dict[str, Counts] = {}
        self.answers = 0

    def count(self, shown: Mapping[str, Sequence[int]]) -> None:
        """One answer's items (rows) by domain."""
        with self._lock:
            self.answers += 1
            for domain, rows in shown.items():
                counts = self._shown.get(domain, np.zeros(0, np.int64))
                longer = max(rows, default=-1) + 1 - len(counts)
                counts = np.pad(counts, (0, max(longer, 0)))
                np.add.at(counts, np.asarray(rows, np.int64), 1)
                self._shown[domain] = counts

    def report(self, items: Mapping[str, int], groups: Mapping[str, Sequence[int] | None]) -> dict[str, Any]:
        """Of each domain, whose catalogue has so many items: how evenly its items are shown."""
        with self._lock:
            shown = {name: self._shown.get(name, np.zeros(0, np.int64)).copy() for name in items}
            answers = self.answers
        padded = {name: np.pad(counts, (0, max(0, items[name] - len(counts)))) for name, counts in shown.items()}
        domains = [{"domain": name, **spread(counts, groups.get(name))} for name, counts in padded.items()]
        return {"answers": answers, "domains": domains}


def spread(counts: Counts, groups: Sequence[int] | None) -> dict[str, Any]:
    """How often items (items,) were shown, in figures: part of the catalogue that was shown at all, Gini (0 all equally
    often, near 1 a few alone), the part that the hundredth shown most takes, and the part of each group where known."""
    total = int(counts.sum())
    found: dict[str, Any] = {"items": len(counts), "shown": total, "coverage": 0.0, "gini": 0.0, "top_share": 0.0}
    if total:
        ordered = np.sort(counts).astype(np.float64)
        place = np.arange(1, len(ordered) + 1)
        found["coverage"] = round(float((counts > 0).mean()), 4)
        found["gini"] = round(float(((2 * place - len(ordered) - 1) * ordered).sum() / (len(ordered) * total)), 4)
        found["top_share"] = round(float(ordered[-max(1, len(ordered) // 100) :].sum() / total), 4)
    found["groups"] = None
    if groups is not None:
        of = np.pad(np.asarray(groups, np.int64), (0, max(0, len(counts) - len(groups))))
        parts = np.bincount(of, weights=counts, minlength=len(GROUPS)) / max(total, 1)
        found["groups"] = {name: round(float(part), 4) for name, part in zip(GROUPS, parts, strict=True)}
    return found
