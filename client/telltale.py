"""What gives away what is held out, taken from what is learnt: order that is none, ways back, undated twins.

A file that has each user's events sorted by item tells the last one by its number. Of two friends each stands in the
other's list. Of an artist whom somebody tagged, "listened to, some time" may be later than the tag.
"""

import hashlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from client.dataset import Domain, Interactions
from client.splits import LEAST_EVENTS, ORDER, Split, split
from shared.catalog import Catalog
from shared.plan import Plan

MUTUAL = 0.5  # share of the events whose way back is there, from which on items are taken for the users themselves
LEAST_TIES, IN_ORDER = 50, 0.9  # of so many pairs of one age so large a share rises: the file is sorted by item

AS_IT_IS = "it tells what is held out, and is left so under a promise to users: figures are not to be trusted"

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


def split_of(domain: Domain, protocol: str, plan: Plan) -> Split:
    """``client.splits.split`` of what does not tell its targets; notes say what was done. Same errors.

    A cut in time needs none of it: what was done before the cut was known at the cut, and undated events are dropped.
    Under a promise to users what is learnt of one may not hang on what others did, so there nothing is changed, and a
    note says that figures are not to be believed.
    """
    if protocol == "time":
        return split(domain.interactions, protocol, plan.train.user_events)
    data, notes = without_telltales(domain)
    if plan.private and notes:
        data, notes = domain.interactions, (f"{ORDER}{AS_IT_IS}",)
    found = split(data, protocol, plan.train.user_events)
    return replace(found, notes=(*found.notes, *notes))


def without_telltales(domain: Domain) -> tuple[Interactions, tuple[str, ...]]:
    """What may be learnt from and asked, and what was done about it; users keep their numbers, also those of whom
    nothing is left."""
    data, notes = domain.interactions, []
    if sorted_by_item(data):
        notes.append(f"{ORDER}events of one age are sorted by item in the file; put in an order drawn once")
        data = _take(data, np.lexsort((_draws(data, domain.catalog), _ages(data), data.users)))
    kept = untold(data, domain.catalog)
    if not kept.all():
        left_out = f"{int((~kept).sum()):,} events that would tell what is held out (its way back, its undated twin)"
        notes.append(f"{ORDER}{left_out} are left out")
        data = _take(data, np.flatnonzero(kept))
    return data, tuple(notes)


def sorted_by_item(data: Interactions) -> bool:
    """Whether users' events of one age follow the catalogue, up or down: the last is then known by its number."""
    ages = _ages(data)
    tied = (data.users[1:] == data.users[:-1]) & (ages[1:] == ages[:-1])
    rises = (data.items[1:] > data.items[:-1])[tied]
    return len(rises) >= LEAST_TIES and not 1 - IN_ORDER < float(rises.mean()) < IN_ORDER


def untold(data: Interactions, catalog: Catalog) -> Mask:
    """Which events stay, (n,): none that is the way back of a held-out one, or the same item at an unknown time."""
    pairs = data.users.astype(np.int64) * len(catalog) + data.items
    back, undated = _ways_back(data, catalog), np.isnan(data.times)
    mutual = np.isin(back, pairs).mean() >= MUTUAL
    kept = np.ones(len(data), dtype=bool)
    if not mutual and not undated.any():
        return kept
    back = back if mutual else np.full_like(back, -1)
    while True:  # who has too few events left is not asked any more, and tells then what others are asked
        held = _held_out(data, kept)
        tells = np.isin(pairs, back[held]) | (undated & np.isin(pairs, pairs[held]))
        if not (tells := tells & kept & ~held).any():
            return kept
        kept &= ~tells


def _ways_back(data: Interactions, catalog: Catalog) -> Ints:
    """Of "u meets i", where i has the id of a user and u that of an item: "i meets u" as a pair; else -1. (n,)"""
    user_of = {user: row for row, user in enumerate(data.user_ids)}
    users = np.array([user_of.get(item, -1) for item in catalog.ids], np.int64)[data.items]
    items = np.array([catalog.row.get(user, -1) for user in data.user_ids], np.int64)[data.users]
    return np.where((users >= 0) & (items >= 0), users * len(catalog) + items, -1)


def _held_out(data: Interactions, kept: Mask) -> Mask:
    """Each asked user's last two events, of those that are kept, (n,)."""
    places = np.flatnonzero(kept)
    users = data.users[places]
    counts = np.bincount(users, minlength=len(data.user_ids))
    from_end = np.cumsum(counts)[users] - np.arange(len(places))  # 1 for a user's last
    held = np.zeros(len(data), dtype=bool)
    held[places[(from_end <= 2) & (counts[users] >= LEAST_EVENTS)]] = True
    return held


def _draws(data: Interactions, catalog: Catalog) -> NDArray[np.uint64]:
    """A number for each event, (n,), by its user and item alone: whatever else comes or goes, two keep their order, so
    that what a round learnt from is not what the next one validates on. The same for every seed."""
    pairs = (
        "\0".join((data.user_ids[user], catalog.ids[item])) for user, item in zip(data.users, data.items, strict=True)
    )
    raw = (hashlib.blake2b(pair.encode("utf-8", "surrogatepass"), digest_size=8).digest() for pair in pairs)
    return np.frombuffer(b"".join(raw), "<u8")


def _ages(data: Interactions) -> NDArray[np.float64]:
    return np.where(np.isnan(data.times), -np.inf, data.times)


def _take(data: Interactions, rows: Ints) -> Interactions:
    return Interactions(
        data.user_ids, data.users[rows], data.items[rows], data.behaviours[rows], data.times[rows], data.weights[rows]
    )
