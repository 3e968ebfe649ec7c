"""What stands for a user where an id may not: an HMAC under a key that never leaves the home."""

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from client.store import Home
from shared.errors import DataError

KEY = 32  # bytes
SHOWN, FORGOTTEN = "shown", "forgotten"  # purposes: who has two of the files cannot tell who is who across them


def pseudonym(home: Home, user: str, purpose: str = "") -> str:
    """64 hexadecimal digits; the same user has others for another purpose. Without one: in consents and ledger."""
    return pseudonyms(home, purpose)(user)


def pseudonyms(home: Home, purpose: str) -> Callable[[str], str]:
    """The same for many users: the key is read once."""
    path = home.folder / "pseudonyms.key"
    key = kept_secret(path, lambda: secrets.token_bytes(KEY))
    if len(key) != KEY:  # under an empty key anybody could tell whose a hash is
        raise DataError(f"{path}: expected {KEY} bytes, found {len(key)}; restore it from a backup")
    if purpose:
        key = hmac.digest(key, purpose.encode(), "sha256")

    def pseudonym(user: str) -> str:
        return hmac.digest(key, user.encode("utf-8", "surrogatepass"), hashlib.sha256).hex()

    return pseudonym


def kept_secret(path: Path, make: Callable[[], bytes]) -> bytes:
    """The secret in a file that only its owner may read; made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(make())
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):  # another process was first: its secret it is
                os.link(aside, path)
        finally:
            aside.unlink(missing_ok=True)
    return path.read_bytes()
