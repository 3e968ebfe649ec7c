"""Attributes of items, as a person would name them: genre "Comedy", brand "Yamaha", tag "ambient"."""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shared.catalog import Catalog

Rows = npt.NDArray[np.int64]
SEPARATORS = re.compile(r"\s*[,;|]\s*")
MOST_WORDS = 200  # different words of a column whose words are values of their own


@dataclass(frozen=True)
class Attributes:
    """(column, value) -> rows of the items that have it, and back."""

    rows: Mapping[tuple[str, str], Rows]
    of_item: tuple[tuple[tuple[str, str], ...], ...]  # (items,)

    def having(self, column: str, value: str) -> Rows:
        """Rows of the items with that value, case aside; none for one nobody knows."""
        return self.rows.get((column, value.casefold()), np.empty(0, np.int64))

    @property
    def columns(self) -> list[str]:
        return sorted({column for column, _ in self.rows})

    def common(self, column: str, most: int) -> list[tuple[str, int]]:
        """The values of a column that most items have, and how many have each."""
        named = {(c, value.casefold()): value for row in self.of_item for c, value in row if c == column}
        counts = [(value, len(self.rows[key])) for key, value in named.items()]
        return sorted(counts, key=lambda pair: (-pair[1], pair[0]))[:most]


def read_attributes(catalog: Catalog) -> Attributes:
    """From the catalogue's columns beside the title. A value that one item alone has joins nothing and is left out."""
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    names: dict[tuple[str, str], str] = {}
    for column, cells in catalog.columns.items():
        for row, values in enumerate(values_of(cells)):
            for value in values:
                key = (column, value.casefold())
                if found[key][-1:] != [row]:  # in one cell "Drama, drama" is one value
                    found[key].append(row)
                names.setdefault(key, value)
    rows = {key: np.array(of, np.int64) for key, of in found.items() if len(of) > 1}
    of_item: list[list[tuple[str, str]]] = [[] for _ in range(len(catalog))]
    for key, of in rows.items():
        for row in of:
            of_item[row].append((key[0], names[key]))
    return Attributes(rows, tuple(tuple(one) for one in of_item))


def values_of(cells: tuple[str, ...]) -> list[list[str]]:
    """Of each cell. Commas, semicolons and bars part values; without any, words do where a column has few different."""
    filled = [cell for cell in cells if cell]
    if any(SEPARATORS.search(cell) for cell in filled):
        return [[value for value in SEPARATORS.split(cell) if value] for cell in cells]
    words = {word for cell in filled for word in cell.split()}
    if len(words) <= MOST_WORDS and len(words) < len(set(filled)):
        return [cell.split() for cell in cells]
    return [[cell] if cell else [] for cell in cells]
