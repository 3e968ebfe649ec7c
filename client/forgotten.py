"""Who was forgotten and still stands in the owner's files: their rows count for nothing, in training and in serving.

One line for each in ``forgotten.jsonl`` at home, hashed under the home's key. Events that come in after a forgetting
count: who comes back is a new user.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from client.dataset import BLANK, Domain, Interactions, read_domain, with_journal
from client.friends import Friends
from client.journal import Entry
from client.pseudonyms import FORGOTTEN, pseudonyms
from client.store import Home
from shared.errors import DataError
from shared.whole import read_lines


@dataclass(frozen=True)
class Gone:
    """Somebody who was forgotten, under two hashes."""

    who: str
    shown: str  # as the log of what was shown has them


def read_forgotten(home: Home) -> list[Gone]:
    """Raises DataError when the file is damaged: who was forgotten must not come back by a slip."""
    try:
        return [Gone(str(one["who"]), str(one["shown"])) for one in read_lines(home.forgotten)]
    except KeyError:
        raise DataError(f"{home.forgotten}: expected two hashes in each line; restore it from a backup") from None


def read_at_home(home: Home, folder: Path, name: str | None, entries: Sequence[Entry]) -> Domain:
    """The domain's files without who was forgotten, and what came in since. Raises DataError."""
    return with_journal(without(home, read_domain(folder, name)), entries)


def without(home: Home, domain: Domain) -> Domain:
    """Who was forgotten has no id and no events any more; a place stays, for private parameters know users by it."""
    gone = {one.who for one in read_forgotten(home)}
    if not gone:
        return domain
    hashed = pseudonyms(home, FORGOTTEN)
    data = domain.interactions
    rows = [row for row, user in enumerate(data.user_ids) if hashed(user) in gone]
    if not rows:
        return domain
    blank = set(rows)
    ids = tuple(f"{BLANK}{row}" if row in blank else user for row, user in enumerate(data.user_ids))
    kept = ~np.isin(data.users, rows)
    interactions = Interactions(
        ids, data.users[kept], data.items[kept], data.behaviours[kept], data.times[kept], data.weights[kept]
    )
    friends = domain.friends
    apart = ~(np.isin(friends.sources, rows) | np.isin(friends.targets, rows))
    return replace(domain, interactions=interactions, friends=Friends(friends.sources[apart], friends.targets[apart]))
