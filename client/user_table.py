"""Groups of users by the attributes that a domain's own file has: ``NAME.user``, or users.csv, or users.parquet."""

import numpy as np

from client.dataset import Domain
from shared.tables import read_table

MOST_GROUPS = 12  # values of a column that still make groups
BANDS = 4


def read_groups(domain: Domain) -> dict[str, dict[str, str]]:
    """Column -> user id -> group: values of a text column with few of them, quarters of a column of numbers.

    Empty where there is no such file. Raises DataError for one that cannot be used.
    """
    paths = domain.beside.attributes
    if not paths:
        return {}
    table = read_table(paths[0], ("user_id",))
    users, found = table.texts("user_id"), {}
    for column, kind in table.types.items():
        if column == "user_id":
            continue
        cells = table.texts(column)
        if len({cell for cell in cells if cell}) > MOST_GROUPS:
            if kind != "number":
                continue
            cells = _bands(table.numbers(column)[0])
        if len(set(cells)) > 1:
            found[column] = dict(zip(users, cells, strict=True))
    return found


def _bands(values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> list[str]:
    """Quarters, each named by where it begins; "" for no number."""
    known = values[np.isfinite(values)]
    edges = np.unique(np.quantile(known, np.arange(BANDS) / BANDS)) if len(known) else known
    place = np.searchsorted(edges, values, side="right") - 1
    return [f"from {edges[at]:g}" if np.isfinite(value) else "" for at, value in zip(place, values, strict=True)]
