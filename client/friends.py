"""Who is whose friend (``NAME.net``: ``source_id, target_id``), and what friends met. Stays at home.

Of friends nothing is told but how many met an item, and only where at least MIN_FRIENDS did and not all: no single
friend's doings can be read off it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shared.explanation import FriendsMet
from shared.tables import Report, first_of_each, problem, read_table

MIN_FRIENDS = 3

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Friends:
    """Pairs (source, target) of users' rows, sorted by source; a friendship counts from whom it is told."""

    sources: Rows
    targets: Rows

    def of(self, user: int) -> Rows:
        return self.targets[np.searchsorted(self.sources, user) : np.searchsorted(self.sources, user, side="right")]


NOBODY = Friends(np.empty(0, np.int64), np.empty(0, np.int64))


def read_friends(path: Path, user_ids: tuple[str, ...]) -> tuple[Friends, tuple[Report, ...]]:
    """Of one file (``client.dataset.beside`` says which). Raises DataError for one that cannot be used."""
    table = read_table(path, ("source_id", "target_id"))
    columns = ("source_id", "target_id")
    missing = table.missing("source_id") | table.missing("target_id")
    damaged = ~missing & (table.damaged("source_id") | table.damaged("target_id"))
    again = ~first_of_each(*(table.codes(column)[0] for column in columns)) & ~missing & ~damaged
    sources, targets = (table.codes(column, user_ids)[0].astype(np.int64) for column in columns)
    whole = ~(missing | damaged | again)
    unknown = whole & ((sources < 0) | (targets < 0))
    self_made = whole & ~unknown & (sources == targets)
    kept = np.flatnonzero(whole & ~unknown & ~self_made)
    problems = (
        *table.problems,
        *problem("user id missing", "dropped", table.lines[missing]),
        *problem("user id that is not UTF-8", "dropped", table.lines[damaged]),
        *problem("row given again", "kept once", table.lines[again]),
        *problem("user without interactions", "dropped", table.lines[unknown]),
        *problem("friendship with oneself", "dropped", table.lines[self_made]),
    )
    kept = kept[np.argsort(sources[kept], kind="stable")]
    return Friends(sources[kept], targets[kept]), (Report(path.name, table.rows_read, len(kept), problems),)


def friends_met(friends: Friends, met_by: Rows, user: int) -> FriendsMet | None:
    """Of an item that these users met; None where too few friends did, or all."""
    mine = friends.of(user)
    met = int(np.isin(mine, met_by).sum())
    return FriendsMet(met, len(mine)) if MIN_FRIENDS <= met < len(mine) else None
