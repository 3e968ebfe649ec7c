from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch

from client.evaluate import (
    Ranked,
    evaluate,
    mask_rows,
    measure,
    model_score,
    rank_cases,
    strata,
    target_ranks,
)
from client.splits import Cases, Histories


def test_ranks_by_hand_with_ties_against_the_target():
    scores = torch.tensor([[0.5, 0.9, 0.5, 0.1], [1.0, 1.0, 1.0, 1.0]])
    targets = Histories.from_lists([[1, 2], [3]])
    # item 1 is first; item 2 ties with item 0 and counts as third; a constant scorer is always last
    assert target_ranks(scores, targets, np.array([0, 1])).tolist() == [1, 3, 4]


def test_a_model_of_no_numbers_is_the_worst_and_not_the_best():
    scores = torch.full((1, 4), torch.nan)
    assert target_ranks(scores, Histories.from_lists([[1]]), np.array([0])).tolist() == [4]
    scores[0, 1] = 0.5
    assert target_ranks(scores, Histories.from_lists([[1]]), np.array([0])).tolist() == [4]
    cases = Cases(np.zeros(1, np.int32), Histories.from_lists([[0]]), Histories.from_lists([[1]]), seen=None)
    nothing = rank_cases(replace(cases, rivals=np.array([[2, 3]])), 4, lambda rows: torch.full((1, 4), torch.nan))
    assert nothing.ranks.tolist() == [3]


def test_masked_items_are_out_of_the_running():
    scores = torch.tensor([[0.5, 0.9, 0.7]])
    assert mask_rows(scores, Histories.from_lists([[], [1, 1]]), np.array([1], dtype=np.int32)).tolist() == [1]
    assert target_ranks(scores, Histories.from_lists([[2]]), np.array([0])).tolist() == [1]


def test_blocks_give_the_ranks_of_one_case_at_a_time(members, plan, monkeypatch):
    corpus = members[0].corpus(plan)
    model = members[0].workshop.model(plan)
    cases = corpus.split.test
    score = model_score(model, corpus, cases)
    whole = rank_cases(cases, len(corpus.space), score).ranks
    monkeypatch.setattr("client.evaluate.BLOCK_ROWS", 1)
    alone = rank_cases(cases, len(corpus.space), score).ranks
    # padding changes sums in the last bits: a near tie may swap
    assert (np.abs(whole - alone) <= 1).all()
    assert (whole == alone).mean() > 0.95
    assert whole.min() >= 1
    assert whole.max() <= len(corpus.domain.catalog)


def test_a_score_knows_all_that_was_met(members, plan):
    corpus, model = members[0].corpus(plan), members[0].workshop.model(plan)
    most = plan.model.max_history
    recent = [1 + row % 5 for row in range(most)]
    long, short = (
        model_score(model, corpus, cases([rows], [[0]]))(np.zeros(1, np.int64)) for rows in ([30, *recent], recent)
    )
    more = (long - short)[0]
    assert more.nonzero().squeeze(1).tolist() == [30]
    torch.testing.assert_close(more[30], model.mix.weights()[2].detach())


def test_time_protocol_strikes_seen_items(members, plan):
    from client.corpus import build_corpus

    member = members[0]
    model = member.workshop.model(plan)
    corpus = build_corpus(member.domain, "time", member.workshop.space(plan, member.domain), plan)
    assert corpus.split.test.seen is not None
    found = evaluate(model, corpus, corpus.split.test)
    assert 0 < found["hr@10"] <= 1
    assert found["cases"] == len(corpus.split.test)
    assert set(found["strata"]) == {"warm item", "cold item", "new item", "cold user"}


def cases(histories, targets, seen=None, rivals=None):
    users = np.arange(len(histories), dtype=np.int32)
    return Cases(users, Histories.from_lists(histories), Histories.from_lists(targets), seen, rivals)


def test_struck_and_sampled_items_by_hand():
    table = torch.tensor([[5.0, 4.0, 3.0, 2.0], [1.0, 2.0, 3.0, 4.0]])
    score = lambda rows: table[torch.from_numpy(rows)].clone()  # noqa: E731
    plain = rank_cases(cases([[0], [3, 2]], [[2], [0, 1]]), 4, score, 2)
    assert plain.ranks.tolist() == [3, 4, 3]
    assert plain.candidates.tolist() == [4, 4]
    assert plain.top.tolist() == [[0, 1], [3, 2]]
    struck = rank_cases(cases([[0], [3, 2]], [[2], [0, 1]], seen=Histories.from_lists([[0], [3, 2, 3]])), 4, score, 2)
    assert struck.ranks.tolist() == [2, 2, 1]
    assert struck.candidates.tolist() == [3, 2]
    sampled = rank_cases(cases([[0], [3]], [[2], [0]], rivals=np.array([[3], [3]])), 4, score)
    assert sampled.ranks.tolist() == [1, 2]
    assert sampled.candidates.tolist() == [2, 2]


def test_strata_tell_targets_apart(members, plan):
    corpus = members[0].corpus(plan)
    found = strata(corpus, corpus.split.test)
    known = corpus.popularity[corpus.split.test.targets.items]
    assert np.array_equal(found["warm item"], known >= 3)
    assert np.array_equal(found["warm item"] | found["cold item"] | found["new item"], np.ones(len(known), bool))
    popular = rank_cases(
        corpus.split.test, len(corpus.space), lambda rows: torch.zeros(len(rows), len(corpus.space)), 10
    )
    parts = measure(popular, corpus, corpus.split.test)[0]["strata"]
    assert sum(parts[name]["cases"] for name in ("warm item", "cold item", "new item")) == len(known)
    assert all(part["hr@10"] == 0 for part in parts.values())  # a constant scorer earns nothing


def test_cases_of_a_stratum_have_its_targets_alone():
    """One user met a warm and a new item, of which the new one was second; the other a warm one."""
    corpus = SimpleNamespace(popularity=np.array([9, 9, 0, 9]))
    asked = cases([[0, 1, 3], [3, 2, 1]], [[1, 2], [0]])
    ranked = Ranked(ranks=np.array([1, 3, 2]), candidates=np.array([4, 4]), top=np.zeros((2, 0), np.int64))
    _, found = measure(ranked, corpus, asked, np.array([True, True]))
    half = 1 / np.log2(3)
    np.testing.assert_allclose(found["ndcg@10 of warm item"], [1, half])
    np.testing.assert_allclose(found["ndcg@10 of new item"], [half, np.nan])  # what stood above was right as well
    assert np.isnan(found["ndcg@10 of cold user"]).all()
    assert np.isnan(found["ndcg@10 of known elsewhere"]).all()  # they have a history here


def test_who_is_known_elsewhere_alone_has_no_history_here():
    corpus = SimpleNamespace(popularity=np.array([9, 9, 0, 9]))
    asked = cases([[], [], [3]], [[1, 2], [0], [0]])
    found = strata(corpus, asked, np.array([True, False, True]))
    assert found["known elsewhere"].tolist() == [True, True, False, False]
    assert found["cold user"].tolist() == [True] * 4
    assert "known elsewhere" not in strata(corpus, asked)
