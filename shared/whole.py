"""Files that are there whole, or as they were before: written aside, fsynced, renamed."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OWNER, PUBLIC = 0o600, 0o666  # who may read; the latter as the process's umask lets


@contextmanager
def aside(path: Path, mode: int = OWNER) -> Iterator[Path]:
    """A new file beside ``path`` to write to, which takes its place at the end, and after an error is gone.

    The old file or the new one is there at any moment, also after a loss of power. Raises OSError.
    """
    made = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    os.close(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
    try:
        yield made
        _sync(made)
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)
    _sync(path.parent)


def write_whole(path: Path, raw: bytes, mode: int = OWNER) -> None:
    """The same for bytes that are at hand."""
    with aside(path, mode) as made:
        made.write_bytes(raw)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
