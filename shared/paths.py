"""Ways from a person to an item through what both ends have in common: user -> item met -> attribute -> item."""

import math
from dataclasses import dataclass

from shared.engine import Engine
from shared.knowledge import Knowledge
from shared.policy import Person
from shared.reasons import Reason
from shared.scoring import UNLISTED


@dataclass(frozen=True)
class Step:
    """One stop on the way, and by which relation one gets there."""

    kind: str  # "item", "attribute" or "friends"
    relation: str  # column of the attribute, relation of the graph; "" for the item that the user met
    name: str
    item_id: str = ""


@dataclass(frozen=True)
class Path:
    """From the user to the item asked about; ``weight`` is what the event carries of the score, times how rare the
    attribute is (1: two items have it, 0: all have it)."""

    steps: tuple[Step, ...]
    weight: float
    events: int  # how many events of the history lead over the same attribute; this one carries most


def paths(
    engine: Engine, person: Person, row: int, found: list[Reason], knowledge: Knowledge, most: int
) -> tuple[Path, ...]:
    """The heaviest ``most`` ways, one for each attribute; ``found`` are the events that raise the item's score.

    Over two edges where the graph joins the two items at once, over three through an attribute.
    """
    best: dict[tuple[str, str], Path] = {}
    target = Step("item", "", engine.title(row), engine.catalog.ids[row])
    wanted = {_key(*pair): pair for pair in (*engine.attributes.of_item[row], *knowledge.of_item(row))}
    for reason in found:
        met = int(person.past.rows[reason.event])
        if met in (UNLISTED, row):
            continue
        first = Step("item", "", engine.title(met), engine.catalog.ids[met])
        for relation, other in knowledge.links.get(met, ()):
            if other == row:
                _enter(best, (relation, ""), Path((first, _at(target, relation)), round(reason.drop, 4), 1))
        for column, value in (*engine.attributes.of_item[met], *knowledge.of_item(met)):
            if (key := _key(column, value)) in wanted:
                weight = reason.drop * rarity(engine, knowledge, key)
                over = Step("attribute", column, wanted[key][1])
                _enter(best, key, Path((first, over, _at(target, column)), round(weight, 4), 1))
    return tuple(sorted(best.values(), key=lambda path: -path.weight)[:most])


def rarity(engine: Engine, knowledge: Knowledge, key: tuple[str, str]) -> float:
    """log(items / items that have it) / log(items / 2): 1 for what two items have, 0 for what all have."""
    rows = engine.attributes.rows.get(key, knowledge.facts.rows.get(key))
    having, items = 0 if rows is None else len(rows), len(engine)
    if having >= items or items <= 2:
        return 0.0
    return min(1.0, math.log(items / max(having, 2)) / math.log(items / 2))


def _key(column: str, value: str) -> tuple[str, str]:
    return column, value.casefold()


def _at(target: Step, relation: str) -> Step:
    return Step(target.kind, relation, target.name, target.item_id)


def _enter(best: dict[tuple[str, str], Path], key: tuple[str, str], path: Path) -> None:
    """Keep the heavier one, and count both."""
    before = best.get(key)
    if before is None:
        best[key] = path
        return
    stronger = path if path.weight > before.weight else before
    best[key] = Path(stronger.steps, stronger.weight, before.events + 1)
