"""One user: all that the domain holds of them, and taking it away. What was stopped, the next time finishes."""

import os
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any

import numpy as np
import torch

from client.dataset import Domain, read_domain, with_journal
from client.forgotten import Gone, read_forgotten, without
from client.journal import Event, Feedback, Journal
from client.pseudonyms import FORGOTTEN, SHOWN, pseudonym
from client.released import keep_none_released
from client.shown import ShownLog
from client.store import Home, change_private, load, write_json, write_lines
from shared.catalog import BEHAVIOURS
from shared.errors import ConfigError, UnknownError
from shared.ledger import TokenRelease, append_line, read_events, reserved
from shared.tables import drop_rows, read_table
from shared.whole import read_json, read_lines, sweep

USER_COLUMNS = ("user_id", "source_id", "target_id")
UNFINISHED = "restore it from a backup: it says whose forgetting was stopped in the middle"
USER_TABLE = "user.weight"  # among private parameters: a row for each user
STAYS = (
    "What was learnt from many users at once stays until the next training, which leaves this one out: item biases and "
    "residuals, items met together, adapters. An update that was released before cannot be recalled; under --epsilon "
    "the promise about it holds for ever (docs/privacy.md, section 7)."
)


@dataclass(frozen=True)
class Forgotten:
    """What a forgetting took away."""

    journal: int  # entries
    residual: bool  # a row of the private parameters
    consents: int
    shown: int  # records of the log that have no content any more
    files: int  # rows of the owner's files, with ``data_too``
    listed: bool  # whether the owner's files still have rows, which count for nothing from now on


def files_of(domain: Domain) -> list[Path]:
    """The owner's files that name users: interactions, attributes, friends."""
    return [domain.events, *domain.beside.attributes, *domain.beside.friends]


def export_user(home: Home, user: str, data: Path | None = None) -> dict[str, Any]:
    """All that the domain holds of a user, as plain values. Raises UnknownError where it is nothing."""
    kept = load(home)
    entries = Journal(home.journal).entries
    domain = with_journal(without(home, read_domain(data or kept.data, kept.domain)), entries)
    who, shown_as = pseudonym(home, user), pseudonym(home, user, SHOWN)
    catalog, row, gone = domain.catalog, _row(domain, user), _gone(home, user) in read_forgotten(home)
    feedback = [entry for entry in entries if isinstance(entry, Feedback) and entry.user == user]
    shown = [r.body for r in ShownLog(home.shown).records() if r.body is not None and r.body.get("user") == shown_as]
    consents = [one for one in read_lines(home.consents) if one.get("user") == who]
    cells = _cells(domain, user) if row is not None or not gone else []  # also of who is in the files beside alone
    if row is None and not (feedback or shown or consents or cells):
        raise UnknownError(f"domain {domain.name} knows no such user; check the id")
    told = {item: catalog.titles[catalog.row[item]] for item in {one.item for one in feedback} & catalog.row.keys()}
    residual = kept.private.get(USER_TABLE)
    return {
        "user": user,
        "domain": domain.name,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "events": [] if row is None else _events(domain, row),
        "feedback": [
            {"item": e.item, "title": told.get(e.item, ""), "what": e.what, "note": e.note, "timestamp": e.timestamp}
            for e in feedback
        ],
        "files": cells,
        "residual": residual[row].tolist() if residual is not None and row is not None and row < len(residual) else [],
        "passports": consents,
        "passports_spent": [
            e.epsilon for e in read_events(home.ledger) if isinstance(e, TokenRelease) and e.user == who
        ],
        "shown": [{key: value for key, value in body.items() if key not in ("user", "salt")} for body in shown],
    }


def forget(home: Home, user: str, data: Path | None = None, data_too: bool = False) -> Forgotten:
    """Take a user out of all that the domain keeps; with ``data_too`` out of the owner's own files as well.

    Raises UnknownError for somebody of whom there is nothing.
    """
    kept = load(home)
    folder = data or kept.data
    journal = Journal(home.journal)
    gone = _gone(home, user)
    known = gone in read_forgotten(home)
    raw = read_domain(folder, kept.domain)
    _check_unfinished(home, gone)
    users = raw.interactions.user_ids
    filed = users.index(user) if user in users else None  # the place among the owner's files' users
    row = _row(with_journal(without(home, raw), journal.entries), user)
    beside = bool(_cells(raw, user))
    if not (known or filed is not None or beside or _named(home, user, journal)):
        raise UnknownError(f"domain {kept.domain} knows no such user; check the id")
    if not known:
        append_line(home.forgotten, {"who": gone.who, "shown": gone.shown, "day": datetime.now(UTC).date().isoformat()})
    trained = len(kept.private[USER_TABLE]) if USER_TABLE in kept.private else 0
    came = row if row is not None and row >= len(users) else None  # the place behind them, of the journal's users
    leaving = [place for place in (filed if data_too else None, came) if place is not None and place < trained]
    if leaving and not home.forgetting.exists():
        # Who stands behind moves up when a place is gone: the residuals must follow, or all would be wrong.
        write_json(home.forgetting, {"who": gone.who, "rows": leaving, "users": trained})
    if came is not None:  # while the journal still tells: those behind move up, and a round to come starts afresh
        _drop_rounds(home)
    dropped = journal.rewrite(lambda entry: not (isinstance(entry, Event | Feedback) and entry.user == user))
    os.utime(home.forgotten)  # a process that trains here reads the data anew, also who was forgotten before
    files = sum(drop_rows(path, USER_COLUMNS, user) for path in files_of(raw)) if data_too else 0
    touched = _residuals(home, filed if filed is not None and not data_too else None)
    consents = _passports(home, user)
    keep_none_released(home)
    emptied = ShownLog(home.shown).empty(lambda body: body.get("user") == gone.shown)
    sweep(home.folder)  # who was killed while writing may have left some of it
    return Forgotten(dropped, touched, consents, emptied, files, (filed is not None or beside) and not data_too)


