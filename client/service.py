"""What every door of a domain calls: its recommender as it is now, and what comes in while it serves.

One ``Serving`` answers a request from its first line to its last; a new model, a new item makes another one aside and
takes its place. What comes in is in the journal, on disk, before it is answered.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from client.explain import explain_at_home
from client.forget import Forgotten, export_user, forget
from client.forgotten import read_forgotten
from client.journal import DECISIONS, HARMFUL, HIDE, Decision, Entry, Event, Feedback, Journal
from client.passport import Border
from client.pseudonyms import SHOWN, pseudonyms
from client.recommend import Met, Serving, open_serving
from client.review import blocked, queue
from client.rules import NOBODY, Rules, read_rules, spelt
from client.shown import LOG_BYTES, ShownLog, Writer
from client.store import Home
from shared import browse
from shared.catalog import BEHAVIOURS, NewItem, behaviour_code
from shared.engine import Engine
from shared.errors import ConfigError, IsthmusError, UnknownError
from shared.explanation import PARTS, Explanation
from shared.maps import Map, Plane, drawn, map_of, plane_of
from shared.policy import Answer, Person, Wish, recommend
from shared.takeover import mark_of, watch

Listener = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class Who:
    """Whom an answer is for: a user of the domain, or a history told along: item ids or titles, oldest first."""

    user: str | None = None
    history: tuple[str, ...] = ()
    passport: bytes = b""  # another domain's token, as it was given: older than all the rest


@dataclass
class State:
    """A recommender and what came in since it was read."""

    serving: Serving
    later: dict[str, Met] = field(default_factory=dict)
    hidden: dict[str, frozenset[str]] = field(default_factory=lambda: defaultdict(frozenset))


class HomeService:
    """One domain's. All methods may be called from any thread; errors are those of ``shared.errors``."""

    def __init__(
        self,
        home: Home,
        cache: Path,
        data: Path | None = None,
        rules: Path | None = None,
        log_bytes: int = LOG_BYTES,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """``rules`` is the file of block-lists and age gates, by default the home's own.

        ``log_bytes`` bounds the log of what is shown, ``say`` is told what goes wrong with it.

        Raises DataError where there is no finished run that can serve, ConfigError for rules that cannot be used.
        """
        self.home, self._cache, self._data, self._say = home, cache, data, say
        self.border: Border | None = None  # takes passports
        self.journal = Journal(home.journal)
        self.listeners: list[Listener] = []
        self.rules_file = home.rules if rules is None else rules
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self._explaining = threading.Lock()  # one at a time: recommendations shall not wait for many
        self._map: tuple[Engine, Plane, Map] | None = None
        self._seen, self._rules_seen = self._mark(), mark_of(self.rules_file)
        self._rules: Rules = read_rules(self.rules_file)  # the file's own
        self._gone = set(read_forgotten(home))
        self.state = self._read(list(self.journal.entries))
        self.shown = Writer(ShownLog(home.shown, log_bytes), pseudonyms(home, SHOWN), say)

    def warm(self) -> None:
        """Have ready what the first answers did not wait for: the encoder of texts, attributes to filter by."""
        try:
            self.serving.engine.told(["warm"])
        except IsthmusError as error:
            self._say(f"texts cannot be read: {error}")
        _ = self.serving.engine.attributes

    @property
    def serving(self) -> Serving:
        return self.state.serving

    def recommend(self, who: Who, wish: Wish) -> Answer:
        """Raises ConfigError, UnknownError."""
        state = self.state
        if who.user is not None:
            wish = replace(wish, without=wish.without | state.hidden.get(who.user, frozenset()))
        serving = state.serving
        answer = recommend(serving.engine, self._person(state, who), wish, serving.signals_for(wish.age))
        self.shown.put(
            {
                "kind": "answer",
                "at": round(time.time(), 3),
                "user": who.user or "",
                "items": [item.item_id for item in answer.items],
                "from": wish.skip,
                "model": answer.model,
                "rules": serving.verdict.rules.version,
                "struck": dict(answer.struck_by),
            }
        )
        return answer

    def explanation(self, who: Who, item: str, most: int, parts: Collection[str] = PARTS) -> Explanation:
        """Why an item stands where it stands for somebody, from all sides. Raises ConfigError, UnknownError."""
        state = self.state
        row = state.serving.engine.item(item)
        with self._explaining:
            return explain_at_home(state.serving, self._person(state, who), row, most, parts, who.user)

    def map(self) -> Map:
        """The items as the model sees them, flat, but for those that a rule strikes; drawn once for each engine."""
        serving = self.serving
        found, shown, rows = self._mapped(serving.engine)[1], serving.verdict.for_all, serving.engine.catalog.row
        return replace(found, points=tuple(one for one in found.points if shown[rows[one.item_id]]))

    def place(self, who: Who) -> tuple[float, float]:
        """Where on that map somebody stands. Raises ConfigError, UnknownError."""
        state = self.state
        person = self._person(state, who)
        engine = state.serving.engine
        vector = drawn(engine, engine.scorer.query(person.past, person.user).user[None])
        x, y = self._mapped(engine)[0](vector)[0].tolist()
        return round(x, 4), round(y, 4)

    def _mapped(self, engine: Engine) -> tuple[Plane, Map]:
        with self._explaining:
            if self._map is None or self._map[0] is not engine:
                plane = plane_of(engine)
                self._map = (engine, plane, map_of(engine, plane))
            return self._map[1:]

    def history(self, user: str) -> list[tuple[str, str, str]]:
        """A user's events, oldest first: (item id, title, behaviour). Raises UnknownError."""
        state = self.state
        met = self._met(state, user)
        engine = state.serving.engine
        pairs = zip(met.rows, met.behaviours, strict=True)
        return [(engine.catalog.ids[row], engine.title(row), BEHAVIOURS[kind]) for row, kind in pairs]

    def page(self, user: str, skip: int, k: int) -> dict[str, Any]:
        """A page of a user's events, newest first. Raises UnknownError."""
        found = self.history(user)
        newest = [
            {"item_id": item, "title": title, "behavior": behaviour} for item, title, behaviour in reversed(found)
        ]
        return {"total": len(found), "events": newest[skip : skip + k]}

    def about(self) -> dict[str, Any]:
        serving = self.serving
        engine = serving.engine
        return {
            "domain": serving.domain.name,
            "model": engine.version,
            "items": len(engine),
            "users": len(serving.domain.interactions.user_ids),
            "interactions": len(serving.domain.interactions),
            "protocol": serving.kept.protocol,
            "behaviours": BEHAVIOURS,
            "attributes": engine.attributes.columns,
            "search": "exact" if engine.index.exact else "approximate",
        }

    def search(self, words: str, skip: int, k: int) -> dict[str, Any]:
        serving = self.serving
        return browse.found(serving.engine, words, skip, k, serving.verdict.for_all)

    def item(self, item: str) -> dict[str, Any]:
        """Raises UnknownError."""
        serving = self.serving
        return browse.described(serving.engine, item, serving.verdict.for_all)

    def add_events(self, events: Sequence[Event]) -> None:
        """All of them, or none: raises UnknownError, ConfigError for the first that cannot be."""
        with self._writing:
            rows = self.serving.engine.catalog.row
            for event in events:
                if event.item not in rows:
                    raise UnknownError(f"the catalogue has no item {event.item[:80]!r}; send new items first")
                if not behaviour_code(event.behavior) and event.behavior.lower() != BEHAVIOURS[0]:
                    raise ConfigError(
                        f"expected a behaviour among {', '.join(BEHAVIOURS)}, found {event.behavior[:40]!r}"
                    )
            self._enter(events)
        self._tell("events", {"count": len(events)})

    def add_items(self, items: Sequence[NewItem]) -> None:
        """They can be recommended when this returns. Raises TakenError for an id that is there already, ConfigError
        for an attribute that is not."""
        with self._writing:
            self.serving.engine.catalog.check_attributes(items)
            serving = self.serving.with_items(items)
            self._enter(items)
            self.state = replace(self.state, serving=serving)
        self._tell("items", {"count": len(items)})

    def add_feedback(self, feedback: Feedback) -> None:
        """Raises UnknownError for an item that is not there."""
        with self._writing:
            if feedback.item not in self.serving.engine.catalog.row:
                raise UnknownError(f"the catalogue has no item {feedback.item[:80]!r}")
            self._enter([feedback])
        self._tell("feedback", {"what": feedback.what})

    def rules(self) -> dict[str, Any]:
        """The rules in force: names, ages, how many items each strikes; and the version that the log names."""
        verdict = self.serving.verdict
        found = [
            {"rule": rule.name, "items": verdict.counts[rule.name]}
            | ({} if rule.least_age == NOBODY else {"least_age": rule.least_age})
            for rule in verdict.rules.rules
        ]
        return {"version": verdict.rules.version, "rules": found}

    def queue(self) -> list[dict[str, Any]]:
        """Items that users called harmful and nobody decided about yet, the most reported first."""
        engine = self.serving.engine
        rows = engine.catalog.row
        return [
            {"title": engine.title(rows[one.item]) if one.item in rows else "", **asdict(one)}
            for one in queue(self.journal.entries)
        ]

    def decide(self, item: str, what: str) -> None:
        """Take an item out of the queue: ``block`` it for everybody, or ``keep`` it. On disk, and in force, at once.

        Raises UnknownError for an item that is not there, ConfigError for another decision.
        """
        if what not in DECISIONS:
            raise ConfigError(f"expected a decision among {', '.join(DECISIONS)}, found {what[:40]!r}")
        with self._writing:
            if item not in self.serving.engine.catalog.row:
                raise UnknownError(f"the catalogue has no item {item[:80]!r}")
            self._enter([Decision(item, what, time.time())])
            self._judge()
        self._tell("decision", {"what": what})

    def refresh_rules(self) -> str | None:
        """Take over a changed file of rules; their version, names and counts, None where it did not change.

        Raises ConfigError when it cannot be used: the old rules stay.
        """
        mark = mark_of(self.rules_file)
        if mark == self._rules_seen:
            return None
        if mark is None:
            raise ConfigError(f"{self.rules_file} is gone; put it back, or an empty file for no rules")
        rules = read_rules(self.rules_file)
        with self._writing:
            judged = self.serving.under(rules.with_reviewed(blocked(self.journal.entries)))
            self.state = replace(self.state, serving=judged)
            self._rules, self._rules_seen = rules, mark
        self._tell("rules", {"version": judged.verdict.rules.version})
        return spelt(judged.verdict)

    def _judge(self) -> None:
        self.state = replace(self.state, serving=self.serving.under(self._in_force()))

    def refresh(self) -> str | None:
        """Take over a model that was trained since, and what other processes wrote; its version, None for neither.

        Raises DataError when it cannot serve.
        """
        with self._reading:
            mark = self._mark()
            if mark == self._seen and not self.journal.stale:
                return None
            with self._writing:  # what is answered meanwhile is in the journal's entries, behind these
                self.journal.reload()
                known = list(self.journal.entries)
            state = self._read(known)
            with self._writing:
                for entry in self.journal.entries[len(known) :]:
                    if isinstance(entry, NewItem):
                        state.serving = state.serving.with_items([entry])
                    _note(state, entry)
                state.serving = state.serving.under(self._in_force())
                self.state, self._seen = state, mark
            self._empty_log()
        self._tell("model", {"model": state.serving.engine.version})
        return state.serving.engine.version

    def export(self, user: str) -> dict[str, Any]:
        """All that the domain holds of a user. Raises UnknownError."""
        self.shown.flush()
        return export_user(self.home, user, self._data)

    def forget(self, user: str) -> Forgotten:
        """Nothing knows the user when this returns; the owner's own files stay as they are. Raises UnknownError."""
        self.shown.flush()
        found = forget(self.home, user, self._data)
        self.refresh()
        self._tell("forgotten", {"shown": found.shown})
        return found

    def close(self) -> None:
        """What was shown is on disk when this returns."""
        self.shown.close()

    def _empty_log(self) -> None:
        """Of those who were forgotten since, in this process or another, what was shown until it knew."""
        gone = set(read_forgotten(self.home))
        hashes = {one.shown for one in gone - self._gone}
        if hashes:
            self.shown.flush()
            self.shown.log.empty(lambda body: body.get("user") in hashes)
        self._gone = gone

    def _in_force(self) -> Rules:
        return self._rules.with_reviewed(blocked(self.journal.entries))

    def watch(self, stopped: threading.Event, every_s: float = 1.0, say: Callable[[str], None] = print) -> None:
        """Take over new models and new rules until told to stop."""
        rules = (self.refresh_rules, lambda: mark_of(self.rules_file), stopped, every_s, say, "rules")
        beside = threading.Thread(target=watch, args=rules, daemon=True)
        beside.start()
        watch(self.refresh, self._mark, stopped, every_s, say)
        beside.join()

    def _read(self, entries: Sequence[Entry]) -> State:
        serving = open_serving(self.home, self._cache, self._data, entries, self._rules)
        state = State(serving)
        for entry in entries:
            if isinstance(entry, Feedback):
                _note(state, entry)
        return state

    def _mark(self) -> object:
        """Changes when a training leaves another model: ``home.json`` is written last."""
        return mark_of(self.home.about), mark_of(self.home.forgotten)

    def _enter(self, entries: Sequence[Entry]) -> None:
        self.journal.append(entries)
        for entry in entries:
            _note(self.state, entry)

    def _person(self, state: State, who: Who) -> Person:
        if (who.user is not None and who.history) or (who.user is None and not who.history and not who.passport):
            raise ConfigError("expected either a user or a history, or a passport, or it too")
        serving = state.serving
        before = self._admitted(serving, who.passport) if who.passport else None
        if who.user is not None:
            return serving.known(who.user, before, state.later.get(who.user, Met()))
        if not who.history and before is not None:
            return serving.bearer(before)
        told = Person(serving.engine.told(who.history), None, tuple(map(serving.engine.called, who.history)))
        return serving.led_by(before, told)

    def _admitted(self, serving: Serving, passport: bytes) -> torch.Tensor:
        if self.border is None:
            raise ConfigError("passports are not taken here: serve was started without --issuer-key and --code-book")
        return self.border.admit(passport, serving.kept.base, serving.engine.whitening)

    def _met(self, state: State, user: str) -> Met:
        met, later = state.serving.people.met(user), state.later.get(user)
        if met is None and later is None:
            raise UnknownError(f"domain {state.serving.domain.name} knows no such user; check the id")
        return (met or Met()) + (later or Met())

    def _tell(self, kind: str, data: dict[str, Any]) -> None:
        for listener in list(self.listeners):
            listener(kind, data)


def _note(state: State, entry: Entry) -> None:
    """What an entry of the journal changes in the next answer."""
    if isinstance(entry, Event):
        row, kind = state.serving.engine.catalog.row[entry.item], behaviour_code(entry.behavior)
        before = state.later.get(entry.user, Met())
        state.later[entry.user] = before + Met((row,), (kind,), (entry.timestamp,))
    elif isinstance(entry, Feedback) and entry.what in (HIDE, HARMFUL):
        state.hidden[entry.user] = state.hidden.get(entry.user, frozenset()) | {entry.item}
