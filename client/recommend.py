"""What a domain serves, opened from its home: its engine, and its own people with their histories."""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from client.associations import Associations, Rows
from client.corpus import Corpus, build_corpus
from client.dataset import BLANK, Domain, Interactions, read_domain, with_journal
from client.forgotten import without
from client.journal import Entry, Journal
from client.review import blocked
from client.rules import Rules, Verdict, judge, read_rules
from client.splits import Cases
from client.store import Home, Kept, load
from shared.catalog import NewItem, behaviour_code
from shared.engine import Engine, open_engine
from shared.errors import ConfigError, DataError, UnknownError
from shared.model import Recommender, Space, base_fingerprint
from shared.neighbours import split_off
from shared.plan import Plan
from shared.policy import Because, Person, Recommendation, Signals, Wish, recommend, why
from shared.prefix import find_base
from shared.private import Private
from shared.scoring import Past, Query

PASSPORT = "(taste passport)"
RECENT = 256  # users whose query is kept: some 160 KB each, however long their histories
CHANGED = "the data have changed since the run: other users or items; train again"


@dataclass(frozen=True)
class Met:
    """What one user did, oldest first: rows of the catalogue and behaviour codes."""

    rows: tuple[int, ...] = ()
    behaviours: tuple[int, ...] = ()
    times: tuple[float, ...] = ()  # an event without one (nan) is older than all that have one

    def __add__(self, later: "Met") -> "Met":
        """Both, in the order of time, as the domain's files would hold them: what is told twice counts once."""
        if not later.rows:
            return self
        events = sorted(dict.fromkeys([*self._events(), *later._events()]), key=lambda event: event[2])
        rows, behaviours, times = zip(*events, strict=True)
        return Met(rows, behaviours, times)

    def _events(self) -> list[tuple[int, int, float]]:
        times = (-math.inf if math.isnan(time) else time for time in self.times)
        return list(zip(self.rows, self.behaviours, times, strict=True))


class People:
    """The domain's users by id: what its files say they did, found without a search."""

    def __init__(self, data: Interactions) -> None:
        self._data = data
        self._row = {user: row for row, user in enumerate(data.user_ids) if not user.startswith(BLANK)}
        self._ends = np.searchsorted(data.users, np.arange(len(data.user_ids) + 1))  # rows are sorted by user

    @property
    def ids(self) -> Collection[str]:
        """All who are known by an id."""
        return self._row.keys()

    def row(self, user_id: str) -> int | None:
        """Position among the users that the model was trained with."""
        return self._row.get(user_id)

    def met(self, user_id: str) -> Met | None:
        """None for somebody unknown."""
        if (row := self.row(user_id)) is None:
            return None
        mine = slice(self._ends[row], self._ends[row + 1])
        data = self._data
        return Met(
            tuple(data.items[mine].tolist()), tuple(data.behaviours[mine].tolist()), tuple(data.times[mine].tolist())
        )


