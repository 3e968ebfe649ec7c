"""Matrix factorisation by Bayesian personalised ranking (Rendle et al. 2009) through ``implicit``."""

from pathlib import Path

import numpy as np
import torch
from implicit.bpr import BayesianPersonalizedRanking

from client.corpus import Corpus
from client.evaluate import Score
from client.splits import Cases
from shared.metrics import Ints
from simulations.baselines import Recommend, Tick, tuned, valid_ndcg
from simulations.baselines.neighbours import matrix

TRIED = tuple((epochs, decay) for epochs in (50, 150) for decay in (0.01, 0.05))


def bpr_mf(corpus: Corpus, seed: int, tick: Tick | None = None, place: Path | None = None) -> Recommend:
    """64 factors and an item bias; epochs and weight decay by validation."""
    known = matrix(corpus.split.train, len(corpus.space))

    def fit(epochs: int, decay: float) -> Recommend:
        model = BayesianPersonalizedRanking(
            factors=64, learning_rate=0.05, regularization=decay, iterations=epochs, random_state=seed, num_threads=1
        )
        model.fit(known, show_progress=False)
        users, items = (torch.from_numpy(np.asarray(part)) for part in (model.user_factors, model.item_factors))

        def recommend(cases: Cases) -> Score:
            def score(rows: Ints) -> torch.Tensor:
                return users[cases.users[rows].astype(np.int64)] @ items.T

            return score

        return recommend

    tried = [fit(*setting) for setting in TRIED]
    return tuned(max(tried, key=lambda one: valid_ndcg(one, corpus)), corpus)
