"""The arithmetic of the baselines where one user is one client, by hand on two clients with vectors of one number."""

from math import exp

import numpy as np
import pytest
import torch

from client.splits import Cases, Histories
from simulations.baselines import struck
from simulations.baselines.federated import (
    FEDNCF,
    Method,
    Stack,
    State,
    dot,
    network,
    network_parameters,
    one_round,
    positives,
    recommender,
    stacks,
)


def sigmoid(x):
    return 1 / (1 + exp(-x))


def method(**settings):
    nothing = {"rate": 0.0, "item_rate": 0.0, "item_scale": 0.0}
    return Method(lambda users, draw: {}, lambda draw: {}, dot, **{**nothing, **settings})


def state():
    return State(torch.tensor([[1.0], [2.0], [5.0]]), {}, {"user": torch.tensor([[1.0], [-1.0]])}, None)


def two_clients():
    """Both hold item 0; the first has item 1 as a negative, the second's draw of item 2 counts as nothing."""
    items = torch.tensor([[[0, 1]], [[0, 2]]])
    return iter([Stack(torch.tensor([0, 1]), items, torch.tensor([[[True, True]], [[True, False]]]))])


def ask(users):
    none = Histories.from_lists([[] for _ in users])
    return Cases(np.array(users, np.int32), none, Histories.from_lists([[0] for _ in users]), seen=None)


def test_an_item_moves_by_the_mean_over_the_clients_that_touched_it():
    found = one_round(method(item_rate=1.0), state(), two_clients())
    shared = (sigmoid(-1) - sigmoid(1)) / 2  # one pulls up by 1 - sigmoid(1), the other down by 1 - sigmoid(-1)
    assert found.items[:, 0].tolist() == pytest.approx([1 + shared, 2 - sigmoid(2), 5])
    assert found.private["user"][:, 0].tolist() == [1, -1]


def test_a_private_vector_moves_by_its_own_samples_only():
    found = one_round(method(rate=1.0), state(), two_clients())
    first = (-sigmoid(-1) * 1 + sigmoid(2) * 2) / 2  # mean of two samples
    second = -sigmoid(1) * 1  # one sample
    assert found.private["user"][:, 0].tolist() == pytest.approx([1 - first, -1 - second])
    assert found.items[:, 0].tolist() == [1, 2, 5]


def test_a_client_answers_with_its_own_vector_where_it_tuned_one():
    before, way = state(), method(item_rate=1.0, keeps_items=True)
    after = one_round(way, before, two_clients(), keep=True)
    found = recommender(way, after._replace(items=before.items))(ask([1, 0]))(np.array([0, 1])).tolist()
    assert found[0] == pytest.approx([-1 + sigmoid(1), -2, -5])  # item 2 was drawn and not counted
    assert found[1] == pytest.approx([1 + sigmoid(-1), 2 - sigmoid(2), 5])


def test_the_shared_network_moves_by_the_mean_over_all_clients():
    draw = torch.Generator().manual_seed(1)
    start = State(torch.randn(3, 32, generator=draw), network_parameters(draw), {"user": torch.randn(2, 32)}, None)
    both = next(two_clients())
    alone = [
        one_round(FEDNCF, start, iter([Stack(both.users[[who]], both.items[[who]], both.mask[[who]])]))
        for who in range(2)
    ]
    together = one_round(FEDNCF, start, iter([both]))
    for key, value in together.shared.items():
        torch.testing.assert_close(value, (alone[0].shared[key] + alone[1].shared[key]) / 2)
    every = network({**start.shared, **start.private}, start.items[None])
    one = network({**start.shared, "user": start.private["user"][1:]}, start.items[None])
    torch.testing.assert_close(every[1:], one)


def test_stacks_hold_each_client_once_and_no_item_twice(monkeypatch):
    monkeypatch.setattr("simulations.baselines.federated.STACKED", 60)
    histories = Histories.from_lists([[0, 2, 0], [], [1], [3, 4, 5, 6], list(range(8))])
    known = positives(histories, 10)
    assert known[0].tolist() == [0, 2, 2, 3, 7, 15]
    seen = []
    for stack in stacks(known, 10, np.random.default_rng(0)):
        for user, items, mask in zip(*stack, strict=True):
            drawn = items[:, 1:][mask[:, 1:]].tolist()
            own = items[:, 0][mask[:, 0]].tolist()
            assert sorted(own) == sorted(set(histories.row(int(user)).tolist()))
            assert len({*own, *drawn}) == len(own) + len(drawn)
            seen.append(int(user))
    assert sorted(seen) == [0, 2, 3, 4]


def test_no_client_draws_a_barred_item(monkeypatch):
    monkeypatch.setattr("simulations.baselines.federated.STACKED", 60)
    known = positives(Histories.from_lists([[0], [1], [2, 3]]), 6)
    barred = np.array([0, 2, 2, 3]), np.array([4, 5, 0])
    drawn = {0: set(), 1: set(), 2: set()}
    for number in range(40):
        for stack in stacks(known, 6, np.random.default_rng(number), barred):
            for user, items, mask in zip(*stack, strict=True):
                drawn[int(user)] |= set(items[:, 1:][mask[:, 1:]].tolist())
    assert drawn == {0: {1, 2, 3}, 1: {0, 2, 3, 4, 5}, 2: {1, 4, 5}}


def test_training_items_beyond_the_history_can_be_struck_too():
    plain = lambda cases: lambda rows: torch.tensor([[3.0, 2.0, 1.0]])  # noqa: E731
    trained = Histories.from_lists([[], [0]])
    assert struck(plain, trained)(ask([1]))(np.array([0])).tolist() == [[0.0, 2.0, 1.0]]
    assert struck(plain)(ask([1]))(np.array([0])).tolist() == [[3.0, 2.0, 1.0]]
