import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import associations
from client.associations import MIN_SUPPORT, Associations
from client.dataset import Interactions

A, B, C = ("brand", "A"), ("brand", "B"), ("brand", "C")
HAVING = {A: [0, 1], B: [2, 3], C: [4]}


def people(*histories):
    users = np.repeat(np.arange(len(histories)), [len(one) for one in histories]).astype(np.int32)
    items = np.array([item for one in histories for item in one], np.int32)
    none = np.zeros(len(items))
    return Interactions(tuple(map(str, range(len(histories)))), users, items, none.astype(np.int8), none, none)


def found(*histories):
    return Associations(people(*histories), lambda attribute: np.array(HAVING[attribute]), 5)


def test_shares_of_a_rule_by_hand():
    # 40 met brand A; 10 of them another of A later, 10 the same item again, 20 nothing more. 60 others.
    rule = found(*[[0, 1]] * 10, *[[0, 0]] * 10, *[[1]] * 20, *[[4]] * 60).rule(A, A)
    assert rule is None  # 10 of 40 are less than 40 of 100: that says nothing
    rule = found(*[[0, 2]] * 10, *[[2, 0]] * 10, *[[0]] * 20, *[[4]] * 60).rule(A, B)
    assert (rule.confidence, rule.base, rule.lift, rule.support) == (0.25, 0.2, 1.2, 0.1)
    assert (rule.cause.column, rule.cause.value, rule.end.value) == ("brand", "A", "B")


def test_the_end_must_come_after_the_cause():
    told = found(*[[2, 0]] * 40, *[[0]] * 20, *[[4]] * 40)
    assert told.rule(A, B) is None
    assert told.rule(B, A) is None  # it fails for nobody: everyone who met B would be told of
    assert found(*[[2, 0]] * 40, *[[2]] * 10, *[[4]] * 50).rule(B, A).confidence == 0.8


@pytest.mark.parametrize(("hold", "fail"), [(MIN_SUPPORT - 1, 50), (50, MIN_SUPPORT - 1)])
def test_few_people_are_not_told_of(hold, fail):
    def ask(hold, fail):
        return found(*[[0, 2]] * hold, *[[0]] * fail, *[[4]] * 200).rule(A, B)

    assert ask(hold, fail) is None
    assert ask(max(hold, MIN_SUPPORT), max(fail, MIN_SUPPORT)) is not None


@given(st.lists(st.lists(st.integers(0, 4), max_size=6), min_size=1, max_size=30))
def test_rules_agree_with_counting_one_by_one(histories):
    asked = associations.MIN_SUPPORT, associations.MIN_LIFT
    associations.MIN_SUPPORT, associations.MIN_LIFT = 1, 0.0
    try:
        told = found(*histories).rule(A, B)
    finally:
        associations.MIN_SUPPORT, associations.MIN_LIFT = asked
    met = [one for one in histories if any(item in (0, 1) for item in one)]
    firsts = [min(place for place, item in enumerate(one) if item in (0, 1)) for one in met]
    fresh = [[item for place, item in enumerate(one) if item not in one[:place]] for one in met]
    hold = sum(
        any(item in (2, 3) for item in new[len(set(one[:first])) + 1 :])
        for one, first, new in zip(met, firsts, fresh, strict=True)
    )
    if not 1 <= hold < len(met):
        assert told is None
    else:
        assert told.confidence == round(hold / len(met), 2)
        assert told.support == round(hold / len(histories), 3)


def test_the_most_telling_rules_come_first_and_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(associations, "KEPT", 1)
    told = found(*[[0, 2]] * 10, *[[0, 4]] * 30, *[[0]] * 10, *[[1]] * 10, *[[3]] * 10, *[[0, 3]] * 10, *[[9 % 5]] * 5)
    rules = told.about([A], [B, C], 5)
    assert [rule.end.value for rule in rules] == sorted((rule.end.value for rule in rules), reverse=True)
    assert len(told._kept) == 1
    assert told.about([A], [B, C], 1) == rules[:1]


def test_an_item_that_came_later_was_met_by_nobody():
    assert Associations(people([0]), lambda _: np.array([0, 7]), 5).meetings(A).users.tolist() == [0]
