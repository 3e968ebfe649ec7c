"""Files that are there whole, or as they were before: written aside, fsynced, renamed; and read within limits."""

import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from shared.errors import DataError

LEFT = re.compile(r"\..+\.[0-9a-f]{8}")  # the name of a file aside
MAX_NAME = 64  # letters of a domain's name, wherever it goes
LONGEST = 200  # bytes of it
OWNER, PUBLIC = 0o600, 0o666  # who may read; the latter as the process's umask lets


def plain_name(name: str) -> bool:
    """Whether it can be a domain's: a file's or a folder's, here and in a shell, with an ending behind it."""
    if not name.isprintable() or name.startswith(".") or set(name) & set("/\\\"'"):
        return False
    return len(name) <= MAX_NAME and 0 < len(name.encode()) <= LONGEST


FULL = {errno.ENOSPC, errno.EDQUOT}  # a disk, or what one may use of it


@contextmanager
def aside(path: Path, mode: int = OWNER, over: bool = True) -> Iterator[Path]:
    """A new file beside ``path`` to write to, which takes its place at the end, and after an error is gone.

    Not ``over`` a file that is there by then: that stays, and the new one is gone. Of the old file and the new one
    either is there at any moment, also after a loss of power. Raises OSError.
    """
    made = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # until this process ends: how ``sweep`` knows that somebody still writes
        yield made
        sync(made)
        if over:
            made.replace(path)
        else:
            with suppress(FileExistsError):
                os.link(made, path)
    finally:
        made.unlink(missing_ok=True)
        os.close(handle)
    sync(path.parent)


def sweep(folder: Path) -> None:
    """Take away what a killed process left aside anywhere under a folder; what is being written stays."""
    for path in folder.rglob(".*"):
        if not LEFT.fullmatch(path.name) or not path.is_file():
            continue
        try:
            with path.open("rb") as left:
                fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
        except (FileNotFoundError, BlockingIOError):
            continue


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make the folder and hold it against other processes until the block ends, which may rename or remove it.

    Who comes meanwhile waits, and then makes it anew. Raises OSError.
    """
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):  # who held it renamed or removed it since
            handle = os.open(folder, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), folder.stat()):
                    break
            os.close(handle)
    try:
        yield
    finally:
        os.close(handle)


def sweep_folders(parent: Path, pattern: str, older_s: float) -> None:
    """Take away folders that nobody is ``alone_in`` and nobody has written into for so long."""
    for left in parent.glob(pattern):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime < older_s:
                continue
            handle = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left)
            finally:
                os.close(handle)


def write_whole(path: Path, raw: bytes, mode: int = OWNER) -> None:
    """The same for bytes that are at hand."""
    with aside(path, mode) as made:
        made.write_bytes(raw)


def read_bounded(path: Path, most: int, again: str) -> bytes:
    """A file that came from elsewhere, ``most`` bytes at most. Raises DataError; ``again`` says how to get another."""
    try:
        if not path.is_file():  # nor a pipe that never ends
            raise DataError(f"expected a file at {path}, found none; {again}")
        with path.open("rb") as file:
            raw = file.read(most + 1)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; check its permissions") from None
    if len(raw) > most:
        raise DataError(f"{path}: expected at most {most:,} bytes")
    return raw


def read_json(path: Path, again: str) -> dict[str, Any]:
    """The object in an own file. Raises DataError where there is none; ``again`` says how to get another."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise DataError(f"{path} is missing or damaged; {again}")
    return found


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a file of JSON lines, none where it is missing; a line that was torn off in the writing is none.

    Raises DataError where another one is no object.
    """
    if not path.exists():
        return []
    raw = path.read_bytes()
    found = []
    for number, line in enumerate(raw[: raw.rfind(b"\n") + 1].splitlines(), 1):
        try:
            one = json.loads(line)
        except ValueError:
            one = None
        if not isinstance(one, dict):
            raise DataError(f"{path}, line {number} is damaged; restore the file from a backup")
        found.append(one)
    return found


def sync(path: Path) -> None:
    """Have a file, or a folder's names, on the disk before returning."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
