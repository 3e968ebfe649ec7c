"""A history told along with a request, as each domain's recommender reads it.

An event is an item of one domain's catalogue or plain words. In its own domain an item counts as that item; in any
other, by its text: the encoder, adapters and all, is everyone's, so the vectors that its own catalogue has of it are
what another domain would read, once one catalogue's whitening is undone and the other's done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from shared.engine import VIEW, Engine, read_texts
from shared.errors import ConfigError, UnknownError
from shared.policy import Person
from shared.scoring import UNLISTED, Past

Engines = Mapping[str, Engine]  # by domain


@dataclass(frozen=True)
class Event:
    """Something that somebody met: an item by its id or title, or any words; and, where known, in which domain."""

    domain: str | None = None
    item: str | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        if not (self.item or (self.text or "").strip()):
            raise ConfigError("expected an item or a text in each event of the history")


@dataclass(frozen=True)
class Found:
    """An event and where it stands."""

    title: str  # what a person would call it
    rows: Mapping[str, int] = field(default_factory=dict)  # domain -> row in its catalogue; empty for plain words


def find(engines: Engines, event: Event, place: int = 1) -> Found:
    """Which items an event is, the ``place``-th of its history. Raises UnknownError, ConfigError: by its place, for
    words of a history belong into no log that an error may end up in."""
    among = engines if event.domain is None else {event.domain: known(engines, event.domain)}
    words = event.item or (event.text or "").strip()
    titled = {name: row for name, engine in among.items() if (row := engine.find(words)) is not None}
    listed = {name: engine.catalog.row[words] for name, engine in among.items() if words in engine.catalog.row}
    if event.item is not None and len(listed) > 1:
        raise ConfigError(f"event {place}: {', '.join(listed)} each have an item of that id; say of which domain it is")
    if event.item is None and (titled or len(listed) > 1):  # words that look like an id are one where nothing else fits
        listed = {}
    rows = listed | {name: row for name, row in titled.items() if name not in listed}
    if rows:
        name, row = next(iter(rows.items()))
        return Found(engines[name].title(row), rows)
    if not (event.text or "").strip():
        where = event.domain or "any domain"
        raise UnknownError(f"event {place}: no catalogue of {where} has that item; give its id or title, or a text")
    return Found((event.text or "").strip())


def known(engines: Engines, domain: str) -> Engine:
    """A domain's engine. Raises UnknownError for one that has no catalogue here."""
    if domain not in engines:
        there = ", ".join(engines) or "none: start it with --catalogue FOLDER"
        raise UnknownError(f"this server has no catalogue of {domain[:80]!r}; it has {there}")
    return engines[domain]


def people(engines: Engines, events: Sequence[Event], targets: Sequence[str]) -> dict[str, Person]:
    """Whoever has that history, as each of the target domains sees them. Raises UnknownError, ConfigError."""
    found = [find(engines, event, place) for place, event in enumerate(events, 1)]
    for target in targets:
        known(engines, target)
    if not engines:
        return {}
    most = next(iter(engines.values())).scorer.model.plan.max_history
    # What is older than a model reads counts only as met.
    older, read = found[: max(0, len(found) - most)], found[max(0, len(found) - most) :]
    plain, tuned = _vectors(engines, read)
    return {target: _person(engines[target], older, read, plain, tuned) for target in targets}


def _person(
    engine: Engine, older: Sequence[Found], read: Sequence[Found], plain: torch.Tensor, tuned: torch.Tensor
) -> Person:
    met = [one for one in older if engine.name in one.rows]
    past = engine.scorer.past([one.rows[engine.name] for one in met], [VIEW] * len(met))
    if read:
        rows = torch.tensor([one.rows.get(engine.name, UNLISTED) for one in read])
        plain, tuned = engine.whitening(plain), engine.whitening(tuned)
        own = rows != UNLISTED
        plain[own], tuned[own] = engine.scorer.vectors.base[rows[own]], engine.scorer.vectors.x[rows[own]]
        past = past + Past(rows, torch.full((len(rows),), VIEW), tuned, plain)
    return Person(past, None, tuple(one.title for one in (*met, *read)))


def _vectors(engines: Engines, read: Sequence[Found]) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each event by the base and by the adapted encoder, before any whitening: (events, dim) each."""
    anyone = next(iter(engines.values()))
    plain, tuned = torch.zeros(len(read), anyone.scorer.model.dim), torch.zeros(len(read), anyone.scorer.model.dim)
    words = {place: one.title for place, one in enumerate(read) if not one.rows}
    if words:
        texts = list(dict.fromkeys(words.values()))
        at = [texts.index(text) for text in words.values()]
        for into, vectors in zip((plain, tuned), read_texts(anyone.scorer.model, texts), strict=True):
            into[list(words)] = vectors[at]
    for name, engine in engines.items():
        mine = [(place, one.rows[name]) for place, one in enumerate(read) if next(iter(one.rows), None) == name]
        if mine:
            places, rows = (list(part) for part in zip(*mine, strict=True))
            plain[places] = engine.whitening.undo(engine.scorer.vectors.base[rows])
            tuned[places] = engine.whitening.undo(engine.scorer.vectors.x[rows])
    return plain, tuned
