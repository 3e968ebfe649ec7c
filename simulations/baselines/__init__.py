"""What others do, in our harness: the same data, splits, ranking and validation.

A baseline is fitted to one domain's training part and gives scores for cases. Those that know nothing of
repeats may strike items already seen, where validation says so, so that our learned repeat weight is no
unfair lead.
"""

from collections.abc import Callable
from importlib import import_module

import torch

from client.corpus import Corpus
from client.evaluate import Score, rank_cases
from client.splits import Cases, Histories
from shared.errors import ConfigError
from shared.metrics import Ints, ranking_metrics

Recommend = Callable[[Cases], Score]
Tick = Callable[[str, int, int], None]
Fit = Callable[[Corpus, int, Tick | None], Recommend]  # (domain, seed, progress) -> recommender

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


def fit_baseline(name: str, corpus: Corpus, seed: int, tick: Tick | None = None) -> Recommend:
    """Train one of BASELINES on a domain. Raises ConfigError when a library is missing."""
    module, function = BASELINES[name].split(":")
    try:
        fit: Fit = getattr(import_module(f"simulations.baselines.{module}"), function)
    except ImportError as error:
        raise ConfigError(f"baseline {name} needs {error.name}: pip install 'isthmus[baselines]'") from None
    return fit(corpus, seed, tick)


def valid_ndcg(recommend: Recommend, corpus: Corpus) -> float:
    """NDCG@10 on validation cases."""
    cases = corpus.split.valid
    found = rank_cases(cases, len(corpus.space), recommend(cases))
    return ranking_metrics(found.ranks, cases.targets.offsets, found.candidates)["ndcg@10"]


def strike_if_better(recommend: Recommend, corpus: Corpus) -> Recommend:
    """The recommender, or the same with items of the history put last, whichever validates better."""
    return max((recommend, struck(recommend)), key=lambda one: valid_ndcg(one, corpus))


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
