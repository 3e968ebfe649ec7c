"""What a domain knows of its items beyond their columns: facts of a knowledge graph, in RecBole's atomic format.

``NAME.kg`` holds ``head_id, relation_id, tail_id``; ``NAME.link`` says which entity an item is (``item_id,
entity_id``), and without it an item's id is its entity's. A fact between an item and something else is an attribute of
the item; one between two items is a link. Facts that touch no item explain nothing here and are left out.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shared.attributes import Attributes, Rows
from shared.catalog import Catalog
from shared.errors import DataError
from shared.tables import Problem, Report, Table, first_of_each, problem, read_table

MOST_FACTS = 5_000_000


@dataclass(frozen=True)
class Knowledge:
    """Relation -> entity of each item, and items that a relation joins at once."""

    facts: Attributes = field(default_factory=lambda: Attributes({}, ()))
    links: Mapping[int, tuple[tuple[str, int], ...]] = field(default_factory=dict)  # item -> (relation, item)

    def of_item(self, row: int) -> tuple[tuple[str, str], ...]:
        """(relation, entity); none for an item that came later."""
        return self.facts.of_item[row] if row < len(self.facts.of_item) else ()


def read_knowledge(folder: Path, stem: str, catalog: Catalog) -> tuple[Knowledge, tuple[Report, ...]]:
    """Of the files beside ``stem``.item; empty where there is no .kg. Raises DataError for one that cannot be used."""
    path = folder / f"{stem}.kg"
    if not path.is_file():
        return Knowledge(), ()
    entities, reports = _entities(folder / f"{stem}.link", catalog)
    table = read_table(path, ("head_id", "relation_id", "tail_id"))
    if len(table) > MOST_FACTS:
        raise DataError(f"{path}: expected at most {MOST_FACTS:,} facts, found {len(table):,}; leave out the rarest")
    kept, problems = _usable(table, ("head_id", "relation_id", "tail_id"))
    heads, relations, tails = (table.texts(column) for column in ("head_id", "relation_id", "tail_id"))
    facts: dict[tuple[str, str], dict[int, None]] = defaultdict(dict)
    names: dict[tuple[str, str], str] = {}
    links: dict[int, dict[tuple[str, int], None]] = defaultdict(dict)
    strange = []
    for place in np.flatnonzero(kept).tolist():
        head, relation, tail = heads[place], relations[place], tails[place]
        one, two = entities.get(head), entities.get(tail)
        if one is not None and two is not None:
            links[one][relation, two] = links[two][relation, one] = None
        elif one is not None or two is not None:
            row, name = (one, tail) if one is not None else (two, head)
            key = (relation, name.casefold())
            facts[key][int(row or 0)] = None
            names.setdefault(key, name)
        else:
            strange.append(place)
    problems += problem("fact that touches no item", "dropped", table.lines[strange])
    found = Knowledge(_attributes(facts, names, len(catalog)), {row: tuple(pairs) for row, pairs in links.items()})
    return found, (*reports, Report(path.name, table.rows_read, int(kept.sum()) - len(strange), problems))


def _entities(path: Path, catalog: Catalog) -> tuple[Mapping[str, int], tuple[Report, ...]]:
    """Entity id -> row of the item that it is."""
    if not path.is_file():
        return catalog.row, ()
    table = read_table(path, ("item_id", "entity_id"))
    kept, problems = _usable(table, ("item_id", "entity_id"))
    items, _ = table.codes("item_id", catalog.ids)
    unknown = kept & (items < 0)
    kept &= items >= 0
    entities = table.texts("entity_id")
    found = {entities[place]: int(items[place]) for place in np.flatnonzero(kept)[::-1].tolist()}  # the first stays
    problems += problem("item that is not in the catalogue", "dropped", table.lines[unknown])
    return found, (Report(path.name, table.rows_read, int(kept.sum()), problems),)


def _usable(
    table: Table, columns: tuple[str, ...]
) -> tuple["np.ndarray[tuple[int], np.dtype[np.bool_]]", tuple[Problem, ...]]:
    """Rows whose ids are there, whole and not given before; and what was wrong with the others."""
    missing = np.logical_or.reduce([table.missing(column) for column in columns])
    damaged = ~missing & np.logical_or.reduce([table.damaged(column) for column in columns])
    again = ~first_of_each(*(table.codes(column)[0] for column in columns)) & ~missing & ~damaged
    problems = (
        *table.problems,
        *problem("id missing", "dropped", table.lines[missing]),
        *problem("id that is not UTF-8", "dropped", table.lines[damaged]),
        *problem("row given again", "kept once", table.lines[again]),
    )
    return ~(missing | damaged | again), problems


def _attributes(
    facts: Mapping[tuple[str, str], Mapping[int, None]], names: Mapping[tuple[str, str], str], items: int
) -> Attributes:
    """As of columns: what one item alone has joins nothing."""
    rows: dict[tuple[str, str], Rows] = {key: np.array(list(of), np.int64) for key, of in facts.items() if len(of) > 1}
    of_item: list[list[tuple[str, str]]] = [[] for _ in range(items)]
    for key, of in rows.items():
        for row in of:
            of_item[row].append((key[0], names[key]))
    return Attributes(rows, tuple(tuple(one) for one in of_item))
