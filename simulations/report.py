"""A run as one page: tables, courses, who is alike, a map."""

import json
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from server.registry import read_rounds
from shared.accounting import spell
from shared.errors import ConfigError, IsthmusError
from simulations.page import drawing, paragraph, section, table, write_page
from simulations.tables import BASELINES, METRICS, NAMES

COLUMNS = {**NAMES, **BASELINES}


def write_report(run: Path, cache: Path) -> Path:
    """``report.html`` of a run directory, from what lies in it. Raises ConfigError where there is no result."""
    try:
        result = json.loads((run / "result.json").read_text(encoding="utf-8"))
        plan = json.loads((run / "plan.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ConfigError(f"{run} holds no readable result.json and plan.json; give a run directory") from None
    title = f"Federation of {', '.join(result['domains'])}"
    return write_page(run / "report.html", title, _parts(run, cache, result, plan))


def _parts(run: Path, cache: Path, result: dict[str, Any], plan: dict[str, Any]) -> Iterator[str]:
    reports = read_rounds(run)
    yield paragraph(
        f"Protocol {result['protocol']}, {result['ranking']} ranking, seed {result['seed']}, "
        f"{result['rounds']} rounds, family {result['family']}, carrier {result['carrier']}; "
        f"{result['seconds']:,.0f} s, {result['peak_resident_mb']:,} MB at most."
    )
    yield section("What each domain gets", _quality(result))
    yield from drawing("svg_quality", result, COLUMNS)
    yield section("By kind of case, NDCG@10", _strata(result))
    if privacy := {name: cell["privacy"] for name, cell in result["domains"].items() if "privacy" in cell}:
        rows = [[name, spell(one["epsilon"]), f"{one['delta']:g}"] for name, one in privacy.items()]
        yield section("Privacy spent", table(["domain", "epsilon", "delta"], rows))
    if courses := _courses(run, reports):
        yield section("Courses", "")
        yield from drawing("svg_courses", courses)
    if affinities := [report for report in reports if report.get("affinity")]:
        for report in dict.fromkeys([0, len(affinities) - 1]):
            yield section(f"Who is alike, round {affinities[report]['round']}", _heat(affinities[report]["affinity"]))
    yield from _map(run, cache)
    settings = f"<details><summary>plan.json</summary><pre>{escape(json.dumps(plan, indent=1))}</pre></details>"
    yield section("Settings", settings)


def _map(run: Path, cache: Path) -> Iterator[str]:
    """Nothing where no domain can serve from this run yet."""
    if not any(run.glob("homes/*/home.json")):
        return
    yield section("Map of items and users", "")
    yield paragraph(
        "The two directions in which item vectors differ most, and what part of the differences they hold: "
        "what lies side by side here may be far apart."
    )
    try:
        from simulations.views import views_of

        yield from drawing("svg_map", views_of(run, cache))
    except IsthmusError as error:
        yield paragraph(f"No map: {error}")


def _quality(result: dict[str, Any]) -> str:
    methods = [method for method in COLUMNS if any(method in cells for cells in result["domains"].values())]
    head = ["domain", "users x items", "", *(COLUMNS[method].replace("\n", " ") for method in methods)]
    rows = []
    for name, cells in [*result["domains"].items(), ("mean of domains", result["macro"])]:
        size = f"{cells['users']:,} x {cells['items']:,}" if "users" in cells else ""
        for metric, spelt in METRICS.items():
            values = [cells[method][metric] if method in cells else None for method in methods]
            best = max((value for value in values if value is not None), default=None)
            shown = ["" if value is None else f"{'*' if value == best else ''}{value:.4f}" for value in values]
            rows.append([name, size, spelt, *shown])
    return table(head, rows)


def _strata(result: dict[str, Any]) -> str:
    cells = [
        (name, method, domain[method]["strata"])
        for name, domain in result["domains"].items()
        for method in COLUMNS
        if "strata" in domain.get(method, {})
    ]
    names = list(dict.fromkeys(name for _, _, strata in cells for name in strata))
    rows = [[name, COLUMNS[method].replace("\n", " "), *_shown(strata, names)] for name, method, strata in cells]
    return table(["domain", "method", *(f"{name} (cases)" for name in names)], rows)


def _shown(strata: dict[str, Any], names: Sequence[str]) -> Iterator[str]:
    for name in names:
        one = strata.get(name, {"cases": 0})
        yield f"{one['ndcg@10']:.4f} ({one['cases']:,})" if one["cases"] else ""


def _courses(run: Path, reports: Sequence[dict[str, Any]]) -> dict[str, dict[str, Sequence[float]]]:
    """Validation by epoch, alone and after the rounds; the size of each domain's update by round."""
    alone = {
        path.parent.parent.name: json.loads(path.read_text(encoding="utf-8"))["curve"]
        for path in sorted(run.glob("homes/*/alone/alone.json"))
    }
    personal = {
        path.parent.name: found["curve"]
        for path in sorted(run.glob("homes/*/result.json"))
        if (found := json.loads(path.read_text(encoding="utf-8"))).get("curve")
    }
    norms = {
        name: [report["update_norms"][name] for report in reports if name in report.get("update_norms", {})]
        for name in sorted({name for report in reports for name in report.get("update_norms", {})})
    }
    found = {
        "validation NDCG@10 alone by epoch": alone,
        "validation NDCG@10 after the rounds by epoch": personal,
        "norm of updates by round": norms,
    }
    return {title: lines for title, lines in found.items() if lines}


def _heat(affinity: dict[str, dict[str, float]]) -> str:
    names = sorted(affinity)
    rows = [[one, *(_cell(affinity[one].get(two)) for two in names)] for one in names]
    return table(["", *names], rows)


def _cell(value: float | None) -> str:
    return "" if value is None else f"={value:.2f}"
