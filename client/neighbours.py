"""How much a domain's own neighbours count in its scores: chosen at home, after training, on validation.

They stay out of training: an event that is learnt from would find itself among what was counted.
"""

from itertools import product

import numpy as np
import torch

from client.batches import in_order, pad
from client.corpus import Corpus
from client.evaluate import BLOCK_ROWS, BLOCK_SCORES, model_score, rank_cases, validate
from shared.metrics import case_metrics
from shared.model import Private, Recommender
from shared.seeding import stream

WEIGHTS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
SHARPNESS = (1.0, 10.0, 100.0)
CASES = 4000  # validation cases that the choice is made on, at most


def fit_neighbours(model: Recommender, corpus: Corpus, private: Private) -> float:
    """Set ``private.near`` to what validates best, off where nothing does; validation NDCG@10 with it."""
    private.near.zero_()
    if private.neighbours is not None:
        tried = [torch.zeros(3), *map(torch.tensor, product(WEIGHTS, SHARPNESS, (model.plan.recency, 1.0)))]
        best = int(np.argmax(_try(model, corpus, private, tried)))  # the first of equals
        private.near.copy_(tried[best])
    return validate(model, corpus, private)


@torch.no_grad()
def _try(model: Recommender, corpus: Corpus, private: Private, settings: list[torch.Tensor]) -> list[float]:
    """Mean validation NDCG@10 under each setting of ``private.near``, over some of the cases."""
    cases, items = corpus.split.valid, len(corpus.space)
    if len(cases) > CASES:
        cases = cases.take(np.sort(stream(0, "neighbours").choice(len(cases), CASES, replace=False)))
    plain = model_score(model, corpus, cases, private)
    sums = np.zeros(len(settings))
    for block in in_order(len(cases), max(1, min(BLOCK_ROWS, BLOCK_SCORES // items))):
        part = cases.take(block)
        batch = pad(part.histories, np.arange(len(part)), part.users, model.plan.max_history)
        at = (torch.arange(len(part)), (batch.mask.sum(1) - 1).clamp(min=0))
        scores = plain(block)
        for place, near in enumerate(settings):
            raised = scores + private.nearness(batch, at, near)
            found = rank_cases(part, items, raised.__getitem__)
            sums[place] += case_metrics(found.ranks, part.targets.offsets, found.candidates)["ndcg@10"].sum()
    return [float(one) for one in sums / len(cases)]
