"""Payload bytes <-> Flower records, nothing more.

The bytes travel as one uint8 array, which Flower cuts into chunks; what is said about them stands in
a config record. Nothing here looks into the bytes: ``shared/payload.py`` does.
"""

from dataclasses import dataclass

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from shared.errors import PayloadError
from shared.whole import MAX_NAME

ARRAYS, NOTES, PAYLOAD = "isthmus.arrays", "isthmus.notes", "payload"
STYPE = "isthmus.payload"  # not numpy's format: hostile bytes never reach a parser of Flower's
MAX_REASON = 500


@dataclass(frozen=True)
class Answer:
    """What a domain answered: bytes, or the reason why there are none. Both empty: done, nothing to send."""

    domain: str
    raw: bytes = b""
    reason: str = ""


def task_to_record(raw: bytes, timeout_s: float) -> RecordDict:
    """A task's bytes and how long the server waits for the answer (seconds)."""
    return _record(raw, {"timeout-s": float(timeout_s)})


def question_to_record(timeout_s: float) -> RecordDict:
    """A task of no bytes: the relay answers with its domain's name, and nobody else hears of it."""
    return _record(b"", {"timeout-s": float(timeout_s)})


def timeout_of(record: RecordDict) -> float:
    """How long the answer to a record of this file is waited for (seconds)."""
    return float(str(_notes(record)["timeout-s"]))


def task_from_record(record: RecordDict) -> tuple[bytes, float]:
    """(bytes, timeout_s); no bytes for a question. Raises PayloadError when the record holds no task."""
    timeout_s = _notes(record).get("timeout-s")
    raw = _bytes(record)
    if not isinstance(timeout_s, float):
        raise PayloadError("expected a task, found another message; both sides must run the same version")
    return raw, timeout_s


def answer_to_record(answer: Answer) -> RecordDict:
    return _record(answer.raw, {"domain": answer.domain, "reason": answer.reason})


def answer_from_record(record: RecordDict) -> Answer:
    """Raises PayloadError when the record holds no answer. Texts come out short and printable."""
    notes = _notes(record)
    domain, reason = notes.get("domain"), notes.get("reason")
    if not (isinstance(domain, str) and domain and isinstance(reason, str)):
        raise PayloadError("expected an answer, found another message; both sides must run the same version")
    return Answer(clean(domain, MAX_NAME), _bytes(record), clean(reason, MAX_REASON))


def clean(text: str, most: int) -> str:
    """One short printable line: a peer's text ends up in logs and on terminals."""
    line = "".join(letter if letter.isprintable() else " " for letter in text[: most + 1])
    return line if len(line) <= most else line[: most - 3] + "..."


def _record(raw: bytes, notes: dict[str, str | float]) -> RecordDict:
    record = RecordDict({NOTES: ConfigRecord(notes)})
    if raw:  # Flower cannot rebuild an array of no bytes
        record[ARRAYS] = ArrayRecord({PAYLOAD: Array("uint8", (len(raw),), STYPE, raw)})
    return record


def _notes(record: RecordDict) -> dict[str, object]:
    return dict(record.config_records.get(NOTES, {}))


def _bytes(record: RecordDict) -> bytes:
    array = record.array_records.get(ARRAYS, {}).get(PAYLOAD)
    return bytes(array.data) if array is not None else b""
