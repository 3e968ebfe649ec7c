"""One page of HTML: opens without a network, by light and in the dark."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from shared.whole import PUBLIC, write_whole

NO_PLOTS = (
    "Drawings need matplotlib: pip install -e '.[plots]', then python -m simulations map RUN, "
    "or audit-privacy once more with the same --out."
)


def write_page(to: Path, title: str, body: Iterable[str]) -> Path:
    """The page, whole or not at all; ``body`` is HTML, ``title`` is not."""
    page = Template(files("simulations").joinpath("page.html").read_text(encoding="utf-8"))
    text = page.substitute(title=escape(title), body="\n".join(body))
    write_whole(to, text.encode(), PUBLIC)
    return to


def drawing(name: str, *what: Any) -> Iterator[str]:
    """One of the drawings of ``simulations.plots``, or how to get them."""
    try:
        from simulations import plots

        yield f'<div class="wide">{getattr(plots, name)(*what)}</div>'
    except ImportError:  # an extra
        yield paragraph(NO_PLOTS)


def section(title: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{content}"


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
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
