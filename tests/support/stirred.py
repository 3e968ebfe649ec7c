"""A model away from the zeros of its start, with private parameters and neighbours that count."""

import torch

from shared.model import Recommender, shared_parameters
from shared.prefix import find_base
from shared.scoring import Scorer, item_vectors


def stirred_scorer(member, plan) -> Scorer:
    corpus = member.corpus(plan)
    model = Recommender(plan.model, find_base(plan.model.base), 7).eval()
    private = corpus.private(model)
    draw = torch.Generator().manual_seed(0)
    for value in [*shared_parameters(model).values(), *private.parameters()]:
        value.data.add_(0.1 * torch.randn(value.shape, generator=draw))
    private.near.copy_(torch.tensor([2.0, 10.0, 0.8]))
    private.lift.add_(0.1)
    vectors = item_vectors(model, corpus.space.base, model.encode(corpus.space), private)
    return Scorer(model, vectors, private)
