"""Item-based nearest neighbours (Sarwar et al. 2001) through ``implicit``."""

import warnings
from pathlib import Path

import numpy as np
import torch
from implicit.nearest_neighbours import CosineRecommender
from implicit.utils import ParameterWarning
from scipy.sparse import csr_matrix

from client.corpus import Corpus
from client.evaluate import Score
from client.splits import Cases, Histories
from shared.metrics import Ints
from simulations.baselines import Recommend, Tick, tuned, valid_ndcg

NEIGHBOURS = (50, 200)  # tried; validation chooses


def item_knn(corpus: Corpus, seed: int, tick: Tick | None = None, place: Path | None = None) -> Recommend:
    """Sum of cosine similarities to the items of the history; popularity breaks ties."""
    tried = [_fit(corpus, count) for count in NEIGHBOURS]
    return tuned(max(tried, key=lambda one: valid_ndcg(one, corpus)), corpus)


def _fit(corpus: Corpus, neighbours: int) -> Recommend:
    items = len(corpus.space)
    model = CosineRecommender(K=neighbours, num_threads=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ParameterWarning)  # about a matrix that the library makes itself
        model.fit(matrix(corpus.split.train, items), show_progress=False)
    similar = model.similarity.tocsr()
    slight = 1e-6 * corpus.popularity / max(int(corpus.popularity.max()), 1)

    def recommend(cases: Cases) -> Score:
        known = matrix(cases.histories, items)

        def score(rows: Ints) -> torch.Tensor:
            return torch.from_numpy(((known[rows] @ similar).toarray() + slight).astype(np.float32))

        return score

    return recommend


def matrix(histories: Histories, items: int) -> csr_matrix:
    """Who met what, (rows, items), ones."""
    ones = np.ones(len(histories.items), np.float32)
    # A copy: adding up what is there twice sorts each row in place.
    found = csr_matrix((ones, histories.items, histories.offsets), shape=(len(histories), items), copy=True)
    found.sum_duplicates()
    found.data[:] = 1
    return found
