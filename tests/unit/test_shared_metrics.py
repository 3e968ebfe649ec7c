import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shared.metrics import ranking_metrics


def test_by_hand():
    # case 0: one target at rank 2; case 1: targets at ranks 1 and 30; case 2: rank 11
    found = ranking_metrics(np.array([2, 1, 30, 11]), np.array([0, 1, 3, 4]))
    gain = 1 / np.log2(3)
    assert found["hr@10"] == 2 / 3
    np.testing.assert_allclose(found["ndcg@10"], (gain + 1 / (1 + gain) + 0) / 3)
    np.testing.assert_allclose(found["recall@10"], (1 + 0.5 + 0) / 3)
    np.testing.assert_allclose(found["mrr"], (1 / 2 + 1 + 1 / 11) / 3)


def test_no_case_is_zero_not_an_error():
    assert set(ranking_metrics(np.zeros(0, int), np.zeros(1, int)).values()) == {0.0}


@given(st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=12, unique=True), min_size=1, max_size=20))
def test_bounds_and_the_best_is_one(cases):
    offsets = np.cumsum([0, *map(len, cases)])
    found = ranking_metrics(np.concatenate(cases), offsets)
    assert all(0 <= value <= 1 + 1e-12 for value in found.values())
    assert found["ndcg@10"] <= found["hr@10"] + 1e-12
    ideal = ranking_metrics(np.concatenate([np.arange(1, len(case) + 1) for case in cases]), offsets)
    np.testing.assert_allclose(ideal["ndcg@10"], 1)
