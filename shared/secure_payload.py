"""What travels in a secure sum, and its bytes: a line of JSON, then numbers of the ring.

server -> member          member -> server
a task to train           ANNOUNCED  its keys, signed; the update stays
DEAL   everybody's keys   DEALT      a sealed pair of shares for each peer
MASK   the pairs for it   MASKED     its update under all masks
ATTEND who is there,      ATTENDED   its signature under that
       who is gone
OPEN   all signatures     OPENED     a share for each peer: of its own mask if it is there,
                                     of its masks with others if it is gone
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from shared.errors import PayloadError
from shared.payload import MAX_BYTES
from shared.secure_sum import Announcement, Attendance, Ring
from shared.whole import MAX_NAME

MAGIC = b"isthmus-sum/1\n"  # read as the length that a task begins with it would be far beyond a task's limit
MAX_HEAD = 4 * 2**20
DIGEST = 64  # letters of a SHA-256
ANNOUNCED, DEAL, DEALT, MASK, MASKED, ATTEND, ATTENDED, OPEN, OPENED = (
    "announced",
    "deal",
    "dealt",
    "mask",
    "masked",
    "attend",
    "attended",
    "open",
    "opened",
)
OTHER = "both sides must run the same version"
Head = dict[str, Any]


def is_secure(raw: bytes) -> bool:
    """Whether these bytes belong to a secure sum; others are a task."""
    return raw.startswith(MAGIC)


def pack(kind: str, head: Mapping[str, Any], body: bytes = b"") -> bytes:
    return MAGIC + json.dumps({"kind": kind, **head}).encode() + b"\n" + body


def unpack(raw: bytes, *kinds: str) -> tuple[str, Head, bytes]:
    """(kind, head, body). Raises PayloadError when the bytes are no message of one of these kinds."""
    if not is_secure(raw) or len(raw) > MAX_BYTES:
        raise PayloadError(f"expected a message of a secure sum, found something else; {OTHER}")
    end = raw.find(b"\n", len(MAGIC), len(MAGIC) + MAX_HEAD)
    try:
        head = json.loads(raw[len(MAGIC) : end]) if end >= 0 else None
    except (ValueError, RecursionError):
        head = None
    head = head if isinstance(head, dict) else {}
    kind = str(head.get("kind"))
    if kind not in kinds:
        raise PayloadError(f"expected {' or '.join(kinds)!r} of a secure sum, found {kind[:20]!r}; {OTHER}")
    return kind, head, raw[end + 1 :]


def announced(one: Announcement) -> bytes:
    return pack(ANNOUNCED, _announcement(one))


def announcement_from(raw: bytes) -> Announcement:
    return _to_announcement(unpack(raw, ANNOUNCED)[1])


def deal(members: Sequence[Announcement]) -> bytes:
    return pack(DEAL, {"members": [_announcement(one) for one in members]})


def members_from(head: Head) -> list[Announcement]:
    members = head.get("members")
    if not isinstance(members, list):
        raise PayloadError(f"expected the members of a secure sum, found none; {OTHER}")
    return [_to_announcement(one) for one in members]


def blobs(kind: str, **tables: Mapping[str, bytes]) -> bytes:
    """Tables of bytes by member: sealed pairs, signatures, or shares."""
    return pack(kind, {key: {name: _text(value) for name, value in table.items()} for key, table in tables.items()})


def table_from(head: Head, key: str) -> dict[str, bytes]:
    table = head.get(key)
    if not isinstance(table, dict):
        raise PayloadError(f"expected a table of {key} in a secure sum, found none; {OTHER}")
    return {name: _bytes(value) for name, value in table.items()}


def attend(told: Attendance) -> bytes:
    return pack(ATTEND, {"there": sorted(told.there), "gone": sorted(told.gone)})


def attendance_from(head: Head) -> Attendance:
    return Attendance(_names(head, "there"), _names(head, "gone"))


def attended(signature: bytes) -> bytes:
    return pack(ATTENDED, {"signature": _text(signature)})


def signature_from(raw: bytes) -> bytes:
    return _bytes(unpack(raw, ATTENDED)[1].get("signature"))


def masked(numbers: Ring) -> bytes:
    return pack(MASKED, {}, numbers.astype("<u8", copy=False).tobytes())


def numbers_from(raw: bytes, count: int) -> Ring:
    """(count,). Raises PayloadError on another number of them."""
    body = unpack(raw, MASKED)[2]
    if len(body) != 8 * count:
        raise PayloadError(f"expected {count} masked numbers, found {len(body) / 8:g}; both sides must run one plan")
    return np.frombuffer(body, "<u8").astype(np.uint64, copy=False)


def _names(head: Head, key: str) -> frozenset[str]:
    names = head.get(key)
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise PayloadError(f"expected names of members as {key!r}, found something else; {OTHER}")
    return frozenset(names)


def _announcement(one: Announcement) -> Head:
    keys = {"masking": one.masking, "sealing": one.sealing, "seed": one.seed, "signature": one.signature}
    return {"name": one.name, "task": one.task, **{key: _text(raw) for key, raw in keys.items()}}


def _to_announcement(head: Any) -> Announcement:
    if not isinstance(head, dict):
        raise PayloadError(f"expected a member's announcement, found something else; {OTHER}")
    name, task = head.get("name"), head.get("task")
    if not (isinstance(name, str) and 0 < len(name) <= MAX_NAME and name.isprintable()):
        raise PayloadError(f"expected a domain name of at most {MAX_NAME} printable letters, found {str(name)[:80]!r}")
    if not (isinstance(task, str) and len(task) == DIGEST):
        raise PayloadError(f"expected the digest of a task of a secure sum, found something else; {OTHER}")
    masking, sealing, seed, signature = (_bytes(head.get(key)) for key in ("masking", "sealing", "seed", "signature"))
    return Announcement(name, task, masking, sealing, seed, signature)


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _bytes(text: object) -> bytes:
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        raise PayloadError(f"expected bytes in base64, found something else; {OTHER}") from None
