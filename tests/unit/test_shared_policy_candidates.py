"""An approximate index loses nobody whose score owes itself to what was met together with the history."""

import dataclasses

import torch
from support.stirred import stirred_scorer
from support.tiny_members import tiny_plan

from shared.engine import Engine
from shared.policy import Person, Signals, Wish, recommend


class Farthest:
    """An index that finds the worst: whatever else comes, neighbours brought."""

    exact = False

    def __init__(self, places):
        self.places = places

    def candidates(self, question, count, items):
        if 2 * count > items:
            return torch.arange(items)
        return torch.topk(-(self.places @ question), count).indices


def test_neighbours_of_the_history_are_candidates_beside_what_the_index_finds(members, tiny_base, monkeypatch):
    scorer = stirred_scorer(members[0], tiny_plan(tiny_base))
    engine = Engine(members[0].domain.catalog, scorer, None, Farthest(scorer.places()), "0" * 12)
    monkeypatch.setattr("shared.policy.LEAST_CANDIDATES", 12)
    scorer.private.near.copy_(torch.tensor([1000.0, 1.0, 0.5]))  # nothing else counts
    past = scorer.past([1, 2, 3], [0, 1, 0])
    ones = torch.ones(len(engine))
    signals = Signals(ones * 0, ones * 0, ones.bool())
    found = recommend(engine, Person(past, None, ("", "", "")), Wish(k=2), signals)
    scores = scorer.scores(scorer.query(past))
    scores[[1, 2, 3]] = -torch.inf
    best = torch.topk(scores, 2)
    assert [one.item_id for one in found.items] == [engine.catalog.ids[row] for row in best.indices]
    assert [one.score for one in found.items] == [round(float(score), 4) for score in best.values]
    assert found.more
    gone = dataclasses.replace(signals, allowed=torch.arange(len(engine)) != best.indices[0])
    without = recommend(engine, Person(past, None, ("", "", "")), Wish(k=1), gone)
    assert (without.items[0].item_id, without.struck) == (found.items[1].item_id, 1)
