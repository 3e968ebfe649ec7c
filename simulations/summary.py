"""From cases to claims: means over seeds, bootstrap intervals over users, paired differences between methods.

Users are the unit that is drawn again: figures of one user under several seeds are averaged first. Where seeds dealt
the users to other owners, the same people stand in all of them: such intervals are no narrower than one seed's. Domains
are drawn apart, so the interval of a macro mean is that of the mean of independent means. What another training would
come to, no interval tells: ``seed_sd`` does, None under one seed.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from client.evaluate import OF_STRATUM
from client.splits import ORDER
from shared.errors import ConfigError
from shared.seeding import stream

Floats = npt.NDArray[np.float64]
Cell = list[Floats]  # (1, cases) for each seed; where users are the same under all seeds, one of (seeds, cases)
Cells = dict[str, dict[str, dict[str, Cell]]]  # method -> domain -> metric
DRAWS = 1000
BLOCK = 8_000_000  # numbers drawn at a time
COVER = 0.95


def read_cells(runs: Sequence[Path]) -> tuple[Cells, dict[str, list[str]]]:
    """The cases of runs under several seeds; of methods that some run lacks, which do (by name of the run)."""
    domains = sorted({path.parent.parent.name for run in runs for path in run.glob("homes/*/cases/*.npz")})
    same = {name: _same_users(runs, name) for name in domains}
    found: Cells = {}
    lacking: dict[str, list[str]] = {}
    for method in sorted({path.stem for run in runs for path in run.glob("homes/*/cases/*.npz")}):
        paths = {name: [run / "homes" / name / "cases" / f"{method}.npz" for run in runs] for name in domains}
        gaps = {path.parents[3].name for places in paths.values() for path in places if not path.exists()}
        if gaps:
            lacking[method] = sorted(gaps)
        else:
            found[method] = {name: _read(places, same[name]) for name, places in paths.items()}
    return found, lacking


def _read(places: Sequence[Path], same: bool) -> dict[str, Cell]:
    cells: dict[str, Cell] = {}
    for path in places:
        with np.load(path) as kept:
            for metric in kept.files:
                cells.setdefault(metric, []).append(kept[metric].astype(np.float64))
    return {metric: [np.stack(rows)] if same else [row[None] for row in rows] for metric, rows in cells.items()}


def _same_users(runs: Sequence[Path], name: str) -> bool:
    """Whether a domain's users are the same in all runs; where that is not known they are not."""
    told = []
    for run in runs:
        path = run / "fingerprints.json"
        about = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        told.append(about.get("users", {}).get(name, run.name))
    return len(set(told)) == 1


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


def figure(cells: Mapping[str, Cell]) -> dict[str, Any]:
    """Mean, interval and spread over seeds of one metric, per domain and ``macro``."""
    answer: dict[str, Any] = {}
    drawn, by_seed = [], []
    for name, parts in sorted(cells.items()):
        # The same users are drawn for every method: differences are then paired.
        draw = stream(0, "bootstrap", name)
        drawn.append([resampled(part.mean(0), draw) for part in parts])
        by_seed.append(np.concatenate([part.mean(1) for part in parts]))
        answer[name] = _spelt(_of_seeds(drawn[-1]), by_seed[-1])
    deals = [[parts[deal % len(parts)] for parts in drawn] for deal in range(max(map(len, drawn)))]
    answer["macro"] = _spelt(_of_seeds([np.mean(deal, 0) for deal in deals]), np.mean(by_seed, 0))
    answer["worst"] = min((name for name in cells), key=lambda name: answer[name]["mean"])
    return answer


def _of_seeds(drawn: Sequence[Floats]) -> Floats:
    """Resampled means of seeds that dealt the same people anew, as those of their mean, (draws,).

    How much such seeds have in common nobody knows here, so all: the interval is as wide as one seed's.
    """
    return np.asarray(np.mean([np.sort(one) for one in drawn], 0))


def _spelt(drawn: Floats, by_seed: Floats) -> dict[str, float | None]:
    low, high = interval(drawn)
    spread = float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None
    return {"mean": float(by_seed.mean()), "low": low, "high": high, "seed_sd": spread}


def paired(one: Mapping[str, Cell], other: Mapping[str, Cell]) -> dict[str, Any]:
    """``one`` less ``other`` on the same cases: per domain and macro, with the p value of Wilcoxon's signed ranks.

    Of seeds that dealt the same people anew twice the median p, which holds however they hang together (DiCiccio,
    DiCiccio & Romano 2020).
    """
    from scipy.stats import wilcoxon  # slow to import, and only who compares needs it

    less = {name: [mine - its for mine, its in zip(one[name], other[name], strict=True)] for name in one}
    answer = figure(less)
    for name, parts in less.items():
        means = [part.mean(0) for part in parts]
        p = [float(wilcoxon(one).pvalue) if np.any(one) else 1.0 for one in means]
        answer[name]["p"] = p[0] if len(p) == 1 else min(1.0, 2 * float(np.median(p)))
    del answer["worst"]
    return answer


