"""A catalogue to look around in, as plain values for JSON: a page of items by words, one item and its likes."""

from typing import Any

import numpy as np
import numpy.typing as npt

from shared.engine import Engine

ALIKE = 10
Allowed = npt.NDArray[np.bool_]  # (items,) what may be shown to somebody of whom nothing is known


def found(engine: Engine, words: str, skip: int, k: int, allowed: Allowed | None = None) -> dict[str, Any]:
    """A page of the items whose title holds all the words, in the catalogue's order, and how many there are."""
    rows = [row for row in engine.search(words) if allowed is None or allowed[row]]
    return {"total": len(rows), "items": [brief(engine, row) for row in rows[skip : skip + k]]}


def described(engine: Engine, item: str, allowed: Allowed | None = None) -> dict[str, Any]:
    """What is known of an item, by its id or title, and the items most like it. Raises UnknownError."""
    row = engine.item(item)
    return {
        **brief(engine, row),
        "text": engine.catalog.texts[row],
        "attributes": [{"column": column, "value": value} for column, value in engine.attributes.of_item[row]],
        "alike": [brief(engine, one) for one in engine.alike(row, ALIKE, allowed)],
    }


def brief(engine: Engine, row: int) -> dict[str, Any]:
    return {"item_id": engine.catalog.ids[row], "title": engine.title(row)}
