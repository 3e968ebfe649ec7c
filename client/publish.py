"""Gives a domain's catalogue away: what anybody may see of it, and nothing of any user unless the owner says so."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from client.dataset import Domain, Interactions
from client.forgotten import read_at_home
from client.journal import Journal
from client.review import blocked
from client.rules import judge, read_rules
from client.store import Home
from shared.errors import DataError
from shared.published import Published, write_published

HEAD, KNOWN = 0.01, 0.20  # of the items: the group that is met most, and those two together
FEWEST_USERS = 20  # an item that fewer met counts as one that nobody met


def publish(
    folder: Path, name: str | None, home: Home, out: Path, popularity: bool, rules: Path | None = None
) -> tuple[Published, int]:
    """Write the catalogue of a domain's files, with the items that came in since, into ``out``; how many stay out.

    Those that a rule of the file ``rules`` (by default the home's own) strikes for any age, for who reads a published
    catalogue tells none. With ``popularity`` also each item's group. Raises DataError where files cannot be read, or
    read back, ConfigError for rules that cannot be used.
    """
    entries = Journal(home.journal).entries
    domain = read_at_home(home, folder, name, entries)
    in_force = read_rules(home.rules if rules is None else rules).with_reviewed(blocked(entries))
    rows = np.flatnonzero(judge(in_force, domain.catalog).for_all).tolist()
    if not rows:
        raise DataError(f"the rules strike every item of {domain.name}: nothing is left to publish")
    found = groups(domain) if popularity else None
    kept = None if found is None else [found[row] for row in rows]
    return write_published(out, domain.catalog.take(rows), kept), len(domain.catalog) - len(rows)


def groups(domain: Domain) -> list[int]:
    """Of each item 2 for the hundredth of the catalogue that most users met, 1 for the next nineteen, else 0.

    It tells of an item whether many met it, never how many or who; of items that fewer than FEWEST_USERS users met,
    nothing at all.
    """
    users = met_by(domain.interactions, len(domain.catalog))
    order = np.argsort(-users, kind="stable")
    place = np.empty(len(users), np.int64)
    place[order] = np.arange(len(users))
    share = place / len(users)
    found = (share < KNOWN).astype(int) + (share < HEAD)
    return [int(group) for group in np.where(users >= FEWEST_USERS, found, 0)]


def met_by(data: Interactions, items: int) -> npt.NDArray[np.int64]:
    """How many different users met each item, (items,)."""
    pairs = np.unique(np.stack([data.users, data.items]), axis=1)
    return np.bincount(pairs[1], minlength=items)
