"""Our metrics against the reference implementation of the TREC conferences."""

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from shared.metrics import CUTOFFS, case_metrics, means

THEIRS = {"ndcg_cut": "ndcg", "P": "precision", "recall": "recall", "success": "hr"}
MEASURES = {f"{theirs}.{k}": f"{name}@{k}" for theirs, name in THEIRS.items() for k in CUTOFFS}


@st.composite
def rankings(draw):
    """Cases of distinct scores over one catalogue, with one target or more each."""
    items = draw(st.integers(21, 40))
    cases = draw(st.integers(1, 6))
    orders = [draw(st.permutations(range(items))) for _ in range(cases)]
    targets = [draw(st.sets(st.integers(0, items - 1), min_size=1, max_size=10)) for _ in range(cases)]
    return items, orders, targets


@given(rankings())
def test_metrics_are_those_of_trec_eval(given_rankings):
    items, orders, targets = given_rankings
    ranks = [sorted(order.index(item) + 1 for item in wanted) for order, wanted in zip(orders, targets, strict=True)]
    offsets = np.cumsum([0, *map(len, ranks)])
    ours = case_metrics(np.concatenate(ranks), offsets, np.full(len(orders), items))
    qrel = {str(case): {str(item): 1 for item in wanted} for case, wanted in enumerate(targets)}
    run = {
        str(case): {str(item): float(items - place) for place, item in enumerate(order)}
        for case, order in enumerate(orders)
    }
    found = pytrec_eval.RelevanceEvaluator(qrel, {*MEASURES, "recip_rank"}).evaluate(run)
    for theirs, name in {**MEASURES, "recip_rank": "mrr"}.items():
        expected = [found[str(case)][theirs.replace(".", "_")] for case in range(len(orders))]
        np.testing.assert_allclose(ours[name], expected, atol=1e-9, err_msg=name)
    for case, (order, wanted) in enumerate(zip(orders, targets, strict=True)):
        truth = [item in wanted for item in order]
        expected = roc_auc_score(truth, -np.arange(items))
        assert ours["auc"][case] == pytest.approx(expected)
    assert means(ours)["f1@10"] <= 1
