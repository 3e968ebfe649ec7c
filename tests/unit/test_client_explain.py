import numpy as np
import pytest
from support.stirred import stirred_scorer
from support.tiny_members import tiny_plan

from client.explain import reasons


@pytest.fixture
def scorer(members, tiny_base):
    return stirred_scorer(members[0], tiny_plan(tiny_base))


def test_the_named_event_carries_more_than_any_other(scorer):
    draw = np.random.default_rng(0)
    for item in range(5):
        rows = draw.permutation(len(scorer.space))[:8].tolist()
        past = scorer.past(rows, [0] * 8)
        whole = float(scorer.scores(past)[item])
        drops = [whole - float(scorer.scores(scorer.past(rows[:e] + rows[e + 1 :], [0] * 7))[item]) for e in range(8)]
        found = reasons(scorer, past, None, item, 3)
        best = sorted((drop for drop in drops if drop > 0), reverse=True)[:3]
        assert [reason.drop for reason in found] == pytest.approx(best, abs=1e-4)
        assert all(drops[reason.event] == pytest.approx(reason.drop, abs=1e-4) for reason in found)


def test_events_too_old_to_be_read_are_no_reasons(scorer):
    most = scorer.model.plan.max_history
    rows = np.random.default_rng(1).integers(len(scorer.space), size=most + 5).tolist()
    found = reasons(scorer, scorer.past(rows, [0] * len(rows)), None, 0, 100)
    assert found
    assert min(reason.event for reason in found) >= 5


def test_of_no_history_there_is_no_reason(scorer):
    assert reasons(scorer, scorer.past([], []), None, 0, 3) == []
    assert len(reasons(scorer, scorer.past([1], [0]), None, 1, 3)) <= 1
