"""A model away from the zeros of its start, with private parameters and neighbours that count."""

from pathlib import Path

import torch

from shared.engine import Engine
from shared.index import build
from shared.model import Recommender, shared_parameters
from shared.policy import Person
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


def stirred_engine(member, plan, folder: Path) -> Engine:
    scorer = stirred_scorer(member, plan)
    index = build(scorer.places(), folder, "stirred")
    return Engine(member.domain.catalog, scorer, member.corpus(plan).space.whitening, index, "stirred")


def person(engine: Engine, *history: str) -> Person:
    """Somebody who tells ids, titles or any words."""
    return Person(engine.told(history), None, tuple(map(engine.called, history)))
