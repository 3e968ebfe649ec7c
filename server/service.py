"""What every door of the server calls: the cross-domain recommender over published catalogues.

The newest adapter of a run, one engine for each catalogue. A history comes with each request and is gone with its
answer: nothing of it is written, and what is counted is counted of items. One ``Crossing`` answers a request from its
first line to its last; a new round's adapter, a new item makes another one aside and takes its place.
"""

import hashlib
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from server import registry
from server.aggregate import aggregator_for
from server.exposure import Exposure
from server.glance import check_run
from server.history import Event, find, known, people
from server.rounds import ServerState, adapter_for
from shared import browse
from shared.catalog import NewItem
from shared.engine import Engine, open_engine
from shared.errors import ConfigError, DataError, FullError
from shared.explanation import Explanation, explain
from shared.model import Recommender, adapter_tensors, base_fingerprint, load_adapter_tensors
from shared.payload import check_like, common
from shared.policy import Answer, Recommendation, Signals, Wish, blend, recommend
from shared.prefix import find_base
from shared.published import GROUPS, Published, read_published
from shared.takeover import mark_of, watch

PARTS = ("because", "words", "paths", "nearest")  # of an explanation; what is learnt from users stays at their domain
MOST_ADDED = 20_000  # items that came in while serving, of one domain
Listener = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class Crossing:
    """One round's recommender over all catalogues."""

    round: int
    version: str
    engines: Mapping[str, Engine]  # by domain
    signals: Mapping[str, Signals]


@dataclass(frozen=True)
class Answers:
    """Pages of all domains that were asked for, and a blend of their heads, all of one model."""

    model: str
    answers: tuple[Answer, ...]
    blend: tuple[tuple[str, Recommendation], ...]


