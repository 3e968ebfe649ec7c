"""What is learnt from and what is asked: leave-one-out (``loo``, ``loo-99``), or one cut in time for everybody."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.dataset import Interactions
from shared.errors import ConfigError, DataError
from shared.plan import PROTOCOLS
from shared.seeding import stream

HELD_OUT = 0.1  # share of the events that lies after the cut
LEAST_EVENTS = 3  # train, validation, test
RIVALS = 99  # sampled items beside the target under loo-99
ORDER = "order: "  # how a note begins that tells what the order does not come from: readers of figures need it
OLDEST_DATE = 1e8  # unix seconds, March 1973: smaller numbers are positions, not dates

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Histories:
    """Rows of different lengths: row i is ``items[offsets[i]:offsets[i + 1]]``, oldest first."""

    offsets: Ints  # (rows + 1,)
    items: NDArray[np.int32]
    behaviours: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, place: int) -> NDArray[np.int32]:
        """Items of one row, a view."""
        return self.items[self.offsets[place] : self.offsets[place + 1]]

    def behaviour_row(self, place: int) -> NDArray[np.int8]:
        """Behaviours of one row, a view."""
        return self.behaviours[self.offsets[place] : self.offsets[place + 1]]

    def take(self, rows: Ints) -> "Histories":
        """These rows, in this order."""
        lengths = self.lengths[rows]
        offsets = _offsets(lengths)
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], lengths)
        return Histories(offsets, self.items[places], self.behaviours[places])

    @property
    def lengths(self) -> Ints:
        """Events in each row, (rows,)."""
        return np.diff(self.offsets)

    @staticmethod
    def from_lists(items: Sequence[Sequence[int]], behaviours: Sequence[Sequence[int]] | None = None) -> "Histories":
        """The same rows from plain lists; behaviours are 0 ("other") unless given."""
        flat = [item for row in items for item in row]
        kinds = [0] * len(flat) if behaviours is None else [kind for row in behaviours for kind in row]
        if len(kinds) != len(flat):
            raise DataError(f"expected a behaviour for each of {len(flat)} items, found {len(kinds)}; give one each")
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in items], dtype=np.int64)]).astype(np.int64)
        return Histories(offsets, np.array(flat, dtype=np.int32), np.array(kinds, dtype=np.int8))


@dataclass(frozen=True)
class Cases:
    """What is asked of the recommender: n histories, and what each user did next."""

    users: NDArray[np.int32]  # (n,) position in Interactions.user_ids
    histories: Histories  # n rows, the most recent events, oldest first; empty for a cold user
    targets: Histories  # n rows: one item each under loo, one or more different ones under time
    seen: Histories | None  # where the protocol strikes it: all each user of the domain had before, not capped
    rivals: Ints | None = None  # (n, 99) the only other items that compete, where the protocol samples

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: Ints) -> "Cases":
        """These cases, in this order."""
        rivals = None if self.rivals is None else self.rivals[rows]
        return Cases(self.users[rows], self.histories.take(rows), self.targets.take(rows), self.seen, rivals)


@dataclass(frozen=True)
class Split:
    """One protocol's parts. ``train`` has one row for each user of the domain."""

    protocol: str
    train: Histories  # capped to the most recent events
    valid: Cases
    test: Cases
    notes: tuple[str, ...]  # rules and counts, for people


def split(interactions: Interactions, protocol: str, max_events: int = 200) -> Split:
    """Training, validation and test parts under "loo", "loo-99" or "time".

    "loo-99" is "loo" whose target competes with 99 items only, drawn from those the user never met: for comparison
    with papers that did so, never to choose by.

    A case's history and a user's training row hold at most ``max_events`` events: the most recent ones. Raises
    ConfigError for another protocol, DataError when the data cannot be split this way.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(f"protocol: expected one of {', '.join(PROTOCOLS)}, found {protocol!r}")
    rules = {"loo": _leave_one_out, "time": _by_time, "loo-99": _leave_one_out_99}
    return rules[protocol](interactions, max_events)


def _leave_one_out(data: Interactions, max_events: int) -> Split:
    """Each user's last event is the test target, the one before it the validation target, the rest is learnt from."""
    starts, stops = _bounds(data)
    users = np.flatnonzero(stops - starts >= LEAST_EVENTS)
    if not users.size:
        raise DataError(
            f"protocol loo: expected a user with at least {LEAST_EVENTS} interactions, found none among "
            f"{len(starts):,} users; bring more interactions"
        )
    known = stops.copy()
    known[users] -= 2

    def ask(back: int) -> Cases:
        last = stops[users] - back
        histories = _gather(data, np.maximum(starts[users], last - max_events), last)
        return Cases(users.astype(np.int32), histories, _gather(data, last, last + 1), seen=None)

    short = len(starts) - users.size
    notes = (
        f"loo: the last event of {users.size:,} users is the test target, the last but one the validation target",
        f"loo: {short:,} users with fewer than {LEAST_EVENTS} events are learnt from, not asked",
        "loo: seen items are not masked",
        *_order_note(data),
    )
    train = _gather(data, np.maximum(starts, known - max_events), known)
    return Split("loo", train, ask(2), ask(1), notes)


