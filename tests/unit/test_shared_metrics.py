import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shared.metrics import case_metrics, exposure, only, ranking_metrics


def test_by_hand():
    # case 0: one target at rank 2; case 1: targets at ranks 1 and 30; case 2: rank 11
    found = ranking_metrics(np.array([2, 1, 30, 11]), np.array([0, 1, 3, 4]), np.full(3, 40))
    gain = 1 / np.log2(3)
    assert found["hr@10"] == 2 / 3
    np.testing.assert_allclose(found["ndcg@10"], (gain + 1 / (1 + gain) + 0) / 3)
    np.testing.assert_allclose(found["recall@10"], (1 + 0.5 + 0) / 3)
    np.testing.assert_allclose(found["mrr"], (1 / 2 + 1 + 1 / 11) / 3)
    np.testing.assert_allclose(found["precision@10"], 0.2 / 3)
    np.testing.assert_allclose(found["f1@10"], (2 * 0.1 / 1.1 + 2 * 0.05 / 0.6) / 3)
    assert found["hr@5"] == 2 / 3
    np.testing.assert_allclose(found["precision@5"], 0.4 / 3)
    assert (found["hr@20"], found["recall@20"]) == (1, 2.5 / 3)
    np.testing.assert_allclose(found["ndcg@20"], (gain + 1 / (1 + gain) + 1 / np.log2(12)) / 3)
    # one of 39 others above; none of 38 above the first and 28 above the second; ten of 39
    np.testing.assert_allclose(found["auc"], np.mean([38 / 39, 1 - 28 / 76, 29 / 39]))


def test_no_case_is_zero_not_an_error():
    found = ranking_metrics(np.zeros(0, int), np.zeros(1, int), np.zeros(0, int))
    assert set(found.values()) == {0.0}
    assert set(found) == set(ranking_metrics(np.ones(1, int), np.arange(2), np.ones(1, int)))


@given(st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=12, unique=True), min_size=1, max_size=20))
def test_bounds_and_the_best_is_one(cases):
    offsets = np.cumsum([0, *map(len, cases)])
    of = np.full(len(cases), 60)
    found = ranking_metrics(np.concatenate(cases), offsets, of)
    assert all(0 <= value <= 1 + 1e-12 for value in found.values())
    assert found["ndcg@10"] <= found["hr@10"] + 1e-12
    assert found["hr@5"] <= found["hr@10"] <= found["hr@20"]
    ideal = ranking_metrics(np.concatenate([np.arange(1, len(case) + 1) for case in cases]), offsets, of)
    np.testing.assert_allclose((ideal["ndcg@10"], ideal["auc"], ideal["mrr"]), 1)


def test_a_stratum_keeps_the_ranks_among_all():
    ranks, offsets, left = only(np.array([2, 1, 30, 11]), np.array([0, 1, 3, 4]), np.array([False, True, True, False]))
    assert (ranks.tolist(), offsets.tolist(), left.tolist()) == ([1, 30], [0, 2], [1])
    # What else a user did is no mistake: the two above the third are taken off its rank, another user's are not.
    ranks, _, _ = only(np.array([1, 2, 12, 1, 7]), np.array([0, 3, 5]), np.array([False, False, True, False, True]))
    assert ranks.tolist() == [10, 6]
    ranks, _, _ = only(np.array([5, 5, 9]), np.array([0, 3]), np.array([True, False, False]))
    assert ranks.tolist() == [4]  # a tie counted against it
    ranks, offsets, left = only(np.array([2, 1]), np.array([0, 1, 2]), np.array([False, False]))
    assert (ranks.tolist(), offsets.tolist(), left.tolist()) == ([], [0], [])


def test_exposure_by_hand():
    found = exposure(np.array([[0, 1], [0, 2]]), np.array([5, 1, 3, 9]))
    assert found["coverage@2"] == 3 / 4
    assert found["popularity@2"] == (5 + 1 + 5 + 3) / 4
    # shown 0, 1, 1, 2 times: ((-3) 0 + (-1) 1 + 1 1 + 3 2) / (4 * 4)
    assert found["gini@2"] == 6 / 16
    assert exposure(np.array([[0, 1], [2, 3]]), np.ones(4, int))["gini@2"] == 0
    assert case_metrics(np.array([1]), np.array([0, 1]), np.array([1]))["auc"].tolist() == [1.0]
