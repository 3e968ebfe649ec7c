"""What others do, in our harness: the same data, splits, ranking and validation.

A baseline is fitted to one domain's training part and gives scores for cases. What ours learns or chooses beside its
towers, each baseline may choose on validation too (``tuned``): whether items already met are struck, left, or raised by
how lately they were met, and how much popularity counts.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import torch

from client.corpus import Corpus
from client.evaluate import Score, rank_cases
from client.splits import Cases, Histories
from shared.errors import ConfigError
from shared.metrics import Ints, ranking_metrics

Recommend = Callable[[Cases], Score]
Tick = Callable[[str, int, int], None]
# (domain, seed, progress, file where one that takes hours may keep how far it is) -> recommender
Fit = Callable[[Corpus, int, Tick | None, Path | None], Recommend]

RAISED, FADES = (1.0, 10.0, 100.0, 1000.0), 0.9
CROWD = (0.3, 1.0, 3.0, 10.0)
SOME = 200  # cases that tell how far scores are apart

# name -> "module:function"; imported when asked for, since some need a library that is an extra
BASELINES = {
    "popularity": "popularity:popularity",
    "item_knn": "neighbours:item_knn",
    "bpr_mf": "factors:bpr_mf",
    "sasrec": "sasrec:sasrec",
    "unisrec": "sasrec:unisrec",
    "fedmf": "federated:fedmf",
    "fedncf": "federated:fedncf",
    "pfedrec": "federated:pfedrec",
}


def find_baseline(name: str) -> Fit:
    """What fits one of BASELINES to a domain. Raises ConfigError when a library is missing."""
    module, function = BASELINES[name].split(":")
    try:
        fit: Fit = getattr(import_module(f"simulations.baselines.{module}"), function)
    except ImportError as error:
        raise ConfigError(f"baseline {name} needs {error.name}: pip install -e '.[baselines]'") from None
    return fit


def valid_ndcg(recommend: Recommend, corpus: Corpus) -> float:
    """NDCG@10 on validation cases."""
    cases = corpus.split.valid
    found = rank_cases(cases, len(corpus.space), recommend(cases))
    return ranking_metrics(found.ranks, cases.targets.offsets, found.candidates)["ndcg@10"]


def tuned(recommend: Recommend, corpus: Corpus) -> Recommend:
    """The recommender with what validates best: first of what it does with items already met, then of popularity.

    Weights are in units of how far its scores are apart within a case.
    """
    unit = _spread(recommend, corpus)
    ways: list[Callable[[Recommend], Recommend]] = [lambda plain: plain, struck]
    ways += [partial(raised, weight=unit * one) for one in RAISED]
    way = max(ways, key=lambda way: valid_ndcg(way(recommend), corpus))  # the first of equals
    tried = [recommend, *(crowded(recommend, unit * one, corpus) for one in CROWD)]
    return max(map(way, tried), key=lambda one: valid_ndcg(one, corpus))


def _spread(recommend: Recommend, corpus: Corpus) -> float:
    """Standard deviation of the scores of a validation case, mean of some; 1 where all are equal."""
    some = np.arange(min(SOME, len(corpus.split.valid)))
    found = float(recommend(corpus.split.valid)(some).std(1).mean()) if len(some) else 0.0
    return found or 1.0


def raised(recommend: Recommend, weight: float) -> Recommend:
    """The recommender with items of the history raised, the latest by ``weight``, each before it by a tenth less."""

    def raise_score(cases: Cases) -> Score:
        score = recommend(cases)

        def with_bonus(rows: Ints) -> torch.Tensor:
            scores = score(rows)
            for place, row in enumerate(rows):
                items = cases.histories.row(int(row)).astype("int64")
                bonus = np.zeros(scores.shape[1], np.float32)
                bonus[items] = weight * FADES ** np.arange(len(items) - 1, -1, -1)  # of two the later one stays
                scores[place] += torch.from_numpy(bonus)
            return scores

        return with_bonus

    return raise_score


def crowded(recommend: Recommend, weight: float, corpus: Corpus) -> Recommend:
    """The recommender with the log of popularity, brought to a standard deviation of 1, added with this weight."""
    logs = np.log1p(corpus.popularity)
    added = torch.from_numpy(weight * (logs - logs.mean()) / max(float(logs.std()), 1e-9)).float()

    def crowd_score(cases: Cases) -> Score:
        score = recommend(cases)
        return lambda rows: score(rows) + added

    return crowd_score


def struck(recommend: Recommend, also: Histories | None = None) -> Recommend:
    """The recommender with items of the history put last, and those in the user's row of ``also``."""

    def struck_score(cases: Cases) -> Score:
        score = recommend(cases)

        def without(rows: Ints) -> torch.Tensor:
            scores = score(rows)
            low = scores.min() - 1
            for place, row in enumerate(rows):
                scores[place, torch.from_numpy(cases.histories.row(int(row)).astype("int64"))] = low
                if also is not None:
                    scores[place, torch.from_numpy(also.row(int(cases.users[row])).astype("int64"))] = low
            return scores

        return without

    return struck_score