class Recent:
    """What the towers made of who asked lately, by (user, later events), until an event, an item or a model is new.

    Knows nothing of the serving that it belongs to: a cycle would keep an old model's vectors until somebody collects.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, Met], Query] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, who: tuple[str, Met], read: Callable[[], Query]) -> Query:
        with self._lock:
            if (found := self._kept.get(who)) is not None:
                self._kept.move_to_end(who)
                return found
        found = read()
        with self._lock:
            self._kept[who] = found
            while len(self._kept) > RECENT:
                self._kept.popitem(last=False)
        return found


@dataclass(frozen=True)
class Serving:
    """A finished run: engine, private parameters, people. What comes in later makes another (``with_items``)."""

    kept: Kept
    domain: Domain
    engine: Engine
    private: Private
    people: People
    cache: Path
    verdict: Verdict  # what the rules say of each item

    @property
    def plan(self) -> Plan:
        return self.kept.plan

    @property
    def model(self) -> Recommender:
        return self.engine.scorer.model

    def space(self) -> Space:
        """The catalogue as training sees it; serving needs no more than the engine."""
        return self.model.space(self.domain.catalog.texts, self.cache)

    def tested(self) -> tuple[Corpus, Cases]:
        """The domain as far as the model was trained on it, and its test cases: without items and users that came in
        since."""
        items, data = len(self.private.bias), self.domain.interactions
        old = data.items < items
        columns = (data.users[old], data.items[old], data.behaviours[old])
        known = Interactions(data.user_ids, *columns, times=data.times[old], weights=data.weights[old])
        domain = replace(self.domain, catalog=self.domain.catalog.first(items), interactions=known)
        space = self.model.space(domain.catalog.texts, self.cache)
        corpus = build_corpus(domain, self.kept.protocol, space, self.plan)
        cases = corpus.split.test
        if self.private.user is not None:
            cases = cases.take(np.flatnonzero(cases.users < self.private.user.num_embeddings))
        return corpus, cases

    def with_items(self, new: Sequence[NewItem]) -> "Serving":
        engine = self.engine.with_items(new)
        return replace(self, engine=engine, verdict=self.verdict.of_more(engine.catalog))

    def under(self, rules: Rules) -> "Serving":
        """The same under other rules. Raises ConfigError where they do not fit the catalogue."""
        catalog = self.engine.catalog
        return replace(self, verdict=judge(rules, catalog))

    @cached_property
    def signals(self) -> Signals:
        """Of the domain's items as its files have them, rules aside."""
        return signals_of(self.domain.interactions, len(self.engine))

    def signals_for(self, age: int | None) -> Signals:
        """The same with what the rules let somebody of that age see; who tells no age is too young for every gate."""
        return self._gates[self.verdict.gate(age)]

    @cached_property
    def _gates(self) -> dict[int, Signals]:
        verdict, found = self.verdict, {}
        for gate in [0, *verdict.gates]:
            allowed = torch.from_numpy(verdict.least_age <= gate)
            names = tuple(rule.name for rule in verdict.rules.rules)
            found[gate] = replace(self.signals, allowed=allowed, rule=torch.from_numpy(verdict.by), rules=names)
        return found

    @cached_property
    def associations(self) -> Associations:
        """What the domain's people do who met something with an attribute."""
        attributes, facts = self.engine.attributes, self.domain.knowledge.facts

        def rows_of(attribute: tuple[str, str]) -> Rows:
            return np.concatenate([attributes.having(*attribute), facts.having(*attribute)])

        return Associations(self.domain.interactions, rows_of, len(self.engine))

    def known(self, user_id: str, before: torch.Tensor | None = None, later: Met = Met()) -> Person:
        """A user of this domain with all their events, ``later`` those that no file has yet.

        ``before`` (codes, dim) are a passport's places (``client.passport.accept``), older than all events. Raises
        UnknownError for somebody of whom neither tells.
        """
        met = self.people.met(user_id)
        if met is None and not later.rows:
            raise UnknownError(f"domain {self.domain.name} knows no such user; check the id, or tell a history instead")
        met = later if met is None else met + later
        past = self.engine.scorer.past(met.rows, met.behaviours)
        titles = tuple(self.engine.title(row) for row in met.rows)
        row = self.people.row(user_id)
        trained = row is not None and self.private.user is not None and row < self.private.user.num_embeddings
        user = row if trained else None
        query = self._recent.of((user_id, later), lambda: self.engine.scorer.query(past, user))
        return self.led_by(before, Person(past, user, titles, query))

    @cached_property
    def _recent(self) -> "Recent":
        return Recent()

    def described(self, titles: Sequence[str], before: torch.Tensor | None = None) -> Person:
        """Somebody who met these titles, oldest first (``Engine.told``). Raises ConfigError where there are none."""
        titles = [title.strip() for title in titles if title.strip()]
        if not titles:
            raise ConfigError("--history expects titles with ';' between them, found none")
        return self.led_by(before, Person(self.engine.told(titles), None, tuple(titles)))

    def bearer(self, before: torch.Tensor) -> Person:
        """Somebody of whom nothing but a passport's places is known."""
        return self.led_by(before, Person(self.engine.scorer.past([], []), None, ()))

    def led_by(self, before: torch.Tensor | None, person: Person) -> Person:
        """With a passport's places before all events."""
        if before is None:
            return person
        # A place is no text, so the adapted encoder has no word on it: the base's own vector stands for both.
        places: Past = self.engine.scorer.unlisted(before, before, behaviour_code("other"))
        return Person(places + person.past, person.user, (PASSPORT,) * len(before) + person.titles)

    def top(
        self, person: Person, k: int, without: frozenset[str] = frozenset(), age: int | None = None
    ) -> tuple[Recommendation, ...]:
        """The ``k`` best items that this person has not met and that the rules let through."""
        return recommend(self.engine, person, Wish(k, without=without, age=age), self.signals_for(age)).items

    def why(self, person: Person, item: str, most: int) -> tuple[Because, ...]:
        """The events that raise this item's score most, by its id or title. Raises UnknownError where there is none."""
        return why(self.engine, person, torch.tensor([self.engine.item(item)]), most)[0]


