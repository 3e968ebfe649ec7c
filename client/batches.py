"""User histories as padded batches."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from client.splits import Histories
from shared.model import Batch

SPAN = 2**32  # more than there are items: a row and an item in one number
POOL = 16  # batches that are sorted by length together: little padding, still random


def pad(histories: Histories, rows: npt.NDArray[np.int64], users: npt.NDArray[np.integer[Any]], longest: int) -> Batch:
    """Rows side by side, each cut to its ``longest`` most recent events; an empty row keeps one masked event."""
    ends = histories.offsets[rows + 1]
    lengths = np.minimum(ends - histories.offsets[rows], longest)
    width = max(int(lengths.max(initial=0)), 1)
    columns = np.arange(width)
    mask = columns < lengths[:, None]
    index = np.where(mask, (ends - lengths)[:, None] + columns, 0)
    if len(histories.items) == 0:
        items = behaviours = np.zeros_like(index)
    else:
        items = np.where(mask, histories.items[index], 0)
        behaviours = np.where(mask, histories.behaviours[index], 0)
    return Batch(
        torch.from_numpy(users.astype(np.int64)),
        torch.from_numpy(items.astype(np.int64)),
        torch.from_numpy(behaviours.astype(np.int64)),
        torch.from_numpy(mask),
    )


def met_before(histories: Histories, rows: npt.NDArray[np.int64], longest: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each (place among ``rows``, item) such that the item stands in that row, but not in what ``pad`` leaves of it,
    once."""
    ends = histories.offsets[rows + 1]
    lengths = ends - histories.offsets[rows]

    def keys(stops: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        owner = np.repeat(np.arange(len(rows)), counts)
        event = np.arange(len(owner)) + np.repeat(stops - np.cumsum(counts), counts)
        return owner * SPAN + histories.items[event]

    kept = np.minimum(lengths, longest)
    older = np.setdiff1d(keys(ends - kept, lengths - kept), keys(ends, kept))
    return torch.from_numpy(older // SPAN), torch.from_numpy(older % SPAN)


class Windows(NamedTuple):
    """Rows to learn from."""

    rows: Histories
    users: npt.NDArray[np.int64]  # (rows,) whose they are
    opening: npt.NDArray[np.bool_]  # (rows,) whether a row begins where its user's history does


def windows(histories: Histories, longest: int) -> Windows:
    """Cut long histories into overlapping rows of at most ``longest + 1`` events.

    A row's first event is only ever an input, so neighbours share one event and each later event is
    predicted once. Rows of fewer than two events teach nothing and are left out.
    """
    starts: list[int] = []
    ends: list[int] = []
    users: list[int] = []
    lengths = np.diff(histories.offsets)
    for user in np.flatnonzero(lengths >= 2):
        first, end = int(histories.offsets[user]), int(histories.offsets[user + 1])
        while end - first >= 2:
            start = max(first, end - longest - 1)
            starts.append(start)
            ends.append(end)
            users.append(int(user))
            end = start + 1
    index = np.concatenate([np.arange(a, b) for a, b in zip(starts, ends, strict=True)] or [np.zeros(0, np.int64)])
    offsets = np.concatenate([[0], np.cumsum(np.array(ends) - np.array(starts))]).astype(np.int64)
    rows = Histories(offsets, histories.items[index], histories.behaviours[index])
    whose = np.array(users, dtype=np.int64)
    return Windows(rows, whose, np.array(starts, dtype=np.int64) == histories.offsets[whose])


def shuffled(
    lengths: npt.NDArray[np.int64], size: int, most_events: int, draw: np.random.Generator
) -> list[npt.NDArray[np.int64]]:
    """One epoch: every row once, in random batches of rows of like length.

    A batch has at most ``size`` rows and, where it has more than one, at most ``most_events`` events after
    padding: that bounds the scores held at a time.
    """
    order = draw.permutation(len(lengths))
    batches: list[npt.NDArray[np.int64]] = []
    for start in range(0, len(order), size * POOL):
        pool = order[start : start + size * POOL]
        pool = pool[np.argsort(lengths[pool], kind="stable")][::-1]  # longest first: it sets the padding
        while len(pool):
            fit = min(size, max(1, most_events // max(int(lengths[pool[0]]), 1)))
            batches.append(pool[:fit])
            pool = pool[fit:]
    return [batches[place] for place in draw.permutation(len(batches))]


def in_order(count: int, size: int) -> Iterator[npt.NDArray[np.int64]]:
    """Blocks of row numbers, for evaluation."""
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))


def interleave(parts: Sequence[int], draw: np.random.Generator) -> list[int]:
    """Which domain's batch comes next, in proportion: ``[2, 1]`` -> e.g. ``[0, 1, 0]``."""
    return [int(part) for part in draw.permutation(np.repeat(np.arange(len(parts)), parts))]