def summarise(out: Path, seeds: Sequence[int] | None = None, reference: str = "local") -> dict[str, Any]:
    """All figures of a folder of seeds, or of those asked for; ``incomplete`` names methods that some seed lacks.

    Raises ConfigError when there is no complete cell, or when seeds ran under different plans or protocols.
    """
    runs = sorted(out.glob("seed-*")) if seeds is None else [out / f"seed-{seed}" for seed in seeds]
    results = [json.loads(path.read_text(encoding="utf-8")) for run in runs if (path := run / "result.json").exists()]
    cells, incomplete = read_cells(runs)
    if not cells or len(results) < len(runs):
        raise ConfigError(f"{out} holds no cell that every seed finished; run evaluate there first")
    first = results[0]
    if len({_plan_of(run) for run in runs}) > 1 or any(one["protocol"] != first["protocol"] for one in results):
        raise ConfigError(f"{out} holds seeds of different plans or protocols; pass another --out for each")
    reference = reference if reference in cells else "zero_shot"
    named = [list(cell) for domains in cells.values() for cell in domains.values()]  # of an older run they are fewer
    everywhere = set.intersection(*map(set, named))
    metrics = [name for name in named[0] if name in everywhere and not name.startswith(OF_STRATUM)]
    by_metric = {
        method: {metric: {name: cell[metric] for name, cell in domains.items()} for metric in metrics}
        for method, domains in cells.items()
    }
    return {
        "protocol": first["protocol"],
        "ranking": first["ranking"],
        "seeds": sorted(one["seed"] for one in results),
        "rounds": first["rounds"],
        "commits": sorted({name for one in results for name in one.get("commits", {})}),
        "incomplete": incomplete,
        "notes": {name: _of_order(domain) for name, domain in first["domains"].items()},
        "figures": {
            method: {metric: figure(values) for metric, values in found.items()} for method, found in by_metric.items()
        },
        "strata": _strata(results, cells, reference),
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


def _of_order(domain: Mapping[str, Any]) -> list[str]:
    """What a domain's split says of its order: what else it says holds of the protocol."""
    return [note for note in domain.get("notes", []) if note.startswith(ORDER)]


def _plan_of(run: Path) -> str:
    """A run's plan but for its seed."""
    plan = json.loads((run / "plan.json").read_text(encoding="utf-8"))
    plan["federation"].pop("seed", None)
    return json.dumps(plan, sort_keys=True)


def _strata(runs: Sequence[dict[str, Any]], found: Cells, reference: str) -> dict[str, Any]:
    """Each stratum's cases (mean over seeds) and their mean NDCG@10, per method and domain; under ``all`` those of all
    domains as one, with intervals and, under ``less``, the difference from the reference on the same cases."""
    answer: dict[str, Any] = {}
    cells = [run["domains"][name][method]["strata"] for run in runs for name in run["domains"] for method in found]
    names = [name for name in cells[0] if all(name in cell for cell in cells)]  # an older run told of fewer
    for method, domains in found.items():
        parts = {name: [run["domains"][name][method]["strata"] for run in runs] for name in runs[0]["domains"]}
        told = {
            name: {stratum: _together([cell[stratum] for cell in seeds], len(seeds)) for stratum in names}
            for name, seeds in parts.items()
        }
        answer[method] = {**told, "all": {}}
        for stratum in names:
            together = _together([cell[stratum] for seeds in parts.values() for cell in seeds], len(runs))
            values, others = _cases(domains, stratum), _cases(found.get(reference, {}), stratum)
            if values:
                together |= _around(values, stratum)
            if method != reference and values and [*map(len, values)] == [*map(len, others)]:
                less = [mine - its for mine, its in zip(values, others, strict=True)]
                together["less"] = {"mean": float(np.nanmean(np.concatenate(less))), **_around(less, stratum)}
            answer[method]["all"][stratum] = together
    return answer


def _cases(domains: Mapping[str, dict[str, Cell]], stratum: str) -> list[Floats]:
    """NDCG@10 of the cases of all domains, nan for those of other strata; one array, or one for each seed that dealt
    the users anew. None where a run kept no such thing."""
    cells = [found for _, cell in sorted(domains.items()) if (found := cell.get(OF_STRATUM + stratum))]
    if not cells:
        return []
    deals = [[parts[deal % len(parts)].mean(0) for parts in cells] for deal in range(max(map(len, cells)))]
    found = [np.concatenate(deal) for deal in deals]
    return [one for one in found if np.isfinite(one).any()]


def _around(values: Sequence[Floats], stratum: str) -> dict[str, float]:
    draw = stream(0, "bootstrap", stratum)
    low, high = interval(_of_seeds([resampled(one[np.isfinite(one)], draw) for one in values]))
    return {"low": low, "high": high}


def _together(cells: Sequence[dict[str, Any]], seeds: int) -> dict[str, Any]:
    """A stratum of several domains or seeds as one: its cases, of so many seeds the mean, and the mean over them."""
    cases = sum(one["cases"] for one in cells)
    mean = {m: sum(one["cases"] * one[m] for one in cells) / max(cases, 1) for m in ("hr@10", "ndcg@10")}
    return {"cases": math.ceil(cases / seeds), **mean}
