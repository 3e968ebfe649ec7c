"""Full ranking of a catalogue for each case, by whichever recommender; the numbers stay at home."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from client.batches import in_order, met_before, pad
from client.corpus import Corpus
from client.splits import Cases, Histories
from shared.metrics import Floats, Ints, case_metrics, exposure, means, only
from shared.model import Recommender, positions_logits
from shared.private import Private

BLOCK_SCORES = 4_000_000  # scores held at a time: 16 MB
BLOCK_ROWS = 256  # histories held at a time: their vectors take 20 MB, ten times over
TOP = 10
OF_STRATUM = "ndcg@10 of "  # and a stratum's name
COLD = 2  # most training interactions of a cold item, most events of a cold user

Score = Callable[[Ints], torch.Tensor]  # case numbers (rows,) -> scores (rows, items)


@dataclass(frozen=True)
class Ranked:
    """How a recommender ranked some cases."""

    ranks: Ints  # of each target, in the order of cases.targets.items
    candidates: Ints  # (cases,) items that were ranked
    top: Ints  # (cases, k) the items shown; k = 0 where nobody asked


def rank_cases(cases: Cases, items: int, score: Score, k: int = 0) -> Ranked:
    """1-based rank of each target among all ``items``, and the best ``k``.

    Ties count against the target, so that a constant scorer earns nothing. Items of the user's history are out of
    the running where the protocol strikes them; under a sampled protocol only its negatives compete.
    """
    ranks = np.zeros(len(cases.targets.items), np.int64)
    candidates = np.full(len(cases), items, np.int64)
    top = np.zeros((len(cases), min(k, items)), np.int64)
    order = np.argsort(cases.histories.lengths, kind="stable")  # like lengths together: little padding
    for block in in_order(len(cases), max(1, min(BLOCK_ROWS, BLOCK_SCORES // items))):
        rows = order[block]
        scores = score(rows)
        if cases.seen is not None:
            candidates[rows] -= mask_rows(scores, cases.seen, cases.users[rows])
        if k:
            top[rows] = torch.topk(scores, top.shape[1]).indices.numpy()
        places = np.concatenate([np.arange(*cases.targets.offsets[[row, row + 1]]) for row in rows])
        if cases.rivals is None:
            ranks[places] = target_ranks(scores, cases.targets, rows)
        else:
            candidates[rows] = cases.rivals.shape[1] + 1
            own = scores[torch.arange(len(rows)), torch.from_numpy(cases.targets.items[places].astype(np.int64))]
            others = scores.gather(1, torch.from_numpy(cases.rivals[rows]))
            ranks[places] = 1 + (~(others < own[:, None])).sum(1).numpy()
    return Ranked(ranks, candidates, top)


def mask_rows(scores: torch.Tensor, seen: Histories, users: npt.NDArray[np.int32]) -> Ints:
    """Put what each user has seen out of the running, in place; how many items that were, (rows,)."""
    counts = np.zeros(len(users), np.int64)
    for place, user in enumerate(users):
        items = np.unique(seen.row(int(user)).astype(np.int64))
        scores[place, torch.from_numpy(items)] = -torch.inf
        counts[place] = len(items)
    return counts


def target_ranks(scores: torch.Tensor, targets: Histories, rows: Ints) -> Ints:
    """How many items score at least as high as each target, itself included; what is no number counts against it."""
    counts = np.diff(targets.offsets)[rows]
    place = torch.from_numpy(np.repeat(np.arange(len(rows)), counts))
    items = np.concatenate([targets.row(int(row)) for row in rows]).astype(np.int64)
    ranks = torch.empty(len(items), dtype=torch.int64)
    for at in range(0, len(items), len(rows)):  # as many targets at a time as there are rows
        some = slice(at, at + len(rows))
        own = scores[place[some], torch.from_numpy(items[some])]
        ranks[some] = (~(scores[place[some]] < own[:, None])).sum(1)
    return ranks.numpy()


def model_score(
    model: Recommender, corpus: Corpus, cases: Cases, private: Private | None = None, x: torch.Tensor | None = None
) -> Score:
    """Scores after each case's history; ``x`` are the catalogue's current vectors where the caller has them."""
    model.eval()
    x = model.encode(corpus.space) if x is None else x
    with torch.no_grad():
        v = model.items(x) if private is None else private.items(model.items(x))

    @torch.no_grad()
    def score(rows: Ints) -> torch.Tensor:
        batch = pad(cases.histories, rows, cases.users[rows], model.plan.max_history)
        last = (batch.mask.sum(1) - 1).clamp(min=0)
        scores = positions_logits(model, corpus.space, x, v, batch, (torch.arange(len(rows)), last), private)
        older = met_before(cases.histories, rows, model.plan.max_history)  # not read, but known to be met
        return scores.index_put(older, model.mix.weights()[2].expand(len(older[0])), accumulate=True)

    return score


def validate(
    model: Recommender, corpus: Corpus, private: Private | None = None, x: torch.Tensor | None = None
) -> float:
    """NDCG@10 over the validation cases, the figure that everything is chosen by."""
    cases = corpus.split.valid
    found = rank_cases(cases, len(corpus.space), model_score(model, corpus, cases, private, x))
    return float(case_metrics(found.ranks, cases.targets.offsets, found.candidates)["ndcg@10"].mean())


def evaluate(
    model: Recommender, corpus: Corpus, cases: Cases, private: Private | None = None, x: torch.Tensor | None = None
) -> dict[str, Any]:
    """What ``measure`` finds of the model over the cases."""
    ranked = rank_cases(cases, len(corpus.space), model_score(model, corpus, cases, private, x), TOP)
    return measure(ranked, corpus, cases)[0]


def per_case(ranked: Ranked, cases: Cases) -> dict[str, Floats]:
    """Metrics of each case, for intervals and paired tests."""
    return case_metrics(ranked.ranks, cases.targets.offsets, ranked.candidates)


def measure(
    ranked: Ranked, corpus: Corpus, cases: Cases, elsewhere: npt.NDArray[np.bool_] | None = None
) -> tuple[dict[str, Any], dict[str, Floats]]:
    """(means of all metrics, what the lists expose, and the strata under ``strata``; all of it case by case).

    Of a stratum, by case, NDCG@10 under ``OF_STRATUM`` and its name, nan where it has no target of it. ``elsewhere`` as
    in ``strata``.
    """
    by_case = per_case(ranked, cases)
    found: dict[str, Any] = {**means(by_case), **exposure(ranked.top, corpus.popularity), "cases": len(cases)}
    found["strata"] = {}
    for name, keep in strata(corpus, cases, elsewhere).items():
        ranks, offsets, left = only(ranked.ranks, cases.targets.offsets, keep)
        values = case_metrics(ranks, offsets, ranked.candidates[left])
        found["strata"][name] = {"cases": len(left), **{key: means(values)[key] for key in ("hr@10", "ndcg@10")}}
        by_case[OF_STRATUM + name] = np.full(len(cases), np.nan)
        by_case[OF_STRATUM + name][left] = values["ndcg@10"]
    return found, by_case


def strata(
    corpus: Corpus, cases: Cases, elsewhere: npt.NDArray[np.bool_] | None = None
) -> dict[str, npt.NDArray[np.bool_]]:
    """Which targets are of an item that is warm, cold (few training interactions) or new (none), and which are of a
    cold user (a short history), or of one who is known from another domain alone: (targets,) each.

    That last one where ``elsewhere`` tells which users another domain knows, (users,): no domain does by itself.
    """
    known, lengths = corpus.popularity[cases.targets.items], cases.histories.lengths
    found = {
        "warm item": known > COLD,
        "cold item": (known > 0) & (known <= COLD),
        "new item": known == 0,
        "cold user": np.repeat(lengths <= COLD, cases.targets.lengths),
    }
    if elsewhere is not None:
        found["known elsewhere"] = np.repeat((lengths == 0) & elsewhere[cases.users], cases.targets.lengths)
    return found
