"""What stands for a user where an id may not: an HMAC under a key that never leaves the home."""

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from client.store import Home

SHOWN, FORGOTTEN = "shown", "forgotten"  # purposes: who has two of the files cannot tell who is who across them


def pseudonym(home: Home, user: str, purpose: str = "") -> str:
    """64 hexadecimal digits; the same user has others for another purpose. Without one: in consents and ledger."""
    return pseudonyms(home, purpose)(user)


def pseudonyms(home: Home, purpose: str) -> Callable[[str], str]:
    """The same for many users: the key is read once."""
    key = kept_secret(home.folder / "pseudonyms.key", lambda: secrets.token_bytes(32))
    if purpose:
        key = hmac.digest(key, purpose.encode(), "sha256")

    def pseudonym(user: str) -> str:
        return hmac.digest(key, user.encode("utf-8", "surrogatepass"), hashlib.sha256).hex()

    return pseudonym


def kept_secret(path: Path, make: Callable[[], bytes]) -> bytes:
    """The secret in a file that only its owner may read; made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_bytes()
    with os.fdopen(handle, "wb") as file:
        file.write(make())
        file.flush()
        os.fsync(file.fileno())
    return path.read_bytes()
