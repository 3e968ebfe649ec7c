"""A catalogue to look around in, as plain values for JSON: a page of items by words, one item and its likes."""

from typing import Any

from shared.engine import Engine

ALIKE = 10


def found(engine: Engine, words: str, skip: int, k: int) -> dict[str, Any]:
    """A page of the items whose title holds all the words, in the catalogue's order, and how many there are."""
    rows = engine.search(words)
    return {"total": len(rows), "items": [brief(engine, row) for row in rows[skip : skip + k]]}


def described(engine: Engine, item: str) -> dict[str, Any]:
    """What is known of an item, by its id or title, and the items most like it. Raises UnknownError."""
    row = engine.item(item)
    return {
        **brief(engine, row),
        "text": engine.catalog.texts[row],
        "attributes": [{"column": column, "value": value} for column, value in engine.attributes.of_item[row]],
        "alike": [brief(engine, one) for one in engine.alike(row, ALIKE)],
    }


def brief(engine: Engine, row: int) -> dict[str, Any]:
    return {"item_id": engine.catalog.ids[row], "title": engine.title(row)}