def open_serving(
    home: Home,
    cache: Path,
    data: Path | None = None,
    entries: Sequence[Entry] | None = None,
    rules: Rules | None = None,
) -> Serving:
    """Read a finished run, the domain's files, its journal (or the ``entries`` given) and its rules (or those given).

    Raises DataError where they do not fit each other, ConfigError for rules that cannot be used.
    """
    kept = load(home)
    entries = Journal(home.journal).entries if entries is None else entries
    rules = (read_rules(home.rules) if rules is None else rules).with_reviewed(blocked(entries))
    if home.forgetting.exists():
        raise DataError("a forgetting was stopped in the middle; run `forget` for that user again")
    files = without(home, read_domain(data or kept.data, kept.domain))
    domain = with_journal(files, entries)
    verdict = judge(rules, domain.catalog)
    base = find_base(kept.plan.model.base)
    model = Recommender(kept.plan.model, base, kept.plan.federation.seed, at_rest=kept.adapter).eval()
    if base_fingerprint(kept.plan.model, base) != kept.base:
        raise DataError(f"the run in {home.folder} was trained on another base model; install that one")
    private = private_of(kept, model, files, domain)
    trained = domain.catalog.first(len(private.bias))
    engine = open_engine(model, trained, private, home.serving, cache)
    engine = engine.with_items(domain.catalog.after(len(trained)))
    return Serving(kept, domain, engine, private, People(domain.interactions), cache, verdict)


def private_of(kept: Kept, model: Recommender, files: Domain, now: Domain) -> Private:
    """The private parameters, of the items and users that there were at the training: those of the files, and of what
    has come in since the first ones. Raises DataError where they are those of other users or items."""
    neighbours, learnt = split_off(kept.private)
    items = len(learnt["bias"]) if "bias" in learnt else 0
    users = len(learnt["user.weight"]) if "user.weight" in learnt else len(files.interactions.user_ids)
    fits = len(files.catalog) <= items <= len(now.catalog)
    if not fits or not len(files.interactions.user_ids) <= users <= len(now.interactions.user_ids):
        raise DataError(CHANGED)
    private = Private(np.ones(items, np.int64), users, model.dim, kept.plan.model, neighbours)
    try:
        private.load_state_dict(learnt)
    except RuntimeError:
        raise DataError(CHANGED) from None
    return private.requires_grad_(False)


def signals_of(data: Interactions, items: int) -> Signals:
    """Popularity by count; freshness by when an item was first met, where times are known."""
    logs = np.log1p(np.bincount(data.items, minlength=items))
    popularity = (logs - logs.mean()) / max(float(logs.std()), 1e-9)
    return Signals(
        torch.from_numpy(popularity).float(), torch.from_numpy(_freshness(data, items)), torch.ones(items).bool()
    )


def _freshness(data: Interactions, items: int) -> npt.NDArray[np.float32]:
    """(items,): the rank of each item's first meeting among all, from 0 to 1; what nobody met is the newest."""
    times = np.nan_to_num(data.times, nan=-np.inf)
    first = np.full(items, np.inf)
    np.minimum.at(first, data.items, times)
    order = np.unique(first, return_inverse=True)[1]
    found: npt.NDArray[np.float32] = (order / max(int(order.max(initial=0)), 1)).astype(np.float32)
    return found
