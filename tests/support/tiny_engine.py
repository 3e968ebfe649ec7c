"""An engine whose model is away from the zeros of its start, and signals that let everything through."""

import torch
from support.stirred import stirred_scorer

from shared.engine import Engine
from shared.index import Index
from shared.policy import Signals


def stirred_engine(member, plan, index: Index | None = None) -> Engine:
    scorer = stirred_scorer(member, plan)
    whitening = member.corpus(plan).space.whitening
    return Engine(member.domain.catalog, scorer, whitening, index or Index(len(scorer)), "0" * 12)


def plain_signals(items: int) -> Signals:
    return Signals(torch.zeros(items), torch.zeros(items), torch.ones(items, dtype=torch.bool))
