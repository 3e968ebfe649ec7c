"""Pictures of a run: who is alike, and what each way to recommend reaches. The only file that knows matplotlib."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from server.registry import read_rounds
from shared.errors import ConfigError, DataError

if TYPE_CHECKING:  # heavy at run time
    from simulations.views import View

INK = "#010203"  # no colour of any plot: the page puts its own in its place
QUIET = "#8a8a8a"


def plot_affinity(run: Path, to: Path) -> Path:
    """The likeness of all domains after the first and after the last round, and how it came: one picture.

    Raises ConfigError when the run logged none, or matplotlib is missing.
    """
    reports = [report for report in _reports(run) if "affinity" in report]
    if not reports:
        raise ConfigError(f"{run} logged no affinities: its rounds.jsonl has none; run with --family affinity")
    from matplotlib.figure import Figure  # an extra; its absence is told by the caller

    names = sorted({name for report in reports for name in report["affinity"]})
    first, last = (_matrix(report["affinity"], names) for report in (reports[0], reports[-1]))
    side = max(3.0, 0.32 * len(names) + 1.6)
    figure = Figure(figsize=(2.3 * side + 3.5, side + 0.6), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=[1, 1, 0.9])
    for axis, values, report in ((axes[0], first, reports[0]), (axes[1], last, reports[-1])):
        image = axis.imshow(values, vmin=0, vmax=1, cmap="viridis")
        axis.set_title(f"likeness, round {report['round']}", fontsize=10)
        axis.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axis.set_yticks(range(len(names)), names, fontsize=7)
    figure.colorbar(image, ax=axes[1], shrink=0.8)
    pairs = [(one, two) for at, one in enumerate(names) for two in names[at + 1 :]]
    for one, two in pairs:
        course = [report["affinity"].get(one, {}).get(two, np.nan) for report in reports]
        axes[2].plot([report["round"] for report in reports], course, color="tab:blue", alpha=0.35, linewidth=1)
    axes[2].set_title("each pair, over the rounds", fontsize=10)
    axes[2].set_xlabel("round")
    axes[2].set_ylabel("likeness")
    axes[2].locator_params(axis="x", integer=True)
    figure.savefig(to, dpi=130)
    return to


def plot_audit(found: dict[str, Any], to: Path) -> Path:
    """A ROC curve of each attack with and without the promise; the diagonal is guessing. Needs matplotlib."""
    _audit(found).savefig(to, dpi=130)
    return to


def svg_audit(found: dict[str, Any]) -> str:
    """The same as a drawing for a page."""
    return _svg(_audit(found))


def _audit(found: dict[str, Any]) -> Any:
    from matplotlib.figure import Figure

    promised = found["private"]["attacks"]
    figure = Figure(figsize=(9.6, 6.8), layout="constrained")
    axes = figure.subplots(2, 3, sharex=True, sharey=True)
    for axis, way in zip(axes.flat, promised, strict=True):
        covered = promised[way]["epsilon"]
        under = "not covered" if covered is None else f"epsilon {covered:.1f}"
        for attacks, colour, label in (
            (promised, "tab:blue", under),
            (found["plain"]["attacks"], "tab:red", "no promise"),
        ):
            curve, area = attacks[way]["roc"], attacks[way]["auc"]
            axis.plot(curve["false"], curve["true"], color=colour, label=f"{label}: AUC {area:.2f}")
        axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
        axis.set_title(way, fontsize=10)
        axis.set_aspect("equal")
        axis.legend(fontsize=8, loc="lower right")
    figure.supxlabel("wrongly accused", fontsize=10)
    figure.supylabel("rightly told", fontsize=10)
    return figure


def plot_map(views: Sequence["View"], to: Path) -> Path:
    """All domains on their common plane, then each on its own, coloured by an attribute. Needs matplotlib."""
    _map(views).savefig(to, dpi=130)
    return to


def svg_map(views: Sequence["View"]) -> str:
    """The same as a drawing for a page."""
    return _svg(_map(views))


def svg_quality(result: dict[str, Any], names: dict[str, str]) -> str:
    """NDCG@10 of each domain and method (its name in ``names``), a drawing for a page. Needs matplotlib."""
    from matplotlib.figure import Figure

    domains = result["domains"]
    methods = [method for method in names if any(method in cells for cells in domains.values())]
    figure = Figure(figsize=(8.4, 0.6 + 0.22 * len(domains) * (len(methods) + 1)), layout="constrained")
    axis = figure.subplots()
    for place, method in enumerate(methods):
        values = [cells.get(method, {}).get("ndcg@10", 0.0) for cells in domains.values()]
        at = np.arange(len(domains)) * (len(methods) + 1) + place
        axis.barh(at, values, height=0.9, label=names[method].replace("\n", " "), color=f"C{place}")
    axis.set_yticks(np.arange(len(domains)) * (len(methods) + 1) + (len(methods) - 1) / 2, list(domains))
    axis.invert_yaxis()
    axis.set_xlabel("NDCG@10")
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return _svg(figure)


def svg_courses(courses: dict[str, dict[str, Sequence[float]]]) -> str:
    """Title -> name -> values in order: lines side by side, a drawing for a page. Needs matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(courses), 3.0), layout="constrained")
    for axis, (title, lines) in zip(figure.subplots(1, len(courses), squeeze=False)[0], courses.items(), strict=True):
        what, _, unit = title.partition(" by ")
        for name, values in lines.items():
            axis.plot(
                range(1 if unit == "round" else 0, len(values) + (unit == "round")), values, marker=".", label=name
            )
        axis.set_title(what, fontsize=10)
        axis.set_xlabel(unit)
        axis.locator_params(axis="x", integer=True)
        axis.legend(fontsize=8, frameon=False)
    return _svg(figure)