class CrossDomain:
    """All methods may be called from any thread; errors are those of ``shared.errors``."""

    def __init__(self, run_dir: Path, catalogues: Sequence[Path], cache: Path) -> None:
        """Raises DataError for a catalogue that cannot be read, ConfigError for a run or names that cannot serve."""
        check_run(run_dir)
        self.run_dir, self._cache = run_dir, cache
        self.published = read_catalogues(catalogues)
        self.exposure = Exposure()
        self.listeners: list[Listener] = []
        self._writing, self._explaining = threading.Lock(), threading.Lock()
        self._added: dict[str, list[NewItem]] = {}
        self._seen = self._mark()
        self.state = self._read()

    def recommend(self, history: Sequence[Event], domains: Sequence[str] | None, wish: Wish) -> Answers:
        """For each of the domains, by default all that have what ``wish.where`` filters by. Raises ConfigError,
        UnknownError."""
        state = self.state
        asked = self._asked(state, domains, wish)
        person = people(state.engines, history, asked)
        answers = tuple(recommend(state.engines[one], person[one], wish, state.signals[one]) for one in asked)
        self._count(state, answers)
        mixed = blend([answer.items for answer in answers], wish.k)
        return Answers(state.version, answers, tuple((answers[which].domain, item) for which, item in mixed))

    def explain(
        self, history: Sequence[Event], domain: str, item: str, most: int, parts: Collection[str] = PARTS
    ) -> Explanation:
        """Why an item of a domain stands where it stands for that history. Raises ConfigError, UnknownError."""
        engines = self.state.engines
        engine = known(engines, domain)
        row, person = engine.item(item), people(engines, history, [domain])[domain]
        with self._explaining:
            found = explain(engine, person, row, most, parts)
        # Of another domain's item the vector is that of its text, and no sum over the words of its title.
        theirs = {one.title for one in (find(engines, event) for event in history) if one.rows}
        return replace(found, told=None) if found.told and found.told.text in theirs else found

    def search(self, domain: str | None, words: str, skip: int, k: int) -> dict[str, Any]:
        """A page of the items whose title holds all the words, in one domain or in all one after the other."""
        engines = self.state.engines
        total = 0
        items: list[dict[str, Any]] = []
        for name in engines if domain is None else [domain]:
            page = browse.found(known(engines, name), words, max(0, skip - total), k - len(items))
            items += [{"domain": name, **one} for one in page["items"]]
            total += page["total"]
        return {"total": total, "items": items}

    def item(self, domain: str, item: str) -> dict[str, Any]:
        """Raises UnknownError."""
        return {"domain": domain, **browse.described(known(self.state.engines, domain), item)}

    def add_items(self, domain: str, items: Sequence[NewItem]) -> None:
        """They can be recommended when this returns, until the server ends. Raises TakenError, FullError, and
        ConfigError for an attribute that the catalogue does not have."""
        with self._writing:
            state, added = self.state, self._added.get(domain, [])
            known(state.engines, domain).catalog.check_attributes(items)
            if len(added) + len(items) > MOST_ADDED:
                raise FullError(f"{domain} has {len(added):,} items that are in no catalogue; publish it with them")
            engine = known(state.engines, domain).with_items(items)
            self._added[domain] = [*added, *items]
            self.state = _with_engine(state, domain, engine)
        self._tell("items", {"domain": domain, "count": len(items)})

    def about(self) -> dict[str, Any]:
        state = self.state
        domains = [
            {
                "name": name,
                "items": len(engine),
                "attributes": engine.attributes.columns,
                "popularity": self.published[name].groups is not None,
                "fingerprint": self.published[name].catalog.fingerprint,
            }
            for name, engine in state.engines.items()
        ]
        return {"model": state.version, "round": state.round, "domains": domains}

    def shown(self) -> dict[str, Any]:
        """How evenly the catalogues have been shown since the start."""
        items = {name: len(engine) for name, engine in self.state.engines.items()}
        return self.exposure.report(items, {name: one.groups for name, one in self.published.items()})

    def refresh(self) -> str | None:
        """Take over the adapter of a round that ended since; its version, None where there is none.

        Raises an IsthmusError when it cannot serve.
        """
        if (mark := self._mark()) == self._seen:
            return None
        state = self._read()
        with self._writing:
            for domain, items in self._added.items():
                state = _with_engine(state, domain, state.engines[domain].with_items(items))
            self.state, self._seen = state, mark
        self._tell("model", {"model": state.version, "round": state.round})
        return state.version

    def watch(self, stopped: threading.Event, say: Callable[[str], None] = print) -> None:
        """Refresh until told to stop."""
        watch(self.refresh, self._mark, stopped, say=say)

    def _asked(self, state: Crossing, domains: Sequence[str] | None, wish: Wish) -> list[str]:
        if domains:
            asked = [known(state.engines, name).name for name in dict.fromkeys(domains)]
        else:
            known(state.engines, next(iter(state.engines), "any domain"))
            having = {name: engine.attributes.columns for name, engine in state.engines.items()}
            asked = [name for name, columns in having.items() if all(column in columns for column in wish.where)]
            if not asked:
                raise ConfigError(f"no catalogue has all of the attributes {', '.join(wish.where)[:200]}")
        if wish.popularity and not any(self.published[name].groups for name in asked):
            raise ConfigError("popularity needs a catalogue that was published with it (publish --popularity)")
        return asked

    def _count(self, state: Crossing, answers: Sequence[Answer]) -> None:
        rows = {
            one.domain: [state.engines[one.domain].catalog.row[item.item_id] for item in one.items] for one in answers
        }
        self.exposure.count(rows)

    def _read(self) -> Crossing:
        state = registry.load_state(self.run_dir)
        engines = self._engines(state) if self.published else {}
        digest = hashlib.sha256("".join(engine.version for engine in engines.values()).encode())
        signals = {name: signals_of(self.published[name], len(engine)) for name, engine in engines.items()}
        return Crossing(state.round - 1, f"round-{state.round - 1}-{digest.hexdigest()[:12]}", engines, signals)

    def _engines(self, state: ServerState) -> dict[str, Engine]:
        """The encoder once, which is everyone's in each family; for each domain the towers that are its own mixture."""
        base = find_base(state.plan.model.base)
        model = Recommender(state.plan.model, base, state.plan.federation.seed).eval()
        if base_fingerprint(state.plan.model, base) != state.base:
            raise DataError(f"the run in {self.run_dir} was trained on another base model; install that one")
        check_like(state.adapter, adapter_tensors(model), "the run's adapter")
        load_adapter_tensors(model, state.adapter)
        aggregator = aggregator_for(state.plan)
        engines = {}
        for name, published in self.published.items():
            own = model.sibling()
            load_adapter_tensors(own, common(adapter_for(state, aggregator, name)))
            place = self.run_dir / "serving" / published.catalog.fingerprint[:16]
            engines[name] = open_engine(own, published.catalog, None, place, self._cache)
        return engines

    def _mark(self) -> object:
        return mark_of(self.run_dir / "current")

    def _tell(self, kind: str, data: dict[str, Any]) -> None:
        for listener in list(self.listeners):
            listener(kind, data)


def read_catalogues(folders: Sequence[Path]) -> dict[str, Published]:
    """By domain. Raises DataError, and ConfigError for two of one name."""
    found: dict[str, Published] = {}
    for folder in folders:
        one = read_published(folder)
        if one.domain in found:
            raise ConfigError(f"two catalogues are both of {one.domain!r}; pass one of them")
        found[one.domain] = one
    return found


def signals_of(published: Published, items: int) -> Signals:
    """Popularity by the group that the owner gave away; freshness 1 for what came in while serving, else 0."""
    groups = torch.zeros(items)
    if published.groups is not None:
        groups[: len(published.groups)] = torch.tensor(published.groups, dtype=torch.float32) / (len(GROUPS) - 1)
        groups = (groups - groups.mean()) / groups.std(correction=0).clamp(min=1e-9)
    fresh = torch.zeros(items)
    fresh[len(published.catalog) :] = 1.0
    return Signals(groups, fresh, torch.ones(items).bool())


def _with_engine(state: Crossing, domain: str, engine: Engine) -> Crossing:
    """New items stand behind the others: nobody knows them yet, and nothing is fresher."""
    before = state.signals[domain]
    more = len(engine) - len(before.allowed)
    signals = Signals(
        torch.cat([before.popularity, torch.full((more,), float(before.popularity.min()))]),
        torch.cat([before.freshness, torch.ones(more)]),
        torch.cat([before.allowed, torch.ones(more).bool()]),
    )
    return replace(state, engines={**state.engines, domain: engine}, signals={**state.signals, domain: signals})