def _gone(home: Home, user: str) -> Gone:
    return Gone(pseudonym(home, user, FORGOTTEN), pseudonym(home, user, SHOWN))


def _check_unfinished(home: Home, gone: Gone) -> None:
    if home.forgetting.exists() and read_json(home.forgetting, UNFINISHED)["who"] != gone.who:
        raise ConfigError("a forgetting of another user was stopped in the middle; finish that one first")


def _drop_rounds(home: Home) -> None:
    for path in home.rounds.glob("*.safetensors"):
        path.unlink(missing_ok=True)


def _residuals(home: Home, row: int | None) -> bool:
    """The user's row of every private file: to zero, and out of it where others move up. Whether there was one."""
    marked = read_json(home.forgetting, UNFINISHED) if home.forgetting.exists() else None
    found = marked is not None

    def zero(tensors: dict[str, torch.Tensor]) -> None:
        nonlocal found
        if row is not None and USER_TABLE in tensors and row < len(tensors[USER_TABLE]):
            tensors[USER_TABLE][row], found = 0, True

    def cut(tensors: dict[str, torch.Tensor]) -> None:
        table = tensors.get(USER_TABLE)
        if marked is not None and table is not None and len(table) == marked["users"]:  # else done before a stop
            left = [row for row in range(len(table)) if row not in marked["rows"]]
            tensors[USER_TABLE] = table[left].clone()

    # What the domain reaches alone is trained again from other data; without its mark the rest counts for nothing.
    for path in (home.alone / "alone.json", *sorted(home.alone.glob("*.safetensors"))):
        path.unlink(missing_ok=True)
    if marked is None and row is None:
        return False
    if marked is not None:
        _drop_rounds(home)
    for path in sorted(home.rounds.glob("*.safetensors")):  # one may have more users than what is served
        change_private(path, zero)
    change_private(home.private, zero)
    change_private(home.private, cut)
    home.forgetting.unlink(missing_ok=True)
    return found


def _passports(home: Home, user: str) -> int:
    """Drop the consents, how many; the ledger keeps what was spent, under a name that is nobody's."""
    who = pseudonym(home, user)
    with reserved(home.ledger):
        consents = read_lines(home.consents)
        kept = [one for one in consents if one.get("user") != who]
        if len(kept) < len(consents):
            write_lines(home.consents, kept)
        events = read_events(home.ledger)
        if any(isinstance(event, TokenRelease) and event.user == who for event in events):
            nobody = token_hex(32)  # one for all of them: they still add up to what one person was given
            write_lines(home.ledger, [asdict(_renamed(event, who, nobody)) for event in events])
    return len(consents) - len(kept)


def _renamed(event: Any, who: str, nobody: str) -> Any:
    return replace(event, user=nobody) if isinstance(event, TokenRelease) and event.user == who else event


def _named(home: Home, user: str, journal: Journal) -> bool:
    """Whether the journal, a consent or the log of what was shown knows them."""
    who, shown_as = pseudonym(home, user), pseudonym(home, user, SHOWN)
    return (
        any(isinstance(entry, Event | Feedback) and entry.user == user for entry in journal.entries)
        or any(one.get("user") == who for one in read_lines(home.consents))
        or any(r.body is not None and r.body.get("user") == shown_as for r in ShownLog(home.shown).records())
    )


def _row(domain: Domain, user: str) -> int | None:
    ids = domain.interactions.user_ids
    return ids.index(user) if user in ids else None


def _events(domain: Domain, row: int) -> list[dict[str, Any]]:
    data, catalog = domain.interactions, domain.catalog
    return [
        {
            "item": catalog.ids[data.items[at]],
            "title": catalog.titles[data.items[at]],
            "behavior": BEHAVIOURS[data.behaviours[at]],
            "timestamp": None if np.isnan(data.times[at]) else float(data.times[at]),
            "weight": float(data.weights[at]),
        }
        for at in np.flatnonzero(data.users == row).tolist()
    ]


def _cells(domain: Domain, user: str) -> list[dict[str, Any]]:
    """What the files beside the interactions say: attributes, friends."""
    found = []
    for path in files_of(domain)[1:]:
        table = read_table(path, ())
        columns = {name: table.texts(name) for name in table.types}
        for at in range(len(table)):
            cells = {name: cells[at] for name, cells in columns.items()}
            if user in (cells.get(column) for column in USER_COLUMNS):
                found.append({"file": path.name, **cells})
    return found


def write_export(path: Path, found: dict[str, Any]) -> None:
    """For the owner's eyes until it is handed over."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, found)  # made aside with a mode of 0600
