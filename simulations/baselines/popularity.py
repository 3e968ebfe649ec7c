"""The most bought first, for everybody."""

import torch

from client.corpus import Corpus
from client.evaluate import Score
from client.splits import Cases
from simulations.baselines import Recommend, Tick, strike_if_better


def popularity(corpus: Corpus, seed: int, tick: Tick | None = None) -> Recommend:
    """Items by training interactions."""
    counts = torch.from_numpy(corpus.popularity).float()

    def recommend(cases: Cases) -> Score:
        return lambda rows: counts.repeat(len(rows), 1)

    return strike_if_better(recommend, corpus)
