"""A domain's catalogue as it is given away, a folder of two files:

    items.jsonl      an item a line: {"item_id": ..., "title": ..., "text": ..., "attributes": {...}[, "group": 2]}
    catalogue.json   format, domain, attributes, items, fingerprint, SHA-256 of the other; written last

It holds what the domain calls public and nothing of any user. ``group`` alone is counted from users, and is there only
where the owner says so (``client/publish.py``). Whoever reads a folder trusts nothing in it.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.catalog import Catalog
from shared.errors import DataError
from shared.whole import PUBLIC, read_bounded, write_whole

FORMAT = 1
HEAD, ITEMS = "catalogue.json", "items.jsonl"
MOST_ITEMS = 2**21
MOST_BYTES = 2**30  # of items.jsonl
MOST_HEAD = 2**20  # of catalogue.json
MOST_LINE = 2**17
MOST_NAME, MOST_TITLE, MOST_TEXT = 64, 2000, 8000  # letters; of an id four times a name
MOST_ATTRIBUTES = 64
AGAIN = "publish the catalogue again"
GROUPS = ("tail", "known", "head")
# What ends a line on a terminal or means something to it, and halves of letters that no encoding knows.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class Published:
    """A catalogue, and of each item how well known it is: a place in GROUPS (items,); None where that stays at home."""

    catalog: Catalog
    groups: tuple[int, ...] | None = None

    @property
    def domain(self) -> str:
        return self.catalog.domain


def write_published(folder: Path, catalog: Catalog, groups: Sequence[int] | None = None) -> Published:
    """Write the folder; what others will read in it. Texts that are too long are cut, control letters become spaces.

    Raises DataError, and writes nothing, where ids or names are such that nobody would read them.
    """
    clean = Catalog(
        catalog.domain,
        catalog.ids,
        tuple(_cut(title, MOST_TITLE) for title in catalog.titles),
        tuple(_cut(text, MOST_TEXT) for text in catalog.texts),
        {name: tuple(_cut(cell, MOST_TITLE) for cell in cells) for name, cells in catalog.columns.items()},
    )
    lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in _objects(clean, groups)).encode()
    head = {
        "format": FORMAT,
        "domain": clean.domain,
        "attributes": list(clean.columns),
        "items": len(clean),
        "groups": groups is not None,
        "fingerprint": clean.fingerprint,
        "sha256": hashlib.sha256(lines).hexdigest(),
    }
    found = _published(_checked(json.dumps(head).encode(), folder / HEAD), lines, folder / ITEMS)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / ITEMS, lines, PUBLIC)
    write_whole(folder / HEAD, json.dumps(head, ensure_ascii=False, indent=1).encode(), PUBLIC)
    return found


def _objects(catalog: Catalog, groups: Sequence[int] | None) -> Iterator[dict[str, Any]]:
    columns = list(catalog.columns.items())
    for row, item in enumerate(catalog.ids):
        attributes = {name: cells[row] for name, cells in columns if cells[row]}
        one = {"item_id": item, "title": catalog.titles[row], "text": catalog.texts[row], "attributes": attributes}
        yield one if groups is None else {**one, "group": int(groups[row])}


def _cut(text: str, most: int) -> str:
    return CONTROL.sub(" ", text)[:most]


def read_published(folder: Path) -> Published:
    """Raises DataError for a folder that is none, is damaged, or goes beyond the limits above."""
    if not (folder / HEAD).is_file():
        raise DataError(
            f"{folder} holds no published catalogue; its owner makes one: python -m client --domain NAME publish FOLDER"
        )
    head = _checked(read_bounded(folder / HEAD, MOST_HEAD, AGAIN), folder / HEAD)
    return _published(head, read_bounded(folder / ITEMS, MOST_BYTES, AGAIN), folder / ITEMS)


def _published(head: dict[str, Any], raw: bytes, path: Path) -> Published:
    if hashlib.sha256(raw).hexdigest() != head["sha256"]:
        raise DataError(f"{path} is damaged: its SHA-256 is not the one in {HEAD}; publish it again")
    lines = raw.splitlines()
    if len(lines) != head["items"]:
        raise DataError(f"{path}: expected {head['items']:,} items as {HEAD} says, found {len(lines):,}")
    rows = [_item(path, number, line, head) for number, line in enumerate(lines, 1)]
    ids = tuple(one["item_id"] for one in rows)
    if len(set(ids)) < len(ids):
        raise DataError(f"{path}: expected each item once, found {len(ids) - len(set(ids))} ids again; publish it anew")
    catalog = Catalog(
        head["domain"],
        ids,
        tuple(one["title"] for one in rows),
        tuple(one["text"] for one in rows),
        {name: tuple(one["attributes"].get(name, "") for one in rows) for name in head["attributes"]},
    )
    if catalog.fingerprint != head["fingerprint"]:
        raise DataError(f"{path}: ids and texts do not have the fingerprint in {HEAD}; publish it again")
    return Published(catalog, tuple(one["group"] for one in rows) if head["groups"] else None)


def _checked(raw: bytes, path: Path) -> dict[str, Any]:
    """What catalogue.json says, field by field."""
    head = _object(raw, str(path))
    if head.get("format") != FORMAT:
        raise DataError(f"{path}: expected a catalogue of format {FORMAT}; publish it with this version")
    _text(head.get("domain"), MOST_NAME, f"{path}: domain", least=1)
    names = head.get("attributes")
    if not isinstance(names, list) or len(names) > MOST_ATTRIBUTES:
        raise DataError(f"{path}: expected a list of at most {MOST_ATTRIBUTES} names as attributes")
    for name in names:
        _text(name, MOST_NAME, f"{path}: name of an attribute", least=1)
    items = head.get("items")
    if not isinstance(items, int) or isinstance(items, bool) or not 0 < items <= MOST_ITEMS:
        raise DataError(f"{path}: expected from 1 to {MOST_ITEMS:,} items")
    if not isinstance(head.get("groups"), bool):
        raise DataError(f"{path}: expected groups to be true or false")
    for name in ("fingerprint", "sha256"):
        _text(head.get(name), MOST_NAME, f"{path}: {name}", least=1)
    return head


def _item(path: Path, number: int, line: bytes, head: dict[str, Any]) -> dict[str, Any]:
    where = f"{path}, line {number}"
    if len(line) > MOST_LINE:
        raise DataError(f"{where}: expected at most {MOST_LINE:,} bytes")
    one = _object(line, where)
    _text(one.get("item_id"), 4 * MOST_NAME, f"{where}: item_id", least=1)
    _text(one.get("title"), MOST_TITLE, f"{where}: title")
    _text(one.get("text"), MOST_TEXT, f"{where}: text")
    cells = one.get("attributes")
    if not isinstance(cells, dict) or not set(cells) <= set(head["attributes"]):
        raise DataError(f"{where}: expected attributes among those that {HEAD} names")
    for cell in cells.values():
        _text(cell, MOST_TITLE, f"{where}: an attribute")
    group = one.get("group", 0)
    if not isinstance(group, int) or isinstance(group, bool) or not 0 <= group < len(GROUPS):
        raise DataError(f"{where}: expected a group from 0 to {len(GROUPS) - 1}")
    return {**one, "group": group}


def _object(raw: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise DataError(f"{where}: expected UTF-8, found other bytes; publish it again") from None
    except (ValueError, RecursionError):
        raise DataError(f"{where}: expected a JSON object, found something else; publish it again") from None
    if not isinstance(found, dict):
        raise DataError(f"{where}: expected a JSON object, found something else; publish it again")
    return found


def _text(value: object, most: int, where: str, least: int = 0) -> None:
    """What is wrong is never quoted: it may be anything."""
    if not isinstance(value, str) or not least <= len(value) <= most:
        raise DataError(f"{where}: expected a text of {least} to {most:,} letters")
    if CONTROL.search(value):
        raise DataError(f"{where}: expected letters that show, found a control letter")
