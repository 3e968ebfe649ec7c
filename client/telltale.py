"""Events that give away what is held out: of a mutual link its way back, of an item the event whose time nobody knows.

Of two friends each stands in the other's list; of an artist whom somebody tagged, "listened to, some time" may be later
than the tag. Who learns from the one has been told the other.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from client.dataset import Domain, Interactions
from client.splits import LEAST_EVENTS, Split, split

MUTUAL = 0.5  # share of the events whose way back is there, from which on items are taken for the users themselves

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


def split_of(domain: Domain, protocol: str, max_events: int = 200) -> Split:
    """``client.splits.split`` without the events that would tell its targets; its notes say how many. Same errors.

    A cut in time needs none of it: what was done before the cut was known at the cut, and undated events are dropped.
    """
    if protocol == "time":
        return split(domain.interactions, protocol, max_events)
    data = without_telltales(domain)
    found = split(data, protocol, max_events)
    left_out = len(domain.interactions) - len(data)
    told = f"order: {left_out:,} events that would tell what is held out (its way back, its undated twin) are left out"
    return replace(found, notes=(*found.notes, told)) if left_out else found


def without_telltales(domain: Domain) -> Interactions:
    """What may be learnt from and asked; users keep their numbers, also those of whom nothing is left."""
    data, kept = domain.interactions, untold(domain)
    return Interactions(
        data.user_ids, data.users[kept], data.items[kept], data.behaviours[kept], data.times[kept], data.weights[kept]
    )


def untold(domain: Domain) -> Mask:
    """Which events stay, (n,): none that is the way back of a held-out one, or the same item at an unknown time."""
    data = domain.interactions
    width = len(domain.catalog)
    pairs = data.users.astype(np.int64) * width + data.items
    back = _ways_back(domain)
    back = back if np.isin(back, pairs).mean() >= MUTUAL else np.full_like(back, -1)
    undated = np.isnan(data.times)
    kept = np.ones(len(data), dtype=bool)
    while True:  # who has too few events left is not asked any more, and tells then what others are asked
        held = _held_out(data, kept)
        tells = np.isin(pairs, back[held]) | (undated & np.isin(pairs, pairs[held]))
        if not (tells := tells & kept & ~held).any():
            return kept
        kept &= ~tells


def _ways_back(domain: Domain) -> Ints:
    """Of "u meets i", where i has the id of a user and u that of an item: "i meets u" as a pair; else -1. (n,)"""
    data = domain.interactions
    user_of = {user: row for row, user in enumerate(data.user_ids)}
    users = np.array([user_of.get(item, -1) for item in domain.catalog.ids], np.int64)[data.items]
    items = np.array([domain.catalog.row.get(user, -1) for user in data.user_ids], np.int64)[data.users]
    return np.where((users >= 0) & (items >= 0), users * len(domain.catalog) + items, -1)


def _held_out(data: Interactions, kept: Mask) -> Mask:
    """Each asked user's last two events, of those that are kept, (n,)."""
    places = np.flatnonzero(kept)
    users = data.users[places]
    counts = np.bincount(users, minlength=len(data.user_ids))
    from_end = np.cumsum(counts)[users] - np.arange(len(places))  # 1 for a user's last
    held = np.zeros(len(data), dtype=bool)
    held[places[(from_end <= 2) & (counts[users] >= LEAST_EVENTS)]] = True
    return held
