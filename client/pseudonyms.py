"""What stands for a user where an id may not: an HMAC under a key that never leaves the home."""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from functools import cache
from pathlib import Path

from client.store import Home
from shared.errors import DataError
from shared.whole import aside

KEY = 32  # bytes
SHOWN, FORGOTTEN = "shown", "forgotten"  # purposes: who has two of the files cannot tell who is who across them


def pseudonym(home: Home, user: str, purpose: str = "") -> str:
    """64 hexadecimal digits; the same user has others for another purpose. Without one: in consents and ledger."""
    return pseudonyms(home, purpose)(user)


def pseudonyms(home: Home, purpose: str) -> Callable[[str], str]:
    """The same for many users: the key is read, or made, once, for the first of them. Raises DataError then."""

    @cache
    def key() -> bytes:
        path = home.folder / "pseudonyms.key"
        found = kept_secret(path, lambda: secrets.token_bytes(KEY))
        if len(found) != KEY:  # under an empty key anybody could tell whose a hash is
            raise DataError(f"{path}: expected {KEY} bytes, found {len(found)}; restore it from a backup")
        return hmac.digest(found, purpose.encode(), "sha256") if purpose else found

    return lambda user: hmac.digest(key(), user.encode("utf-8", "surrogatepass"), hashlib.sha256).hex()


def kept_secret(path: Path, make: Callable[[], bytes]) -> bytes:
    """The secret in a file that only its owner may read; made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        with aside(path, over=False) as made:  # where another process was first, its secret it is
            made.write_bytes(make())
    return path.read_bytes()
