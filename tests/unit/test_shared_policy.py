"""The policy against the slow truth: score everything, strike, sort."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.tiny_engine import plain_signals, stirred_engine

from shared.errors import ConfigError
from shared.index import build
from shared.policy import Person, Recommendation, Wish, blend, recommend, spread


@pytest.fixture
def engine(members, plan):
    return stirred_engine(members[0], plan)


@pytest.fixture
def signals(engine):
    return plain_signals(len(engine))


def person(engine, rows=(3, 7, 7, 20)):
    return Person(engine.scorer.past(rows, [1] * len(rows)), 2, tuple(engine.title(row) for row in rows))


def slow(engine, who, struck=()):
    """Ids of all items that may come, best first."""
    scores = engine.scorer.scores(engine.scorer.query(who.past, who.user))
    scores[list(struck)] = -torch.inf
    order = torch.argsort(scores, descending=True, stable=True)
    return [engine.catalog.ids[row] for row in order.tolist() if scores[row] > -torch.inf]


def ids(answer):
    return [item.item_id for item in answer.items]


def test_the_page_is_the_head_of_everything_scored(engine, signals):
    who = person(engine)
    answer = recommend(engine, who, Wish(5), signals)
    assert ids(answer) == slow(engine, who, {3, 7, 20})[:5]
    assert [item.rank for item in answer.items] == [1, 2, 3, 4, 5]
    assert answer.more
    assert answer.struck == 0


def test_pages_join_without_a_gap_and_the_last_one_says_so(engine, signals):
    who, whole = person(engine), []
    for skip in range(0, len(engine), 10):
        answer = recommend(engine, who, Wish(10, skip=skip), signals)
        whole += ids(answer)
        assert answer.more == (len(whole) < len(engine) - 3)
    assert whole == slow(engine, who, {3, 7, 20})


def test_what_was_seen_comes_back_only_when_asked_for(engine, signals):
    who = person(engine)
    seen = {engine.catalog.ids[row] for row in (3, 7, 20)}
    assert not seen & set(ids(recommend(engine, who, Wish(len(engine)), signals)))
    assert seen <= set(ids(recommend(engine, who, Wish(len(engine), seen=True), signals)))


def test_without_strikes_ids_and_ignores_those_that_are_not_there(engine, signals):
    who = person(engine)
    first = ids(recommend(engine, who, Wish(2), signals))
    found = ids(recommend(engine, who, Wish(2, without=frozenset({first[0], "no such item"})), signals))
    assert found[0] == first[1]


def test_rules_strike_and_the_page_is_filled_up_again(engine, signals):
    who = person(engine)
    best = slow(engine, who, {3, 7, 20})
    allowed = signals.allowed.clone()
    for item in best[:3]:
        allowed[engine.catalog.row[item]] = False
    answer = recommend(engine, who, Wish(5), replace(signals, allowed=allowed))
    assert ids(answer) == best[3:8]
    assert answer.struck == 3


def test_a_filter_that_few_items_pass_starves_nothing(members, plan, tmp_path):
    engine = stirred_engine(members[0], plan)
    places = engine.scorer.places()
    # A graph over all items: candidates come in portions, and the last portion is the whole catalogue.
    engine = replace(engine, index=build(places, tmp_path, "k", exact_items=0))
    signals = plain_signals(len(engine))
    who = person(engine)
    worst = slow(engine, who, {3, 7, 20})[-4:]
    allowed = torch.zeros(len(engine), dtype=torch.bool)
    for item in worst:
        allowed[engine.catalog.row[item]] = True
    assert ids(recommend(engine, who, Wish(4), replace(signals, allowed=allowed))) == worst


def test_attributes_filter_by_value_case_aside(engine, signals):
    column = engine.attributes.columns[0]
    value = next(value for (name, value) in engine.attributes.rows if name == column)
    having = {engine.catalog.ids[row] for row in engine.attributes.having(column, value)}
    found = ids(recommend(engine, person(engine, ()), Wish(len(engine), where={column: value.upper()}), signals))
    assert set(found) == having
    with pytest.raises(ConfigError, match="no attribute 'colour of the sky'"):
        recommend(engine, person(engine), Wish(where={"colour of the sky": "blue"}), signals)


def test_popularity_and_freshness_tilt_the_order(engine, signals):
    who = person(engine)
    rare = slow(engine, who, {3, 7, 20})[-1]
    lift = torch.zeros(len(engine))
    lift[engine.catalog.row[rare]] = 1.0
    assert ids(recommend(engine, who, Wish(1, popularity=1e4), replace(signals, popularity=lift))) == [rare]
    assert ids(recommend(engine, who, Wish(1, freshness=1e4), replace(signals, freshness=lift))) == [rare]
    first = slow(engine, who, {3, 7, 20})[0]
    shunned = torch.zeros(len(engine))
    shunned[engine.catalog.row[first]] = 1.0
    assert first not in ids(recommend(engine, who, Wish(5, popularity=-1e4), replace(signals, popularity=shunned)))


def test_reasons_come_with_the_items_that_they_are_of(engine, signals):
    who = person(engine)
    found = recommend(engine, who, Wish(3, reasons=2), signals).items
    assert any(item.because for item in found)
    for item in found:
        assert len(item.because) <= 2
        assert all(reason.title in who.titles and reason.drop > 0 for reason in item.because)


def test_spread_takes_the_best_then_what_is_unlike_it():
    # Two twins at the top and a stranger: by score twins come first, spread out the stranger is second.
    v = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    scores = torch.tensor([3.0, 2.9, 1.0])
    assert spread(v, scores, 3, 0.0).tolist() == [0, 1, 2]
    # (1 - .5) * worth - .5 * likeness: the twin .5 * .95 - .5 = -.025, the stranger .5 * 0 - 0 = 0.
    assert spread(v, scores, 2, 0.5).tolist() == [0, 2]
    assert spread(v, scores, 5, 1.0).tolist()[:2] == [0, 2]
    assert spread(v[:0], scores[:0], 3, 0.5).tolist() == []


def test_diversity_lowers_the_likeness_of_a_page(engine, signals):
    who = person(engine)

    def likeness(diversity):
        rows = [engine.catalog.row[item] for item in ids(recommend(engine, who, Wish(8, diversity=diversity), signals))]
        v = torch.nn.functional.normalize(engine.scorer.vectors.v[rows], dim=1)
        return float((v @ v.T).mean())

    assert likeness(0.9) < likeness(0.0)


def test_heads_of_lists_blend_in_turns():
    def items(*names):
        return [Recommendation(place, name, name, 0.0) for place, name in enumerate(names, 1)]

    found = blend([items("a", "b", "c"), [], items("x")], 4)
    assert [(which, item.item_id) for which, item in found] == [(0, "a"), (2, "x"), (0, "b"), (0, "c")]


@pytest.mark.parametrize("bad", [{"k": 0}, {"k": 1001}, {"skip": -1}, {"skip": 1001}, {"diversity": 1.1}])
def test_a_wish_that_cannot_be_is_refused(bad):
    with pytest.raises(ConfigError, match="expected"):
        Wish(**bad)


def test_nobodys_history_gets_the_same_page_as_the_slow_truth(engine, signals):
    who = Person(engine.scorer.past([], []), None, ())
    assert ids(recommend(engine, who, Wish(6), signals)) == slow(engine, who)[:6]
    assert np.isfinite([item.score for item in recommend(engine, who, Wish(6), signals).items]).all()