def _map(views: Sequence["View"]) -> Any:
    from matplotlib.figure import Figure

    panels = (1 if len(views) > 1 else 0) + len(views)
    across = min(2, panels)
    down = -(-panels // across)
    figure = Figure(figsize=(5.6 * across, 4.6 * down), layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    if len(views) > 1:
        axis = axes.pop(0)
        for place, view in enumerate(views):
            axis.scatter(*view.common.T, s=6, alpha=0.6, linewidths=0, color=f"C{place}", label=view.name)
        axis.set_title("items of all domains", fontsize=10)
        axis.legend(fontsize=7, markerscale=2, frameon=False)
    for axis, view in zip(axes, views, strict=False):
        axis.scatter(*view.users.T, s=10, marker="x", linewidths=0.6, color=QUIET, label="users")
        for place, group in enumerate(view.groups):
            mine = view.items[view.group == place]
            colour = QUIET if place == len(view.groups) - 1 else f"C{place}"
            axis.scatter(*mine.T, s=6, alpha=0.7, linewidths=0, color=colour, label=group)
        axis.set_title(f"{view.name}, by {view.column}" if view.column else view.name, fontsize=10)
        axis.set_xlabel(f"{view.explained[0]:.0%} of the differences", fontsize=8)
        axis.set_ylabel(f"{view.explained[1]:.0%}", fontsize=8)
        axis.legend(fontsize=7, markerscale=1.5, frameon=False)
    for axis in axes[len(views) :]:
        axis.axis("off")
    return figure


def _svg(figure: Any) -> str:
    """A drawing without a background, its ink that of the page around it, light or dark."""
    import matplotlib

    raw = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "isthmus"}):
        for text in figure.findobj(matplotlib.text.Text):
            text.set_color(INK)
        for axis in figure.axes:
            axis.tick_params(colors=INK)
            for spine in axis.spines.values():
                spine.set_color(INK)
        figure.savefig(raw, format="svg", transparent=True, metadata={"Date": None})
    drawing = raw.getvalue()
    return drawing[drawing.index("<svg") :].replace(INK, "currentColor")


def _reports(run: Path) -> list[dict[str, Any]]:
    try:
        if reports := read_rounds(run):
            return reports
    except (OSError, DataError):
        pass
    raise ConfigError(f"{run} holds no readable rounds.jsonl; give the run directory of a federation")


def _matrix(table: dict[str, dict[str, float]], names: list[str]) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """(names, names); a domain that was not there yet is blank."""
    return np.array([[table.get(one, {}).get(two, np.nan) for two in names] for one in names])
