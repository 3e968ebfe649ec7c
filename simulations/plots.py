"""Pictures of a run: who is alike, and what each way to recommend reaches. The only file that knows matplotlib."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import ConfigError


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
    figure.savefig(to, dpi=130)
    return to


def _reports(run: Path) -> list[dict[str, Any]]:
    try:
        lines = (run / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
        return [report for report in map(json.loads, lines) if isinstance(report, dict)]
    except (OSError, ValueError):
        raise ConfigError(f"{run} holds no readable rounds.jsonl; give the run directory of a federation") from None


def _matrix(table: dict[str, dict[str, float]], names: list[str]) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """(names, names); a domain that was not there yet is blank."""
    return np.array([[table.get(one, {}).get(two, np.nan) for two in names] for one in names])
