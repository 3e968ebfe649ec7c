"""An audit by attack as a page: what is promised, what the attacks prove, and how well each told."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simulations.page import drawing, paragraph, section, table, write_page
from simulations.tables import attack_rows

HEAD = ("attack", "epsilon claimed", "AUC with", "AUC without", "items right: with, without, popular ones")
TOLD = "An AUC of .5 is a guess, of 1 is certainty; the curves say how many are rightly told where so many are accused."


def write_audit_page(place: Path, found: dict[str, Any]) -> Path:
    """``report.html`` of the audit of each domain, by name."""
    return write_page(place / "report.html", f"Audit by attack of {', '.join(found)}", _parts(found))


def _parts(found: dict[str, Any]) -> Iterator[str]:
    yield paragraph(TOLD)
    for domain, one in found.items():
        yield section(domain, paragraph(sentence_of(one)))
        yield table(HEAD, attack_rows(one))
        yield from drawing("svg_audit", one)


def sentence_of(found: dict[str, Any]) -> str:
    """What was attacked, what was claimed of it, and whether the attacks agree."""
    promised, plain = found["private"], found["plain"]
    return (
        f"{found['members']:,} users took part; of {found['asked']:,} of them and others the attacker was asked, with "
        f"{found['shadows']} shadow models. Claimed: epsilon {promised['epsilon']:.2f} at delta {found['delta']:g}. "
        f"The attacks prove at least {promised['epsilon_at_least']:.2f}: "
        f"{'no more than is claimed' if holds(found) else 'MORE THAN IS CLAIMED, the promise does not hold'}. "
        f"Without a promise they prove at least {plain['epsilon_at_least']:.2f}."
    )


def holds(found: dict[str, Any]) -> bool:
    """Whether the attacks prove no more than is claimed."""
    return bool(found["private"]["epsilon_at_least"] <= found["private"]["epsilon"])
