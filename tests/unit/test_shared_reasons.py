import numpy as np
import pytest
import torch
from support.stirred import stirred_scorer
from support.tiny_members import tiny_plan

from shared.reasons import reasons


@pytest.fixture
def scorer(members, tiny_base):
    return stirred_scorer(members[0], tiny_plan(tiny_base))


def score(scorer, rows, item):
    return float(scorer.scores(scorer.query(scorer.past(rows, [0] * len(rows))))[item])


def test_the_named_event_carries_more_than_any_other(scorer):
    draw = np.random.default_rng(0)
    for item in range(5):
        rows = draw.permutation(len(scorer))[:8].tolist()
        past = scorer.past(rows, [0] * 8)
        whole = score(scorer, rows, item)
        drops = [whole - score(scorer, rows[:e] + rows[e + 1 :], item) for e in range(8)]
        found = reasons(scorer, past, None, torch.tensor([item]), 3)[0]
        best = sorted((drop for drop in drops if drop > 0), reverse=True)[:3]
        assert [reason.drop for reason in found] == pytest.approx(best, abs=1e-4)
        assert all(drops[reason.event] == pytest.approx(reason.drop, abs=1e-4) for reason in found)


def test_events_too_old_to_be_read_are_no_reasons(scorer):
    most = scorer.model.plan.max_history
    rows = np.random.default_rng(1).integers(len(scorer), size=most + 5).tolist()
    found = reasons(scorer, scorer.past(rows, [0] * len(rows)), None, torch.tensor([0]), 100)[0]
    assert found
    assert min(reason.event for reason in found) >= 5


def test_of_no_history_there_is_no_reason(scorer):
    assert reasons(scorer, scorer.past([], []), None, torch.tensor([0, 1]), 3) == [[], []]
    assert len(reasons(scorer, scorer.past([1], [0]), None, torch.tensor([1]), 3)[0]) <= 1
