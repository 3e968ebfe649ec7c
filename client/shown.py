"""An append-only log of what was shown to whom: each record holds the hash of the one before, so none can be changed,
taken out or put in unnoticed.

Users stand in it under a local key; items in clear: they are the public catalogue's, and who audits must read them. A
user who is forgotten leaves records without content: their hashes stay, and the chain with them. Old segments are
dropped whole; the last hash of what was dropped is kept.
"""

import fcntl
import hashlib
import json
import os
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from shared.errors import DataError
from shared.whole import write_whole

START = "0" * 64  # the hash before the first record
SEGMENT_BYTES = 4 * 2**20
LOG_BYTES = 64 * 2**20  # some 150,000 answers of ten items
WAITING = 20_000  # records that may wait for the writer: some 10 MB, a minute and more at 200 a second
AT_ONCE = 500
LINGER_S = 0.5  # a crash loses what was shown in it, and what the disk had not taken


@dataclass(frozen=True)
class Record:
    """One line of the log. Its hash covers its number, the hash before and that of its content, salted: the content
    can go without a guess at what it was."""

    number: int
    previous: str
    content: str  # SHA-256 of the body
    body: Mapping[str, Any] | None  # None: of somebody who was forgotten

    @property
    def hash(self) -> str:
        return _sha(f"{self.number} {self.previous} {self.content}")

    def line(self) -> bytes:
        return _json({"n": self.number, "previous": self.previous, "content": self.content, "body": self.body}) + b"\n"


@dataclass(frozen=True)
class Checked:
    """What a check of the chain found."""

    records: int
    emptied: int  # without content
    first: int  # number of the oldest record that is still there
    last: int
    head: str  # hash of the last one
    broken: str = ""  # what is wrong with the first bad record; "" where none is


@dataclass
class _End:
    """Where the chain ends, as this process knows it."""

    file: Path
    size: int
    number: int
    head: str