def _leave_one_out_99(data: Interactions, max_events: int) -> Split:
    """Leave-one-out with a sampled ranking; validation stays full."""
    full = _leave_one_out(data, max_events)
    met = np.unique(data.items)  # what nobody ever met would be no rival
    starts, stops = _bounds(data)
    draw = stream(0, "loo-99")  # the same for every seed: it belongs to the protocol
    rivals = np.empty((len(full.test), RIVALS), np.int64)
    for place, user in enumerate(full.test.users):
        open_items = np.setdiff1d(met, data.items[starts[user] : stops[user]])
        if len(open_items) < RIVALS:
            raise DataError(
                f"protocol loo-99: expected {RIVALS} items that a user never met, found {len(open_items)}; use loo"
            )
        rivals[place] = draw.choice(open_items, RIVALS, replace=False)
    notes = (
        *full.notes,
        f"loo-99: the test target is ranked among {RIVALS} sampled items: NOT comparable with full ranking",
    )
    return replace(full, protocol="loo-99", test=replace(full.test, rivals=rivals), notes=notes)


def _order_note(data: Interactions) -> tuple[str, ...]:
    """What is said when the order does not come from time alone."""
    unknown = int(np.isnan(data.times).sum())
    if unknown == len(data):
        return (f"{ORDER}no time is known; what was read later counts as later",)
    if unknown:
        return (f"{ORDER}{unknown:,} events of unknown time count as each user's oldest",)
    return ()


def _by_time(data: Interactions, max_events: int) -> Split:
    """One cut for everybody: learn from before the validation cut, choose before the test cut, ask after it."""
    dated = _dated(data)
    test_cut = float(np.quantile(dated.times, 1 - HELD_OUT))
    earlier = dated.times[dated.times < test_cut]
    valid_cut = float(np.quantile(earlier, 1 - HELD_OUT)) if earlier.size else test_cut
    valid = _after(dated, valid_cut, test_cut, max_events)
    test = _after(dated, test_cut, np.inf, max_events)
    starts, known = _until(dated, valid_cut)
    if not (len(valid) and len(test) and known.sum() > starts.sum()):
        raise DataError(
            f"protocol time: expected events on both sides of the cuts, found {len(valid):,} users to validate and "
            f"{len(test):,} to test on from {len(dated):,} events; bring more, or use --protocol loo"
        )
    notes = (
        f"time: learnt from before {_date(valid_cut)}, validated until {_date(test_cut)}, tested after it",
        f"time: {len(test):,} users are asked, {int((test.histories.lengths == 0).sum()):,} of them without a history",
        "time: seen items are masked; targets are the different items that a user did not have before",
        *([f"time: {len(data) - len(dated):,} events of unknown time dropped"] if len(dated) < len(data) else []),
    )
    train = _gather(dated, np.maximum(starts, known - max_events), known)
    return Split("time", train, valid, test, notes)


def dated(data: Interactions) -> bool:
    """Whether every event has a date, and not its position alone."""
    return bool(np.isfinite(data.times).all()) and float(data.times.max()) >= OLDEST_DATE


def _dated(data: Interactions) -> Interactions:
    """The events whose time is known. Raises DataError when there are no dates to cut at."""
    keep = np.isfinite(data.times)
    if not keep.any():
        raise DataError("protocol time: expected timestamps, found none; use --protocol loo")
    if float(data.times[keep].max()) < OLDEST_DATE:
        raise DataError("protocol time: expected unix seconds, found positions in a history; use --protocol loo")
    return Interactions(
        data.user_ids,
        data.users[keep],
        data.items[keep],
        data.behaviours[keep],
        data.times[keep],
        data.weights[keep],
    )


def _after(data: Interactions, cut: float, end: float, max_events: int) -> Cases:
    """One case for each user who met something new in [cut, end): the first event with each new item, in order."""
    starts, stops = _until(data, cut)
    keys = data.users.astype(np.int64) * (int(data.items.max()) + 1) + data.items
    window = np.flatnonzero((data.times >= cut) & (data.times < end))
    _, first = np.unique(keys[window], return_index=True)
    window = window[np.sort(first)]
    window = window[~np.isin(keys[window], keys[data.times < cut])]
    users, counts = np.unique(data.users[window], return_counts=True)
    targets = Histories(_offsets(counts), data.items[window], data.behaviours[window])
    histories = _gather(data, np.maximum(starts, stops - max_events)[users], stops[users])
    return Cases(users.astype(np.int32), histories, targets, seen=_gather(data, starts, stops))


def _bounds(data: Interactions) -> tuple[Ints, Ints]:
    """Where each user's events begin and end, (users,) each."""
    offsets = _offsets(np.bincount(data.users, minlength=len(data.user_ids)))
    return offsets[:-1], offsets[1:]


def _until(data: Interactions, cut: float) -> tuple[Ints, Ints]:
    """Where each user's events begin and where those before the cut end; needs known times, sorted."""
    starts, _ = _bounds(data)
    return starts, starts + np.bincount(data.users[data.times < cut], minlength=len(starts))


def _gather(data: Interactions, starts: Ints, stops: Ints) -> Histories:
    """Rows ``starts[i]:stops[i]`` of the events, end to end."""
    offsets = _offsets(stops - starts)
    places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], stops - starts)
    return Histories(offsets, data.items[places], data.behaviours[places])


def _offsets(lengths: NDArray[Any]) -> Ints:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(max(seconds, -6e10), UTC).strftime("%Y-%m-%d %H:%M")
