"""Privacy spending as immutable events: epsilon is computed from them, never stored instead of them."""

import fcntl
import json
import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shared.errors import BudgetError, DataError
from shared.whole import sync

WIDEST = 1e9  # beyond it, or below one in so many, nobody means a number


@dataclass(frozen=True)
class GaussianSteps:
    """What an accountant must know, and nothing else. Never delete or redefine a field."""

    noise_multiplier: float  # noise std / clip norm
    sample_rate: float  # Poisson probability that a user joins a step
    steps: int
    unit: str = "user"  # neighbouring data sets differ in one user of this domain
    run: str = ""  # a digest of the plan that asked for it; "" in ledgers of before
    task: str = ""  # a digest of all that was asked, likewise


@dataclass(frozen=True)
class TokenRelease:
    """A taste passport: pure epsilon-DP (delta 0), paid by one user alone."""

    epsilon: float  # of all codes of the token together
    mechanism: str
    unit: str = "user"
    user: str = ""  # a hash under a key that stays at home, so that one user's tokens add up; "" = may be anyone


@dataclass(frozen=True)
class PlainRelease:
    """Something learnt from users that left without noise: no epsilon bounds it, nor all releases together."""

    released: str  # what it was
    unit: str = "user"


Event = GaussianSteps | TokenRelease | PlainRelease


_held = threading.local()  # .locks: what this thread has reserved, and need not wait for


@contextmanager
def reserved(path: Path) -> Iterator[None]:
    """Nobody else spends between what is read in this block and what it writes, in whatever process. A block within a
    block of the same file is part of it."""
    lock, mine = path.with_suffix(".lock"), _held.__dict__.setdefault("locks", set())
    if lock in mine:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(lock, os.O_RDWR | os.O_CREAT, 0o600), "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        mine.add(lock)
        try:
            yield
        finally:
            mine.discard(lock)


def append_event(path: Path, event: Event) -> None:
    """Write one event and have it on the disk before returning: the release comes after.

    Waits for whoever has the ledger reserved: a forgetting writes all of it anew. Raises BudgetError, and writes
    nothing, for what could not be read back.
    """
    try:
        _event(asdict(event))
    except (ValueError, TypeError, OverflowError):
        raise BudgetError("a release with these numbers cannot be counted; change the settings of privacy") from None
    with reserved(path):
        append_line(path, asdict(event))


def append_line(path: Path, value: dict[str, Any]) -> None:
    """One JSON object at the end of a file, on the disk before returning; one writer at a time.

    What a writer left unfinished when it was stopped is cut off: whatever that was to precede never happened.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    # What is written tells of users, if only under pseudonyms: for the owner's eyes.
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        whole = _whole(file.read())
        file.truncate(len(whole))
        file.seek(0, os.SEEK_END)
        file.write(b"\n" if whole and not whole.endswith(b"\n") else b"")
        file.write(json.dumps(value).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    if new:
        sync(path.parent)  # the file's name is to last too


def on_disk(path: Path) -> None:
    """Have on the disk what a process wrote that may have been killed before it had."""
    for part in (path, path.parent):
        sync(part)


def _whole(raw: bytes) -> bytes:
    """All but what was torn off in the writing: a last line that neither ends nor can be read."""
    end = raw.rfind(b"\n") + 1
    try:
        json.loads(raw[end:] or b"0")
        return raw
    except (ValueError, RecursionError):
        return raw[:end]


def read_events(path: Path) -> tuple[Event, ...]:
    """All events of a ledger; none where there is no file yet.

    A line that was torn off in the writing counts for nothing: the release that it was to precede never came.
    Raises DataError on any other line that is no event: what is not understood cannot be counted, so nothing more
    may be spent.
    """
    if not path.exists():
        return ()
    events = []
    for number, line in enumerate(_whole(path.read_bytes()).splitlines(), 1):
        try:
            events.append(_event(json.loads(line)))
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise DataError(
                f"{path}, line {number}: expected a privacy event, found something else; "
                "restore the ledger from a backup before training on"
            ) from None
    return tuple(events)


def _event(fields: Any) -> Event:
    """Raises ValueError or TypeError on what is no event. Each kind is known by a field that only it has."""
    if isinstance(fields, dict) and "mechanism" in fields:
        token = TokenRelease(**fields)
        texts = all(isinstance(text, str) for text in (token.mechanism, token.unit, token.user))
        if not (texts and math.isfinite(token.epsilon) and token.epsilon > 0):
            raise ValueError
        return token
    if isinstance(fields, dict) and "released" in fields:
        plain = PlainRelease(**fields)
        if not (isinstance(plain.released, str) and isinstance(plain.unit, str)):
            raise ValueError
        return plain
    steps = GaussianSteps(**fields)
    counted = 1 / WIDEST <= steps.noise_multiplier <= WIDEST and 0 < steps.sample_rate <= 1 and type(steps.steps) is int
    counted = counted and 0 < steps.steps <= WIDEST
    if not (counted and isinstance(steps.run, str) and isinstance(steps.task, str)):
        raise ValueError
    return steps
