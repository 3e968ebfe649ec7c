"""From cases to claims: means over seeds, bootstrap intervals over users, paired differences between methods.

Users are the unit that is drawn again: figures of one user under several seeds are averaged first. Domains are
drawn apart, so the interval of a macro mean is that of the mean of independent means.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import wilcoxon

from shared.errors import ConfigError
from shared.seeding import stream

Floats = npt.NDArray[np.float64]
Cells = dict[str, dict[str, dict[str, Floats]]]  # method -> domain -> metric -> (seeds, cases)
DRAWS = 1000
BLOCK = 8_000_000  # numbers drawn at a time
COVER = 0.95


def read_cells(out: Path) -> Cells:
    """The cases of every seed under ``out``; a method counts where all seeds have it in all domains."""
    runs = sorted(out.glob("seed-*"))
    found: dict[str, dict[str, dict[str, list[Floats]]]] = {}
    domains = {path.parent.parent.name for run in runs for path in run.glob("homes/*/cases/*.npz")}
    for run in runs:
        for path in sorted(run.glob("homes/*/cases/*.npz")):
            with np.load(path) as kept:
                for metric in kept.files:
                    place = found.setdefault(path.stem, {}).setdefault(path.parent.parent.name, {})
                    place.setdefault(metric, []).append(kept[metric].astype(np.float64))
    return {
        method: {name: {metric: np.stack(rows) for metric, rows in cell.items()} for name, cell in cells.items()}
        for method, cells in found.items()
        if cells.keys() == domains and all(len(r) == len(runs) for cell in cells.values() for r in cell.values())
    }


def resampled(values: Floats, draw: np.random.Generator, draws: int = DRAWS) -> Floats:
    """Means of ``draws`` samples with replacement of the cases, (draws,)."""
    size = len(values)
    step = max(1, BLOCK // size)
    parts = [values[draw.integers(size, size=(min(step, draws - at), size))].mean(1) for at in range(0, draws, step)]
    return np.concatenate(parts)


def interval(means: Floats) -> tuple[float, float]:
    """The middle 95 % of resampled means."""
    low, high = np.quantile(means, [(1 - COVER) / 2, (1 + COVER) / 2])
    return float(low), float(high)


def figure(cells: Mapping[str, Floats]) -> dict[str, Any]:
    """Mean, interval and spread over seeds of one metric, per domain and ``macro``; cells are (seeds, cases)."""
    answer: dict[str, Any] = {}
    drawn, by_seed = [], []
    for name, values in sorted(cells.items()):
        # The same users are drawn for every method: differences are then paired.
        drawn.append(resampled(values.mean(0), stream(0, "bootstrap", name)))
        by_seed.append(values.mean(1))
        answer[name] = _spelt(drawn[-1], by_seed[-1])
    answer["macro"] = _spelt(np.mean(drawn, 0), np.mean(by_seed, 0))
    answer["worst"] = min((name for name in cells), key=lambda name: answer[name]["mean"])
    return answer


def _spelt(drawn: Floats, by_seed: Floats) -> dict[str, float]:
    low, high = interval(drawn)
    spread = float(by_seed.std(ddof=1)) if len(by_seed) > 1 else 0.0
    return {"mean": float(by_seed.mean()), "low": low, "high": high, "seed_sd": spread}


def paired(one: Mapping[str, Floats], other: Mapping[str, Floats]) -> dict[str, Any]:
    """``one`` less ``other`` on the same cases: per domain and macro, with the p value of Wilcoxon's signed ranks."""
    answer = figure({name: one[name] - other[name] for name in one})
    for name in one:
        difference = (one[name] - other[name]).mean(0)
        answer[name]["p"] = float(wilcoxon(difference).pvalue) if np.any(difference) else 1.0
    del answer["worst"]
    return answer


def summarise(out: Path, reference: str = "local") -> dict[str, Any]:
    """All figures of a folder of seeds. Raises ConfigError when there is no complete cell."""
    cells = read_cells(out)
    if not cells:
        raise ConfigError(f"{out} holds no cell that every seed finished; run evaluate there first")
    first = json.loads(next(iter(sorted(out.glob("seed-*/result.json")))).read_text(encoding="utf-8"))
    seeds = [json.loads(path.read_text(encoding="utf-8"))["seed"] for path in sorted(out.glob("seed-*/result.json"))]
    reference = reference if reference in cells else "zero_shot"
    metrics = list(next(iter(next(iter(cells.values())).values())))
    by_metric = {
        method: {metric: {name: cell[metric] for name, cell in domains.items()} for metric in metrics}
        for method, domains in cells.items()
    }
    return {
        "protocol": first["protocol"],
        "ranking": first["ranking"],
        "seeds": sorted(seeds),
        "rounds": first["rounds"],
        "figures": {
            method: {metric: figure(values) for metric, values in found.items()} for method, found in by_metric.items()
        },
        "strata": _strata(out, list(cells)),
        "paired": {
            "reference": reference,
            "metric": "ndcg@10",
            "differences": {
                method: paired(found["ndcg@10"], by_metric[reference]["ndcg@10"])
                for method, found in by_metric.items()
                if reference in by_metric and method != reference
            },
        },
    }


def _strata(out: Path, methods: list[str]) -> dict[str, Any]:
    """Mean over seeds of each stratum's NDCG@10, per method and domain."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("seed-*/result.json"))]
    answer: dict[str, Any] = {}
    for method in methods:
        for name in runs[0]["domains"]:
            cells = [run["domains"][name][method]["strata"] for run in runs]
            answer.setdefault(method, {})[name] = {
                stratum: {
                    "cases": first["cases"],
                    **{m: float(np.mean([cell[stratum][m] for cell in cells])) for m in ("hr@10", "ndcg@10")},
                }
                for stratum, first in cells[0].items()
            }
    return answer
