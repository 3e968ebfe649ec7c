"""A domain's public items: ids, titles, and the text that the encoder reads."""

import hashlib
import json
import string
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from shared.errors import ConfigError, DataError, TakenError
from shared.tables import Report, Table, find_table, first_of_each, problem, read_table
from shared.whole import MAX_NAME, plain_name

# Public and common to all domains: the behaviour embedding of one domain means the same in another.
# Append only; a code is a row of trained weights.
BEHAVIOURS: tuple[str, ...] = (
    "other", "view", "click", "like", "buy", "rate", "review", "listen",
    "tag", "befriend", "share", "save", "follow", "comment", "search", "skip",
)  # fmt: skip
_CLOSING = {"(": ")", "[": "]"}
_CODES = {name: code for code, name in enumerate(BEHAVIOURS)}


def behaviour_code(name: str) -> int:
    """Position in BEHAVIOURS, upper case or lower; 0 ("other") for a name that is not there."""
    return _CODES.get(name.strip().lower(), 0)


@dataclass(frozen=True)
class NewItem:
    """One that a catalogue does not have yet."""

    item_id: str
    title: str
    text: str  # what the encoder reads
    attributes: Mapping[str, str] = field(default_factory=dict)  # column -> its cell


@dataclass(frozen=True)
class Catalog:
    """Items by row number; ``texts`` is what the encoder reads, "" for an item known by its id only."""

    domain: str
    ids: tuple[str, ...]
    titles: tuple[str, ...]
    texts: tuple[str, ...]
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of text beside the title; "" for none

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def row(self) -> dict[str, int]:
        """Item id -> row number."""
        return {item: row for row, item in enumerate(self.ids)}

    def with_items(self, new: Sequence[NewItem]) -> "Catalog":
        """The same with more items behind the others. Raises TakenError for an id that is there already."""
        ids = (*self.ids, *(item.item_id for item in new))
        if len(set(ids)) < len(ids):
            known = next(item.item_id for item in new if ids.count(item.item_id) > 1)
            raise TakenError(f"the catalogue of {self.domain} has an item {known[:80]!r} already")
        titles, texts = (item.title for item in new), (item.text for item in new)
        columns = {
            name: (*cells, *(item.attributes.get(name, "") for item in new)) for name, cells in self.columns.items()
        }
        return Catalog(self.domain, ids, (*self.titles, *titles), (*self.texts, *texts), columns)

    def check_attributes(self, new: Sequence[NewItem]) -> None:
        """Raises ConfigError where a new item has one that no item of the catalogue could have."""
        if unknown := sorted({name for item in new for name in item.attributes} - self.columns.keys()):
            known = ", ".join(self.columns) or "none"
            raise ConfigError(f"{self.domain} has no attribute {unknown[0][:40]!r}; its items have {known}")

    def first(self, count: int) -> "Catalog":
        """The first so many items."""
        return self.take(range(count))

    def take(self, rows: Sequence[int]) -> "Catalog":
        """Some items, in the order of their rows."""
        if len(rows) == len(self):
            return self

        def some(cells: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(cells[row] for row in rows)

        columns = {name: some(cells) for name, cells in self.columns.items()}
        return Catalog(self.domain, some(self.ids), some(self.titles), some(self.texts), columns)

    def after(self, count: int) -> list[NewItem]:
        """All others."""
        cells = {name: column[count:] for name, column in self.columns.items()}
        parts = zip(self.ids[count:], self.titles[count:], self.texts[count:], strict=True)
        return [NewItem(*part, {name: of[at] for name, of in cells.items()}) for at, part in enumerate(parts)]

    @cached_property
    def titled(self) -> dict[str, int]:
        """Title as ``plain_title`` has it -> row number of the first item called so."""
        found: dict[str, int] = {}
        for row, title in enumerate(self.titles):
            if title:
                found.setdefault(plain_title(title), row)
        return found

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of ids and texts in order; the domain's name does not count."""
        return hashlib.sha256(json.dumps([self.ids, self.texts]).encode()).hexdigest()


def plain_title(title: str) -> str:
    """Case and spaces aside."""
    return " ".join(title.split()).casefold()


@dataclass(frozen=True)
class _Settings:
    """What ``domain.toml`` may say."""

    name: str | None = None
    text: str | None = None


def read_catalog(folder: Path, name: str | None = None, template: str | None = None) -> tuple[Catalog, Report]:
    """Catalogue of the domain in a folder, and what was wrong with its file.

    ``template`` such as "{title}. {category}" goes before the one in ``domain.toml``. The domain is called ``name``,
    or as ``domain.toml`` says, or like its file. Raises DataError when the file cannot be used.
    """
    settings = _read_settings(folder / "domain.toml")
    path = find_table(folder, "item", "items", name or settings.name)
    table = read_table(path, ("item_id", "title"))
    texts = _render(table, template or settings.text)
    missing, damaged = table.missing("item_id"), table.damaged("item_id")
    codes, ids = table.codes("item_id")
    first = first_of_each(codes)
    kept = np.flatnonzero(first & ~missing & ~damaged)
    mute = np.array([not texts[row] for row in kept], dtype=bool)
    problems = (
        *table.problems,
        *problem("item without an id", "dropped", table.lines[missing]),
        *problem("item id that is not UTF-8", "dropped", table.lines[damaged]),
        *problem("item listed again", "dropped, the first is kept", table.lines[~first & ~missing & ~damaged]),
        *problem("item without text", "kept; known by its id only", table.lines[kept[mute]]),
    )
    if not kept.size:
        raise DataError(f"{path}: expected at least one item with an id, found none in {table.rows_read:,} rows")
    titles = table.texts("title")
    own = folder.resolve().name if path.stem == "items" else path.stem
    catalog = Catalog(
        name or settings.name or own,
        tuple(ids[codes[row]] for row in kept),
        tuple(titles[row] for row in kept),
        tuple(texts[row] for row in kept),
        {column: tuple(cells[row] for row in kept) for column, cells in _columns(table).items()},
    )
    return catalog, Report(path.name, table.rows_read, len(catalog), problems)


def _columns(table: Table) -> dict[str, list[str]]:
    names = (name for name, kind in table.types.items() if kind == "text" and name not in ("item_id", "title"))
    return {name: table.texts(name) for name in names}


def _read_settings(path: Path) -> _Settings:
    """The domain's own settings; none when there is no such file. Raises DataError when they make no sense."""
    if not path.is_file():
        return _Settings()
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: expected TOML such as text = '{{title}}. {{category}}', found: {error}") from None
    for key, value in values.items():
        if key not in ("name", "text") or not isinstance(value, str):
            raise DataError(f"{path}: expected name and text, both text in quotes; {key!r} is neither")
        if key == "name" and not plain_name(value):
            raise DataError(
                f"{path}: expected a name that a folder can have, of {MAX_NAME} letters at most, found {value[:80]!r}"
            )
    return _Settings(**values)


def _render(table: Table, template: str | None) -> list[str]:
    """One text for each row. By default the title, then every other column of text, joined by ". "."""
    if template is None:
        others = [c for c, kind in table.types.items() if kind == "text" and c not in ("item_id", "title")]
        template = ". ".join(f"{{{column}}}" for column in ("title", *others))
    parts = _parse(template, table)
    columns = {column: table.texts(column) for _, column in parts if column}
    cells = [columns.get(column, [""] * len(table)) for _, column in parts]
    literals = [literal for literal, _ in parts]
    fields = [bool(column) for _, column in parts]
    return [_join(literals, fields, row) for row in zip(*cells, strict=True)]


def _parse(template: str, table: Table) -> list[tuple[str, str]]:
    """Pieces of a template: the literal text before a column, and the column ("" for the tail)."""
    try:
        pieces = [(literal, column or "") for literal, column, _, _ in string.Formatter().parse(template)]
    except ValueError as error:
        raise DataError(f"text template {template!r}: {error}; write columns as {{title}}") from None
    for _, column in pieces:
        if column and column not in table.types:
            known = ", ".join(table.types)
            raise DataError(f"text template: {table.path.name} has no column {column!r}; it has {known}")
    if not any(column for _, column in pieces):
        raise DataError(f"text template {template!r}: expected at least one column, such as {{title}}")
    return pieces


def _join(literals: list[str], fields: list[bool], cells: tuple[str, ...]) -> str:
    """Literals and cells in order; the literal before an empty cell goes with it, and so does its closing bracket."""
    text, closing = "", ""
    for literal, is_field, cell in zip(literals, fields, cells, strict=True):
        literal = literal.removeprefix(closing) if closing else literal
        empty = is_field and not cell
        closing = _CLOSING.get(literal.rstrip()[-1:], "") if empty else ""
        if not empty:
            # "Who?" and ". " give "Who?. ", which is meant; "Inc." and ". " must not give "Inc.. ".
            doubled = text[-1:] == "." == literal[:1]
            text += (literal[doubled:] if text else literal.lstrip(" .,;:|/-")) + cell
    return " ".join(text.split())
