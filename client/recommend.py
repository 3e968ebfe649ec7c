"""Recommendations from a finished run, where the history is: a domain serves its own users."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from client.batches import pad
from client.dataset import Domain, read_domain
from client.splits import Histories
from client.store import Home, load
from shared.catalog import Catalog, behaviour_code
from shared.errors import ConfigError, DataError
from shared.model import (
    Private,
    Recommender,
    Space,
    adapter_tensors,
    base_fingerprint,
    load_adapter_tensors,
    positions_logits,
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
        self.x = self.model.encode(self.space)

    @property
    def catalog(self) -> Catalog:
        return self.domain.catalog

    def for_user(self, user_id: str, k: int, before: torch.Tensor | None = None) -> list[Recommendation]:
        """Top ``k`` for a user of this domain, all of whose events count; raises DataError for an unknown one.

        ``before`` (codes, dim) are a passport's places (``client.passport.accept``), older than all events.
        """
        try:
            user = self.domain.interactions.user_ids.index(user_id)
        except ValueError:
            raise DataError(
                f"domain {self.domain.name} knows no such user; check the id, or describe a history with --history"
            ) from None
        mine = self.domain.interactions.users == user
        items = self.domain.interactions.items[mine]
        kinds = self.domain.interactions.behaviours[mine]
        return self._top(items.tolist(), kinds.tolist(), user, k, (), before)

    def for_passport(self, before: torch.Tensor, k: int) -> list[Recommendation]:
        """Top ``k`` for someone of whom nothing but a passport's places is known."""
        return self._top([], [], None, k, (), before)

    def for_history(self, titles: Sequence[str], k: int, before: torch.Tensor | None = None) -> list[Recommendation]:
        """Top ``k`` after these titles, oldest first. A title of the catalogue counts as that item; any other
        text is read by the encoder as an item of its own."""
        titles = [title.strip() for title in titles if title.strip()]
        if not titles:
            raise ConfigError("--history expects titles with ';' between them, found none")
        rows: list[int] = []
        foreign: list[str] = []
        for title in titles:
            row = self.find(title)
            rows.append(len(self.catalog) + len(foreign) if row is None else row)
            if row is None:
                foreign.append(title)
        return self._top(rows, [behaviour_code("view")] * len(rows), None, k, foreign, before)

    def find(self, title: str) -> int | None:
        """Row of the catalogue's item of that title, case aside; None when there is none."""
        wanted = " ".join(title.split()).casefold()
        return next((row for row, known in enumerate(self.catalog.titles) if known.casefold() == wanted), None)

    @torch.no_grad()
    def _top(
        self,
        rows: list[int],
        kinds: list[int],
        user: int | None,
        k: int,
        foreign: Sequence[str],
        before: torch.Tensor | None = None,
    ) -> list[Recommendation]:
        if k < 1:
            raise ConfigError(f"-k expects at least 1, found {k}")
        items = len(self.catalog)
        space, x = self.space, self.x
        private = deepcopy(self.private)
        if foreign:
            space, x = _behind(space, x, *self._read(foreign))
        if before is not None:
            # A place is no text, so the adapted encoder has no word on it: the base's own vector stands for both.
            rows = [*range(len(space), len(space) + len(before)), *rows]
            kinds = [behaviour_code("other")] * len(before) + kinds
            space, x = _behind(space, x, before, before)
        _stretch(private, len(space) - items)
        v = private.items(self.model.items(x))
        histories = Histories.from_lists([rows], [kinds])
        batch = pad(histories, np.zeros(1, np.int64), np.array([user or 0]), self.model.plan.max_history)
        last = torch.tensor([max(int(batch.mask.sum()) - 1, 0)])
        if user is None:
            private.user = None
        scores = positions_logits(self.model, space, x, v, batch, (torch.zeros(1, dtype=torch.int64), last), private)
        scores = scores[0, :items]
        scores[torch.tensor([row for row in rows if row < items], dtype=torch.int64)] = -torch.inf
        open_items = int(torch.isfinite(scores).sum())
        top = torch.topk(scores, min(k, open_items))
        return [
            Recommendation(rank, self.catalog.ids[row], self.catalog.titles[row] or "(no title)", round(score, 4))
            for rank, (score, row) in enumerate(zip(top.values.tolist(), top.indices.tolist(), strict=True), 1)
        ]

    def _read(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors of texts that the catalogue does not list, by the base and by the adapted encoder: (texts, dim)."""
        tokens = tokenize(self.model.base, texts, self.model.plan.max_tokens)
        states = [prefix_forward(self.model.top.bert, [ids], self.model.split)[0] for ids in tokens]
        offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in tokens])]).astype(np.int64)
        some = PrefixStates(torch.cat(states).to(torch.bfloat16), offsets)
        plain = self.space.whitening(self.model.encode_plain(some))
        tuned = self.space.whitening(self.model.encode_raw(some, np.arange(len(texts))))
        return plain, tuned


def _behind(space: Space, x: torch.Tensor, plain: torch.Tensor, tuned: torch.Tensor) -> tuple[Space, torch.Tensor]:
    """The catalogue and, behind it, what it does not list."""
    return Space(space.states, space.whitening, torch.cat([space.base, plain])), torch.cat([x, tuned])


def _stretch(private: Private, more: int) -> None:
    """Neutral rows for items behind the catalogue, in place."""
    private.lift = torch.cat([private.lift, torch.zeros(more)])
    private.bias.data = torch.cat([private.bias.data, torch.zeros(more)])
    if private.item is not None:
        private.item.weight.data = torch.cat([private.item.weight.data, torch.zeros(more, private.item.embedding_dim)])
