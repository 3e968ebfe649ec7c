"""Interactions of a domain as columns of numbers: ids become row numbers here; bad rows are counted and stay out."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from client.friends import NOBODY, Friends, read_friends
from client.journal import Entry, Event
from client.review import unwanted
from shared.catalog import Catalog, NewItem, behaviour_code, read_catalog
from shared.errors import DataError
from shared.knowledge import Knowledge, read_knowledge
from shared.tables import Mask, Problem, Report, Table, find_table, first_of_each, problem, read_table

DAY_S = 86_400.0
BLANK = "\0forgotten "  # how the id of somebody begins of whom a place is left and nothing else
MOST_SECONDS = 1e11  # the year 5138: what is larger is not in seconds but in milliseconds, or finer


@dataclass(frozen=True)
class Interactions:
    """Rows sorted by user, then time; unknown times come first, and ties keep the order of the file.

    Rows of unknown time count as the oldest so that none of them becomes the target of a test by accident.
    """

    user_ids: tuple[str, ...]
    users: NDArray[np.int32]  # (n,) position in user_ids
    items: NDArray[np.int32]  # (n,) row of the catalogue
    behaviours: NDArray[np.int8]  # (n,) position in BEHAVIOURS
    times: NDArray[np.float64]  # (n,) unix seconds, or positions; NaN = unknown
    weights: NDArray[np.float32]  # (n,) as the file gives them (rating, play count); 1 where it does not

    def __len__(self) -> int:
        return len(self.users)


class Unwanted(NamedTuple):
    """What users hid or called harmful: pairs of (position in user_ids, row of the catalogue), sorted, each once."""

    users: NDArray[np.int64]
    items: NDArray[np.int64]


NONE_UNWANTED = Unwanted(np.empty(0, np.int64), np.empty(0, np.int64))


class Beside(NamedTuple):
    """The owner's files beside the interactions that name users and are there; of each kind the first is read."""

    friends: tuple[Path, ...]
    attributes: tuple[Path, ...]


@dataclass(frozen=True)
class Domain:
    """A data owner's folder, read."""

    name: str
    folder: Path
    catalog: Catalog
    interactions: Interactions
    reports: tuple[Report, ...]
    knowledge: Knowledge = field(default_factory=Knowledge)
    friends: Friends = NOBODY
    unwanted: Unwanted = NONE_UNWANTED

    @property
    def events(self) -> Path:
        """The file of interactions."""
        return self.folder / self.reports[1].file

    @property
    def beside(self) -> Beside:
        """The files that name users besides."""
        return beside(self.folder / self.reports[0].file, self.events)

    def describe(self) -> str:
        """Summary for people, several lines: how much there is, and what was wrong, by kind."""
        seen = len(np.unique(self.interactions.items))
        head = (
            f"{self.name}: {len(self.interactions.user_ids):,} users, {len(self.catalog):,} items "
            f"({seen:,} with interactions), {len(self.interactions):,} interactions"
        )
        return "\n".join([head, *(f"  {line}" for report in self.reports for line in report.lines()), *self._strange()])

    def _strange(self) -> list[str]:
        """What looks like a file of users and is none that a forgetting would reach."""
        found = sorted({*self.folder.glob("*.net"), *self.folder.glob("*.user")}.difference(*self.beside))
        stem = Path(self.reports[0].file).stem
        advice = "neither read nor erased when a user is forgotten; name it"
        return [f"  {path.name}: {advice} {stem}{path.suffix}" for path in found]


def beside(items: Path, events: Path) -> Beside:
    """Of a domain with these two files: what is not named here is neither read, nor exported, nor forgotten."""
    friends = [items.with_suffix(".net"), events.with_suffix(".net")]
    attributes = [events.with_suffix(".user"), items.with_suffix(".user")]
    if events.suffix != ".inter":
        attributes = [events.with_name("users.csv"), events.with_name("users.parquet"), *attributes]
    return Beside(*(tuple(path for path in dict.fromkeys(paths) if path.is_file()) for paths in (friends, attributes)))


