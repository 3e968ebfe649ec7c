"""What came in while the domain was serving: events, new items, feedback, what reviewers said to it. On disk before it
is answered.

Stays at home. One JSON object a line, appended and fsynced; a line that a crash tore is cut off when the file is opened
again. The next training reads it beside the domain's files (``client.dataset.with_journal``), and so does serving.
"""

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from shared.catalog import NewItem
from shared.errors import DataError, FullError

HIDE, HARMFUL, WHY = "hide", "harmful", "why"
FEEDBACK = (HIDE, HARMFUL, WHY)
BLOCK, KEEP = "block", "keep"
DECISIONS = (BLOCK, KEEP)


@dataclass(frozen=True)
class Event:
    """Somebody did something with an item."""

    user: str
    item: str
    behavior: str
    timestamp: float  # unix seconds


@dataclass(frozen=True)
class Feedback:
    """Somebody pressed a button beside an item."""

    user: str
    item: str
    what: str  # one of FEEDBACK
    timestamp: float
    note: str = ""


@dataclass(frozen=True)
class Decision:
    """What a reviewer made of the complaints about an item so far; the last one counts."""

    item: str
    what: str  # one of DECISIONS
    timestamp: float


Entry = Event | Feedback | NewItem | Decision
KINDS: dict[str, type[Event] | type[Feedback] | type[NewItem] | type[Decision]] = {
    "event": Event,
    "feedback": Feedback,
    "item": NewItem,
    "decision": Decision,
}
NAMES = {kind: name for name, kind in KINDS.items()}
Of = TypeVar("Of", Event, Feedback, NewItem, Decision)


class Journal:
    """Appends from any thread and any process; ``entries`` are those that this process read or wrote."""

    def __init__(self, path: Path) -> None:
        """Raises DataError when the file cannot be read, or a line before the last is damaged."""
        self.path = path
        self._lock = threading.Lock()
        self.entries: list[Entry] = []
        self._left: object = None  # the file as this process left it
        self._others = False  # whether another process wrote to it
        self.reload()

    def reload(self) -> None:
        """Read the file anew. Raises DataError as at the start."""
        with self._lock, self._alone() if self.path.exists() else nullcontext():
            self._read()

    @property
    def stale(self) -> bool:
        """Whether the file holds what another process wrote and this one has not read."""
        with self._lock:
            return self._others or _mark(self.path) != self._left

    def append(self, entries: Sequence[Entry]) -> None:
        """All on disk when this returns, or none. Raises FullError when the disk will not take them."""
        lines = "".join(_line(entry) for entry in entries).encode()
        with self._lock, self._alone():
            self._others |= _mark(self.path) != self._left
            before = self.path.stat().st_size if self.path.exists() else 0
            try:
                with _opened(self.path) as file:
                    file.write(lines)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                if self.path.exists():
                    os.truncate(self.path, before)
                raise FullError(f"cannot write {self.path}: {error.strerror}; nothing was kept, free space") from None
            self.entries += entries
            self._left = _mark(self.path)

    def of(self, kind: type[Of]) -> list[Of]:
        """All entries of one kind, oldest first."""
        return [entry for entry in self.entries if isinstance(entry, kind)]

    def rewrite(self, keep: Callable[[Entry], bool]) -> int:
        """Drop the entries that are not to be kept, whoever wrote them; how many. Written aside and renamed."""
        with self._lock, self._alone():
            self._read()
            kept = [entry for entry in self.entries if keep(entry)]
            dropped = len(self.entries) - len(kept)
            if dropped:
                aside = self.path.with_suffix(".new")
                with _opened(aside) as file:
                    file.truncate(0)
                    file.write("".join(_line(entry) for entry in kept).encode())
                    file.flush()
                    os.fsync(file.fileno())
                aside.replace(self.path)
                self.entries, self._left = kept, _mark(self.path)
            return dropped

    def _read(self) -> None:
        found, whole = [], 0
        for line, entry in _lines(self.path):
            found.append(entry)
            whole += len(line)
        if self.path.exists() and self.path.stat().st_size > whole:  # a crash in the middle of the last line
            os.truncate(self.path, whole)
        self.entries, self._left, self._others = found, _mark(self.path), False

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process writes meanwhile."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _mark(path: Path) -> object:
    try:
        about = path.stat()
    except FileNotFoundError:
        return None
    return about.st_ino, about.st_size


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(handle, "ab") as file:
        yield file


def _line(entry: Entry) -> str:
    return json.dumps({"kind": NAMES[type(entry)], **asdict(entry)}, ensure_ascii=False) + "\n"


def _lines(path: Path) -> Iterator[tuple[bytes, Entry]]:
    """Each whole line and its entry."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                values = json.loads(line)
                yield line, KINDS[values.pop("kind")](**values)
            except (ValueError, KeyError, TypeError, AttributeError):
                raise DataError(f"{path}, line {number}: expected an entry of the journal; mend or remove it") from None
