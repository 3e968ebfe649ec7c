"""Recommendations from a finished run, where the history is: a domain serves its own users."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from client.dataset import Domain, read_domain
from client.explain import reasons
from client.scoring import UNLISTED, Past, Scorer
from client.store import Home, load
from shared.catalog import Catalog, behaviour_code
from shared.errors import ConfigError, DataError
from shared.model import (
    Private,
    Recommender,
    adapter_tensors,
    base_fingerprint,
    load_adapter_tensors,
)
from shared.neighbours import split_off
from shared.payload import check_like
from shared.prefix import PrefixStates, find_base, prefix_forward, tokenize


@dataclass(frozen=True)
class Recommendation:
    """One line of an answer."""

    rank: int
    item_id: str
    title: str
    score: float


@dataclass(frozen=True)
class Because:
    """A reason for an item: by how much its score would fall had that event not been."""

    title: str
    drop: float


@dataclass(frozen=True)
class Person:
    """Whom an answer is for."""

    past: Past
    user: int | None  # row of somebody whom the domain has a residual of
    titles: tuple[str, ...]  # of the events


class Serving:
    """A finished run opened for serving: model, catalogue vectors, private parameters, all histories."""

    def __init__(self, home: Home, cache: Path, data: Path | None = None) -> None:
        kept = self.kept = load(home)
        self.domain: Domain = read_domain(data or kept.data, kept.domain)
        base = find_base(kept.plan.model.base)
        self.model = Recommender(kept.plan.model, base, kept.plan.federation.seed)
        if base_fingerprint(kept.plan.model, base) != kept.base:
            raise DataError(f"the run in {home.folder} was trained on another base model; install that one")
        check_like(kept.adapter, adapter_tensors(self.model), "the kept adapter")
        load_adapter_tensors(self.model, kept.adapter)
        self.model.eval()
        items = len(self.domain.catalog)
        users = len(self.domain.interactions.user_ids)
        neighbours, learnt = split_off(kept.private)
        self.private = Private(np.ones(items, np.int64), users, self.model.dim, kept.plan.model, neighbours)
        try:
            self.private.load_state_dict(learnt)
        except RuntimeError:
            raise DataError("the data have changed since the run: other users or items; train again") from None
        self.plan, self.base = kept.plan, kept.base
        self.space = self.model.space(self.domain.catalog.texts, cache)
        self.scorer = Scorer(self.model, self.space, self.private)

    @property
    def catalog(self) -> Catalog:
        return self.domain.catalog

    def known(self, user_id: str, before: torch.Tensor | None = None) -> Person:
        """A user of this domain with all their events; raises DataError for an unknown one.

        ``before`` (codes, dim) are a passport's places (``client.passport.accept``), older than all events.
        """
        data = self.domain.interactions
        try:
            user = data.user_ids.index(user_id)
        except ValueError:
            raise DataError(
                f"domain {self.domain.name} knows no such user; check the id, or describe a history with --history"
            ) from None
        mine = data.users == user
        rows = data.items[mine].tolist()
        titles = [self.title(row) for row in rows]
        return self._led_by(before, Person(self.scorer.past(rows, data.behaviours[mine].tolist()), user, tuple(titles)))

    def described(self, titles: Sequence[str], before: torch.Tensor | None = None) -> Person:
        """Somebody who met these titles, oldest first. A title of the catalogue counts as that item; any other text is
        read by the encoder as an item of its own."""
        titles = [title.strip() for title in titles if title.strip()]
        if not titles:
            raise ConfigError("--history expects titles with ';' between them, found none")
        past = self.scorer.past([], [])
        for title in titles:
            past = past + self._seen(title)
        return self._led_by(before, Person(past, None, tuple(titles)))

    def bearer(self, before: torch.Tensor) -> Person:
        """Somebody of whom nothing but a passport's places is known."""
        return self._led_by(before, Person(self.scorer.past([], []), None, ()))

    def top(self, person: Person, k: int) -> list[Recommendation]:
        """The ``k`` best items that this person has not met."""
        if k < 1:
            raise ConfigError(f"-k expects at least 1, found {k}")
        scores = self.scorer.scores(person.past, person.user)
        scores[person.past.rows[person.past.rows != UNLISTED]] = -torch.inf
        open_items = int(torch.isfinite(scores).sum())
        top = torch.topk(scores, min(k, open_items))
        return [
            Recommendation(rank, self.catalog.ids[row], self.title(row), round(score, 4))
            for rank, (score, row) in enumerate(zip(top.values.tolist(), top.indices.tolist(), strict=True), 1)
        ]

    def why(self, person: Person, item: str, most: int) -> list[Because]:
        """The events that raise this item's score most, by its id or title. Raises DataError for an unknown one."""
        row = self.catalog.ids.index(item) if item in self.catalog.ids else self.find(item)
        if row is None:
            raise DataError(f"the catalogue of {self.domain.name} has no item {item[:80]!r}; give its id or its title")
        return [
            Because(person.titles[reason.event], round(reason.drop, 4))
            for reason in reasons(self.scorer, person.past, person.user, row, most)
        ]

    def title(self, row: int) -> str:
        """What to call an item."""
        return self.catalog.titles[row] or "(no title)"

    def _seen(self, title: str) -> Past:
        """One event: the item of that title, or what the encoder makes of the words."""
        view = behaviour_code("view")
        if (row := self.find(title)) is not None:
            return self.scorer.past([row], [view])
        plain, tuned = self._read([title])
        return self.scorer.unlisted(tuned, plain, view)

    def find(self, title: str) -> int | None:
        """Row of the catalogue's item of that title, case aside; None when there is none."""
        wanted = " ".join(title.split()).casefold()
        return next((row for row, known in enumerate(self.catalog.titles) if known.casefold() == wanted), None)

    def _led_by(self, before: torch.Tensor | None, person: Person) -> Person:
        """With a passport's places before all events."""
        if before is None:
            return person
        # A place is no text, so the adapted encoder has no word on it: the base's own vector stands for both.
        places = self.scorer.unlisted(before, before, behaviour_code("other"))
        return Person(places + person.past, person.user, ("(taste passport)",) * len(before) + person.titles)

    def _read(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors of texts that the catalogue does not list, by the base and by the adapted encoder: (texts, dim)."""
        tokens = tokenize(self.model.base, texts, self.model.plan.max_tokens)
        states = [prefix_forward(self.model.top.bert, [ids], self.model.split)[0] for ids in tokens]
        offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in tokens])]).astype(np.int64)
        some = PrefixStates(torch.cat(states).to(torch.bfloat16), offsets)
        plain = self.space.whitening(self.model.encode_plain(some))
        tuned = self.space.whitening(self.model.encode_raw(some, np.arange(len(texts))))
        return plain, tuned