def read_domain(folder: Path, name: str | None = None, template: str | None = None) -> Domain:
    """Catalogue and interactions of a folder. Raises DataError when a file cannot be used; changes nothing on disk."""
    catalog, catalog_report = read_catalog(folder, name, template)
    stem = Path(catalog_report.file).stem
    path = find_table(folder, "inter", "interactions", stem)
    interactions, report = read_interactions(path, catalog)
    knowledge, graph_reports = read_knowledge(folder, stem, catalog)
    net = beside(folder / catalog_report.file, path).friends
    friends, net_reports = read_friends(net[0], interactions.user_ids) if net else (NOBODY, ())
    reports = (catalog_report, report, *graph_reports, *net_reports)
    return Domain(catalog.domain, folder, catalog, interactions, reports, knowledge, friends)


def with_journal(domain: Domain, entries: Sequence[Entry]) -> Domain:
    """The same with what came in while it was serving: new items and users behind the others, events among theirs.

    An event that the files or the journal have already counts once; so does an item. What users hid is beside them.
    """
    known = set(domain.catalog.row)
    new = [entry for entry in entries if isinstance(entry, NewItem) and entry.item_id not in known]
    catalog = domain.catalog.with_items(list({item.item_id: item for item in new}.values())) if new else domain.catalog
    events = [entry for entry in entries if isinstance(entry, Event) and entry.item in catalog.row]
    interactions = with_events(domain.interactions, events, catalog)
    pairs = pairs_of(unwanted(entries), interactions, catalog)
    return replace(domain, catalog=catalog, interactions=interactions, unwanted=pairs)


def pairs_of(pairs: Iterable[tuple[str, str]], data: Interactions, catalog: Catalog) -> Unwanted:
    """(user, item) ids as rows; who did nothing and what is not there has none."""
    pairs = list(pairs)
    if not pairs:
        return NONE_UNWANTED
    row = {user: place for place, user in enumerate(data.user_ids)}
    found = sorted({(row[user], catalog.row[item]) for user, item in pairs if user in row and item in catalog.row})
    users, items = np.array(found, np.int64).reshape(-1, 2).T
    return Unwanted(users, items)


def with_events(data: Interactions, events: Sequence[Event], catalog: Catalog) -> Interactions:
    """Rows for the events, whose items must be in the catalogue; sorted as all."""
    if not events:
        return data
    row = {user: place for place, user in enumerate(data.user_ids)}
    for event in events:
        row.setdefault(event.user, len(row))
    users = np.concatenate([data.users, np.array([row[event.user] for event in events], np.int32)])
    items = np.concatenate([data.items, np.array([catalog.row[event.item] for event in events], np.int32)])
    kinds = np.array([behaviour_code(event.behavior) for event in events], np.int8)
    behaviours = np.concatenate([data.behaviours, kinds])
    times = np.concatenate([data.times, np.array([event.timestamp for event in events])])
    weights = np.concatenate([data.weights, np.ones(len(events), np.float32)])
    order = np.flatnonzero(first_of_each(users, items, behaviours, times))
    order = order[np.lexsort((np.where(np.isnan(times), -np.inf, times)[order], users[order]))]
    columns = (column[order] for column in (users, items, behaviours, times, weights))
    return Interactions(tuple(row), *columns)