class ShownLog:
    """Appends from any process; one at a time."""

    def __init__(self, folder: Path, most_bytes: int = LOG_BYTES, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder, self.most_bytes, self.segment_bytes = folder, most_bytes, segment_bytes
        self._end: _End | None = None

    def append(self, bodies: Sequence[Mapping[str, Any]]) -> None:
        """Raises OSError where the disk will not take them; then none is in the chain."""
        with self._alone():
            self._append(bodies)

    def _append(self, bodies: Sequence[Mapping[str, Any]]) -> None:
        end = self._ending()
        lines = []
        number, head = end.number, end.head
        for body in bodies:
            salted = {**body, "salt": secrets.token_hex(16)}
            record = Record(number + 1, head, _sha_of(salted), salted)
            number, head = record.number, record.hash
            lines.append(record.line())
        raw = b"".join(lines)
        try:
            with end.file.open("r+b") as file:
                file.seek(end.size)
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            os.truncate(end.file, end.size)  # the file is closed: nothing of them waits to be written
            raise
        self._end = _End(end.file, end.size + len(raw), number, head)
        if self._end.size > self.segment_bytes:
            with suppress(OSError):  # these are in the chain; the next ones try again
                self._begin_segment()

    def records(self) -> Iterator[Record]:
        """Oldest first. Raises DataError at the first line that is none."""
        for path in self.segments():
            try:
                lines = _whole(path).splitlines()
            except FileNotFoundError:  # dropped meanwhile
                continue
            for number, line in enumerate(lines[1:], 2):
                yield _record(line, path, number)

    def segments(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.jsonl"))

    def empty(self, mine: Callable[[Mapping[str, Any]], bool]) -> int:
        """Take the content out of the records that are ``mine``; how many. Their hashes stay, so the chain holds.

        That it was done, and how often, is a record of its own, written before: who finds more emptied records than
        were told of knows that somebody else did it. May be stopped anywhere and done again.
        """
        if not self.segments():
            return 0
        with self._alone():
            found = sum(1 for record in self.records() if record.body is not None and mine(record.body))
            if not found:
                return 0
            self._append([{"kind": "forgotten", "at": round(time.time(), 3), "records": found}])
            for path in self.segments():
                head, *lines = _whole(path).splitlines(keepends=True)
                records = [_record(line, path, number) for number, line in enumerate(lines, 2)]
                kept = [_emptied(record, mine) for record in records]
                if kept != records:
                    write_whole(path, head + b"".join(record.line() for record in kept))
            self._end = None
        return found

    def check(self, known: Mapping[int, str] = {}) -> Checked:
        """Walk the chain. ``known`` (number -> hash) are heads that earlier audits saw: they must be in it still."""
        with self._alone():
            return self._check(known)

    def _check(self, known: Mapping[int, str]) -> Checked:
        count = emptied = told = 0
        segments = self.segments()
        if not segments:
            broken = f"record {max(known)} and all others are gone" if known else ""
            return Checked(0, 0, 0, 0, START, broken)
        anchor = self._anchor()
        first, head, number = int(anchor["number"]) + 1, str(anchor["head"]), int(anchor["number"])
        for path in segments:
            lines = _whole(path).splitlines()
            about = _loads(lines[0]) if lines else None
            if isinstance(about, dict) and count == 0 and about.get("after", number) < number:
                continue  # the anchor has passed it, a crash left it there
            if about != {"after": number, "head": head}:
                return Checked(count, emptied, first, number, head, f"record {number + 1}: {path.name} does not follow")
            for place, line in enumerate(lines[1:], 2):
                try:
                    record = _record(line, path, place)
                except DataError:
                    return Checked(count, emptied, first, number, head, f"record {number + 1} cannot be read")
                wrong = _wrong(record, number, head, known)
                if wrong:
                    return Checked(count, emptied, first, number, head, f"record {number + 1} {wrong}")
                number, head, count = record.number, record.hash, count + 1
                emptied += record.body is None
                if record.body is not None and record.body.get("kind") == "forgotten":
                    told += int(record.body["records"])
        broken = ""
        if known and max(known) > number:
            broken = f"record {number + 1} and those behind it are gone: an audit saw {max(known)}"
        elif emptied > told:
            broken = f"{emptied} records are without content, the forgetting of {told} is told of"
        return Checked(count, emptied, first, number, head, broken)

    def _ending(self) -> _End:
        """Where to go on; read anew where another process wrote meanwhile."""
        segments = self.segments()
        known = self._end
        if known is not None and segments[-1:] == [known.file] and known.file.stat().st_size == known.size:
            return known
        if not segments:
            return self._begin_segment()
        whole = _whole(segments[-1])
        lines = whole.splitlines()
        if len(lines) > 1:
            last = _record(lines[-1], segments[-1], len(lines))
            number, head = last.number, last.hash
        else:
            about = _loads(lines[0] if lines else b"")
            if not isinstance(about, dict) or not {"after", "head"} <= about.keys():
                raise DataError(f"{segments[-1]} is damaged; move the folder away to begin another log")
            number, head = int(about["after"]), str(about["head"])
        self._end = _End(segments[-1], len(whole), number, head)
        os.truncate(segments[-1], len(whole))  # what a crash tore
        return self._end

    def _begin_segment(self) -> _End:
        segments, end = self.segments(), self._end
        number, head = (0, START) if end is None else (end.number, end.head)
        path = self.folder / f"{int(segments[-1].stem) + 1 if segments else 1:08}.jsonl"
        first = _json({"after": number, "head": head}) + b"\n"
        write_whole(path, first)
        self._drop([*segments, path])
        self._end = _End(path, len(first), number, head)
        return self._end

    def _drop(self, segments: Sequence[Path]) -> None:
        """The oldest, while all together are too large; the anchor is where the next one begins."""
        sizes = {path: path.stat().st_size for path in segments}
        for path, following in pairwise(segments):
            if sum(sizes.values()) <= self.most_bytes:
                return
            about = _loads(following.read_bytes().splitlines()[0])
            write_whole(self.folder / "anchor.json", _json({"number": about["after"], "head": about["head"]}))
            path.unlink()
            del sizes[path]

    def _anchor(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.folder / "anchor.json").read_bytes())
            return found
        except (OSError, ValueError):
            return {"number": 0, "head": START}

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _emptied(record: Record, mine: Callable[[Mapping[str, Any]], bool]) -> Record:
    if record.body is None or not mine(record.body):
        return record
    return Record(record.number, record.previous, record.content, None)


def _wrong(record: Record, number: int, head: str, known: Mapping[int, str]) -> str:
    if record.number != number + 1 or record.previous != head:
        return "does not follow the one before"
    if record.body is not None and record.content != _sha_of(record.body):
        return "is not what it was when it was written"
    if known.get(record.number, record.hash) != record.hash:
        return "is not the one that an audit saw"
    return ""


class Writer:
    """A log off the path of the answers: they wait in memory for a thread that hashes and writes.

    A full memory loses records and counts them, and so does a disk that is full: an answer never waits.
    """

    def __init__(
        self, log: ShownLog, who: Callable[[str], str], say: Callable[[str], None] = lambda line: None
    ) -> None:
        self.log, self._who, self._say = log, who, say
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(WAITING)
        self.lost = 0
        self._thread: threading.Thread | None = None  # started by the first record
        self._starting, self._closing = threading.Lock(), threading.Event()

    def put(self, body: dict[str, Any]) -> None:
        """``user`` in it is an id, or "" for somebody of whom no id is known."""
        if self._thread is None:
            self._start()
        try:
            self._queue.put_nowait(body)
        except queue.Full:
            self.lost += 1

    def close(self) -> None:
        """All that waits is on disk when this returns."""
        if self._thread is not None:
            self._queue.put(None)
            self._closing.set()
            self._thread.join()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """What was put before is on disk, or lost, when this returns."""
        self._queue.join()

    def _write(self) -> None:
        going, complained = True, False
        while going:
            bodies, going = self._some()
            lost, self.lost = self.lost, 0
            try:
                more = [{"kind": "lost", "at": round(time.time(), 3), "records": lost}] if lost else []
                whole = [{**body, "user": self._who(body["user"]) if body["user"] else ""} for body in bodies]
                if whole or more:
                    self.log.append([*whole, *more])
                complained = False
            except (OSError, DataError) as error:
                self.lost += lost + len(bodies)
                if not complained:
                    complained = True
                    self._say(f"the log of what is shown cannot be written, its records are lost and counted: {error}")
            for _ in range(len(bodies) + (not going)):
                self._queue.task_done()

    def _some(self) -> tuple[list[dict[str, Any]], bool]:
        """What waits, after a little more has come; False beside it at the end."""
        bodies: list[dict[str, Any]] = []
        one = self._queue.get()
        if one is not None and self._queue.qsize() < AT_ONCE:
            self._closing.wait(LINGER_S)  # asleep: to be woken by each record would cost the answers more
        while one is not None:
            bodies.append(one)
            if len(bodies) == AT_ONCE or self._queue.empty():
                return bodies, True
            one = self._queue.get()
        return bodies, False


def _record(line: bytes, path: Path, number: int) -> Record:
    try:
        about = json.loads(line)
        record = Record(about["n"], about["previous"], about["content"], about["body"])
        if isinstance(record.number, int) and (record.body is None or isinstance(record.body, dict)):
            return record
    except (ValueError, KeyError, TypeError):
        pass
    raise DataError(f"{path}, line {number}: expected a record of the log; `audit log --verify` tells more")


def _whole(path: Path) -> bytes:
    """All but a last line that a crash tore."""
    raw = path.read_bytes()
    return raw[: raw.rfind(b"\n") + 1]


def _loads(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode()


def _sha_of(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
