"""Complaints about items: what users hid or called harmful, and what reviewers said to it. From the journal alone."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from client.journal import BLOCK, HARMFUL, HIDE, Decision, Entry, Feedback

MOST_NOTES = 20


@dataclass(frozen=True)
class Note:
    """What somebody wrote to a report; by whom is not for reviewers."""

    timestamp: float
    text: str


@dataclass(frozen=True)
class Complaint:
    """An item that was called harmful since somebody last decided about it."""

    item: str
    reports: int
    people: int
    first: float  # unix seconds
    last: float
    notes: tuple[Note, ...]  # the latest, the newest first
    decided: str = ""  # what was decided before, "" for nothing


def queue(entries: Iterable[Entry]) -> list[Complaint]:
    """What waits for a decision, the item that most people reported first."""
    waiting: dict[str, list[Feedback]] = defaultdict(list)
    decided: dict[str, str] = {}
    for entry in entries:
        if isinstance(entry, Feedback) and entry.what == HARMFUL:
            waiting[entry.item].append(entry)
        elif isinstance(entry, Decision):
            waiting.pop(entry.item, None)
            decided[entry.item] = entry.what
    found = [_complaint(item, reports, decided.get(item, "")) for item, reports in waiting.items()]
    return sorted(found, key=lambda one: (-one.people, -one.reports, one.first))


def _complaint(item: str, reports: list[Feedback], decided: str) -> Complaint:
    times = [report.timestamp for report in reports]
    notes = [Note(report.timestamp, report.note) for report in reports[::-1] if report.note][:MOST_NOTES]
    people = len({report.user for report in reports})
    return Complaint(item, len(reports), people, min(times), max(times), tuple(notes), decided)


def blocked(entries: Iterable[Entry]) -> frozenset[str]:
    """Items that nobody shall see: whose last decision says so."""
    last = {entry.item: entry.what for entry in entries if isinstance(entry, Decision)}
    return frozenset(item for item, what in last.items() if what == BLOCK)


def hidden(entries: Iterable[Entry], user: str) -> frozenset[str]:
    """Items that this user does not want to see."""
    return frozenset(item for who, item in unwanted(entries) if who == user)


def unwanted(entries: Iterable[Entry]) -> list[tuple[str, str]]:
    """(user, item) for what was hidden or called harmful, each once."""
    pairs = ((e.user, e.item) for e in entries if isinstance(e, Feedback) and e.what in (HIDE, HARMFUL))
    return list(dict.fromkeys(pairs))


def counts(entries: Iterable[Entry]) -> dict[str, Counter[str]]:
    """What was said how often about which item: {hide: {item: times}, ...}."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in entries:
        if isinstance(entry, Feedback):
            found[entry.what][entry.item] += 1
    return found