def read_interactions(path: Path, catalog: Catalog, now_s: float | None = None) -> tuple[Interactions, Report]:
    """Usable rows of one file and what was wrong with the others; ``now_s`` (unix) decides what lies in the future."""
    table = read_table(path, ("user_id", "item_id"))
    users, user_ids = table.codes("user_id")
    items, _ = table.codes("item_id", catalog.ids)
    behaviours, names, unknown = _behaviours(table)
    times, time_problems = _times(table)
    weights, weight_problems = _weights(table)
    future = times > (time.time() if now_s is None else now_s) + DAY_S
    repeated = ~first_of_each(users, items, names, times)
    kept, drops = _drop(
        table,
        ("user or item id missing", table.missing("user_id") | table.missing("item_id")),
        ("user or item id that is not UTF-8", table.damaged("user_id") | table.damaged("item_id")),
        ("item that is not in the catalogue", items < 0),
        ("timestamp in the future", future),
    )
    again = kept & repeated
    kept &= ~repeated
    problems = (
        *table.problems,
        *drops,
        *problem("row given again", "kept once", table.lines[again]),
        *problem("behaviour with an unknown name", 'kept as "other"', table.lines[unknown & kept]),
        *time_problems,
        *weight_problems,
    )
    if not kept.any():
        raise DataError(_nothing_left(path, table, problems))
    order = np.flatnonzero(kept)
    order = order[np.lexsort((np.where(np.isnan(times), -np.inf, times)[order], users[order]))]
    present, dense = np.unique(users[order], return_inverse=True)
    interactions = Interactions(
        tuple(user_ids[code] for code in present),
        dense.astype(np.int32),
        items[order],
        behaviours[order],
        times[order],
        weights[order],
    )
    return interactions, Report(path.name, table.rows_read, len(interactions), problems)


def _drop(table: Table, *rules: tuple[str, Mask]) -> tuple[Mask, tuple[Problem, ...]]:
    """Which rows are left, and a problem for each rule; a row counts under the first rule that it breaks."""
    kept = np.ones(len(table), dtype=bool)
    problems: tuple[Problem, ...] = ()
    for kind, broken in rules:
        problems += problem(kind, "dropped", table.lines[kept & broken])
        kept &= ~broken
    return kept, problems


def _nothing_left(path: Path, table: Table, problems: tuple[Problem, ...]) -> str:
    why = "; ".join(f"{p.count:,} x {p.kind}" for p in problems) or "the file has no rows"
    return (
        f"{path}: expected at least one usable interaction, found none in {table.rows_read:,} rows ({why}); mend these"
    )


def _behaviours(table: Table) -> tuple[NDArray[np.int8], NDArray[np.int32], Mask]:
    """Code of each row, the file's own numbering of its names, and which rows have a name nobody knows."""
    column = next((name for name in ("behavior", "behaviour") if name in table.types), None)
    if column is None:
        none = np.zeros(len(table), dtype=np.int32)
        return none.astype(np.int8), none, none.astype(bool)
    names, known = table.codes(column)
    codes = np.array([*(behaviour_code(name) for name in known), 0], dtype=np.int8)  # the last: an empty cell
    strange = np.array([*(code == 0 and name.lower() != "other" for code, name in zip(codes, known, strict=False)), 0])
    return codes[names], names, strange.astype(bool)[names]


def _times(table: Table) -> tuple[NDArray[np.float64], tuple[Problem, ...]]:
    """Unix seconds (or whatever order the file gives), NaN = unknown; finer units are brought to seconds."""
    if "timestamp" not in table.types:
        return np.full(len(table), np.nan), ()
    times, bad = table.numbers("timestamp")
    bad |= np.isinf(times)
    times = np.where(bad, np.nan, times)
    problems = problem("unreadable timestamp", "kept, time unknown", table.lines[bad])
    for unit in (1e3, 1e6, 1e9):  # row by row: what one user's rows are in says nothing of another's
        finer = times > MOST_SECONDS * unit / 1e3
        finer &= times <= MOST_SECONDS * unit
        problems += problem(
            "timestamp in a finer unit than seconds", f"kept, divided by {unit:,.0f}", table.lines[finer]
        )
        times = np.where(finer, times / unit, times)
    return times, problems


def _weights(table: Table) -> tuple[NDArray[np.float32], tuple[Problem, ...]]:
    """Weight or rating of each row as given; 1 where there is none or none that makes sense."""
    column = next((name for name in ("weight", "rating") if name in table.types), None)
    if column is None:
        return np.ones(len(table), dtype=np.float32), ()
    values, bad = table.numbers(column)
    bad |= (values < 0) | (values > np.finfo(np.float32).max)
    weights = np.where(bad | np.isnan(values), 1.0, values).astype(np.float32)
    return weights, problem(f"{column} that is no number, negative or infinite", "kept with weight 1", table.lines[bad])
