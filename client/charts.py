"""Pictures for an audit's page as inline SVG. Needs matplotlib (``pip install -e '.[plots]'``)."""

import io
import re
from collections.abc import Sequence
from typing import Any

# What stands for a colour of the page, which knows light and dark; matplotlib takes no CSS variables.
INK, FAINT, HUES = "#010203", "#040506", ("#0a0b01", "#0a0b02", "#0a0b03")
VARIABLES = {INK: "var(--ink)", FAINT: "var(--line)", **{hue: f"var(--hue-{n})" for n, hue in enumerate(HUES, 1)}}


def shares(labels: Sequence[str], series: Sequence[tuple[str, Sequence[float]]], alt: str) -> str:
    """Groups of horizontal bars: one for each label, in each a bar for each series; values are shares of one."""
    figure, axes = _new(1.0 + 0.22 * len(labels) * (len(series) + 0.8))
    height = 0.8 / len(series)
    for place, (name, values) in enumerate(series):
        at = [row + place * height for row in range(len(labels))]
        axes.barh(at, [100 * value for value in values], height * 0.9, color=HUES[place], label=name)
    axes.set_yticks([row + 0.4 - height / 2 for row in range(len(labels))], [_short(label) for label in labels])
    axes.invert_yaxis()
    axes.set_xlabel("share in %")
    if len(series) > 1:
        axes.legend(frameon=False, labelcolor=INK, fontsize=8, loc="lower right")
    return _svg(figure, alt)


def reliability(rows: Sequence[dict[str, Any]], alt: str) -> str:
    """How sure the model was of its first item, and how often it was right; on the diagonal they are the same."""
    figure, axes = _new(3.2, 3.6)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--")
    axes.plot([row["said"] for row in rows], [row["was"] for row in rows], "o-", color=HUES[0], markersize=4)
    axes.set_xlabel("chance that the model gives")
    axes.set_ylabel("how often it was right")
    return _svg(figure, alt)


def _new(height: float, width: float = 7.2) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    axes.tick_params(colors=INK, labelsize=8)
    for side, spine in axes.spines.items():
        spine.set_color(FAINT)
        spine.set_visible(side in ("left", "bottom"))
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)
        label.set_fontsize(8)
    return figure, axes


def _svg(figure: Any, alt: str) -> str:
    """Text stays text, so that it can be read aloud and searched; the same figures give the same bytes."""
    from html import escape

    from matplotlib import rc_context

    raw = io.StringIO()
    with rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": alt, "font.family": "sans-serif", "text.parse_math": False}
    ):
        figure.savefig(raw, format="svg", metadata={"Date": None, "Creator": None})
    text = raw.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(alt, quote=True)}" ', 1)


def _short(text: str) -> str:
    return text if len(text) <= 32 else text[:31] + "…"
