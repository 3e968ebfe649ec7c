import numpy as np
import torch

from client.evaluate import case_ranks, evaluate, mask_rows, target_ranks
from client.splits import Histories


def test_ranks_by_hand_with_ties_against_the_target():
    scores = torch.tensor([[0.5, 0.9, 0.5, 0.1], [1.0, 1.0, 1.0, 1.0]])
    targets = Histories.from_lists([[1, 2], [3]])
    # item 1 is first; item 2 ties with item 0 and counts as third; a constant scorer is always last
    assert target_ranks(scores, targets, np.array([0, 1])).tolist() == [1, 3, 4]


def test_masked_items_are_out_of_the_running():
    scores = torch.tensor([[0.5, 0.9, 0.7]])
    mask_rows(scores, Histories.from_lists([[], [1]]), np.array([1], dtype=np.int32))
    assert target_ranks(scores, Histories.from_lists([[2]]), np.array([0])).tolist() == [1]


def test_blocks_give_the_ranks_of_one_case_at_a_time(members, plan, monkeypatch):
    corpus = members[0].corpus(plan)
    model = members[0].workshop.model(plan)
    whole = case_ranks(model, corpus, corpus.split.test)
    monkeypatch.setattr("client.evaluate.BLOCK_ROWS", 1)
    alone = case_ranks(model, corpus, corpus.split.test)
    # padding changes sums in the last bits: a near tie may swap
    assert (np.abs(whole - alone) <= 1).all()
    assert (whole == alone).mean() > 0.95
    assert whole.min() >= 1
    assert whole.max() <= len(corpus.domain.catalog)


def test_time_protocol_strikes_seen_items(members, plan):
    from client.corpus import build_corpus

    member = members[0]
    model = member.workshop.model(plan)
    corpus = build_corpus(member.domain, "time", model, member.workshop.cache)
    assert corpus.split.test.seen is not None
    found = evaluate(model, corpus, corpus.split.test)
    assert 0 < found["hr@10"] <= 1
