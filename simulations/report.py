"""A run as one page: tables, courses, who is alike, a map. Opens without a network, by light and in the dark."""

import json
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from shared.errors import ConfigError, IsthmusError
from shared.whole import PUBLIC, write_whole
from simulations.tables import BASELINES, METRICS, NAMES

COLUMNS = {**NAMES, **BASELINES}
NO_PLOTS = "Drawings need matplotlib: pip install 'isthmus[plots]', then python -m simulations map RUN."


def write_report(run: Path, cache: Path) -> Path:
    """``report.html`` of a run directory, from what lies in it. Raises ConfigError where there is no result."""
    try:
        result = json.loads((run / "result.json").read_text(encoding="utf-8"))
        plan = json.loads((run / "plan.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ConfigError(f"{run} holds no readable result.json and plan.json; give a run directory") from None
    page = Template(files("simulations").joinpath("report.html").read_text(encoding="utf-8"))
    title = f"Federation of {', '.join(result['domains'])}"
    text = page.substitute(title=escape(title), body="\n".join(_parts(run, cache, result, plan)))
    to = run / "report.html"
    write_whole(to, text.encode(), PUBLIC)
    return to


def _parts(run: Path, cache: Path, result: dict[str, Any], plan: dict[str, Any]) -> Iterator[str]:
    reports = _lines(run / "rounds.jsonl")
    yield _paragraph(
        f"Protocol {result['protocol']}, {result['ranking']} ranking, seed {result['seed']}, "
        f"{result['rounds']} rounds, family {result['family']}, carrier {result['carrier']}; "
        f"{result['seconds']:,.0f} s, {result['peak_resident_mb']:,} MB at most."
    )
    yield _section("What each domain gets", _quality(result))
    yield from _drawing("svg_quality", result, COLUMNS)
    yield _section("By kind of case, NDCG@10", _strata(result))
    if privacy := {name: cell["privacy"] for name, cell in result["domains"].items() if "privacy" in cell}:
        rows = [[name, f"{one['epsilon']:.2f}", f"{one['delta']:g}"] for name, one in privacy.items()]
        yield _section("Privacy spent", _table(["domain", "epsilon", "delta"], rows))
    if courses := _courses(run, reports):
        yield _section("Courses", "")
        yield from _drawing("svg_courses", courses)
    if affinities := [report for report in reports if report.get("affinity")]:
        for report in dict.fromkeys([0, len(affinities) - 1]):
            yield _section(f"Who is alike, round {affinities[report]['round']}", _heat(affinities[report]["affinity"]))
    yield from _map(run, cache)
    settings = f"<details><summary>plan.json</summary><pre>{escape(json.dumps(plan, indent=1))}</pre></details>"
    yield _section("Settings", settings)


def _drawing(name: str, *what: Any) -> Iterator[str]:
    """One of the drawings of ``simulations.plots``, or how to get them."""
    try:
        from simulations import plots

        yield f'<div class="wide">{getattr(plots, name)(*what)}</div>'
    except ImportError:  # an extra
        yield _paragraph(NO_PLOTS)


def _map(run: Path, cache: Path) -> Iterator[str]:
    """Nothing where no domain can serve from this run yet."""
    if not any(run.glob("homes/*/home.json")):
        return
    yield _section("Map of items and users", "")
    yield _paragraph(
        "The two directions in which item vectors differ most, and what part of the differences they hold: "
        "what lies side by side here may be far apart."
    )
    try:
        from simulations.views import views_of

        yield from _drawing("svg_map", views_of(run, cache))
    except IsthmusError as error:
        yield _paragraph(f"No map: {error}")


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
    return _table(head, rows)


def _strata(result: dict[str, Any]) -> str:
    rows, names = [], []
    for name, cells in result["domains"].items():
        for method in (method for method in COLUMNS if method in cells and "strata" in cells[method]):
            strata = cells[method]["strata"]
            names = list(strata)
            shown = [f"{one['ndcg@10']:.4f} ({one['cases']:,})" if one["cases"] else "" for one in strata.values()]
            rows.append([name, COLUMNS[method].replace("\n", " "), *shown])
    return _table(["domain", "method", *(f"{name} (cases)" for name in names)], rows)


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
    return _table(["", *names], rows)


def _cell(value: float | None) -> str:
    return "" if value is None else f"={value:.2f}"


def _section(title: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{content}"


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A cell that begins with * is the best of its row; one with = is a share from 0 to 1, and shaded by it."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = [f'<tr><th scope="row">{escape(first)}</th>{"".join(map(_td, others))}</tr>' for first, *others in rows]
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _td(cell: str) -> str:
    if cell.startswith("*"):
        return f'<td class="best">{escape(cell[1:])}</td>'
    if cell.startswith("="):
        share = min(max(float(cell[1:]), 0.0), 1.0) * 0.8
        return f'<td class="heat" style="--share:{share:.2f}">{escape(cell[1:])}</td>'
    return f"<td>{escape(cell)}</td>"


def _lines(path: Path) -> list[dict[str, Any]]:
    """Of a run without rounds: none."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
