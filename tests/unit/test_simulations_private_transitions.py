"""Transitions under a promise: one device's vector by hand, its bound, the noise, and where scores find the table."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from client.chance import GRID, Repeatable, Unforeseen
from client.secure_sum import SecureSum, strangers
from client.splits import Histories
from server.secure_sum import secure_carrier
from shared.errors import ConfigError
from shared.model import Batch
from shared.neighbours import Neighbours
from shared.payload import AdapterUpdate, Task
from shared.plan import FederationPlan, ModelPlan, Plan
from shared.private import Private
from shared.secure_payload import is_secure
from shared.secure_sum import task_digest
from simulations.private_transitions import (
    FOLLOWERS,
    added,
    check_catalogue,
    dense,
    of_device,
    put,
    release,
    summed,
    table,
)

ITEMS = 6
HISTORIES = st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=30), min_size=1, max_size=6)


def test_a_device_tells_what_followed_what():
    pairs, weights = of_device(np.array([0, 1, 2]), 3)
    told = np.zeros(9)
    told[pairs] = weights
    expected = np.array([[0, 1, 0.9], [0.3, 0, 1], [0.27, 0.3, 0]])
    np.testing.assert_allclose(told.reshape(3, 3), expected / np.linalg.norm(expected), rtol=1e-4)


@pytest.mark.parametrize("history", [[], [4], [2, 2, 2]])
def test_a_device_without_two_items_tells_nothing(history):
    pairs, weights = of_device(np.array(history, np.int64), ITEMS)
    assert len(pairs) == len(weights) == 0


@given(HISTORIES)
def test_nobody_moves_the_sum_by_more_than_one(histories):
    told = Histories.from_lists(histories)
    everybody = np.arange(len(histories))
    whole = summed(told, everybody, ITEMS)
    for one in everybody:
        moved = np.linalg.norm(whole.astype(np.float64) - summed(told, everybody[everybody != one], ITEMS))
        assert moved <= 1
        assert moved > 0.99 or len(set(histories[one])) < 2


def test_every_pair_gets_noise_of_the_stated_size():
    items = 150
    told = Histories.from_lists([[0, 1, 2], [1, 0]])
    devices = np.arange(2)
    places = release(told, devices, items, 2.5, Repeatable(3)).double() / GRID
    assert torch.equal(places, places.round())  # whatever was told: see ``noised``
    noise = release(told, devices, items, 2.5, Repeatable(3)) - torch.from_numpy(summed(told, devices, items))
    assert noise.shape == (items, items)
    assert float(noise.std()) == pytest.approx(2.5, abs=3 * 2.5 / math.sqrt(2 * items**2))
    assert float(noise.mean()) == pytest.approx(0, abs=3 * 2.5 / items)


def test_devices_that_add_the_noise_themselves_make_the_same_release():
    """Real members of a secure sum against the one draw of the simulation: the sum, and noise as large as promised."""
    items, sigma = 40, 2.0
    told = Histories.from_lists([[0, 1, 2], [1, 0], [3, 4], [5, 6, 7], [2, 9], [1, 2]])
    devices = np.arange(6)
    truth = summed(told, devices, items)
    # With a third gone what is left is enough; and what is needed is two thirds of all who are known.
    for silent, known, need in ((set(), 6, 4), ({0, 4}, 6, 4), (set(), 8, 6)):
        there = [one for one in range(6) if one not in silent]
        found = summed_by_themselves(told, items, sigma, silent, known)
        noise = found - summed(told, np.array(there), items)
        expected = sigma * math.sqrt(len(there) / need)
        assert noise.std() == pytest.approx(expected, abs=4 * expected / math.sqrt(2 * items**2))
        assert noise.mean() == pytest.approx(0, abs=4 * expected / items)
    at_once = release(told, devices, items, sigma, Repeatable(3), in_shares=True).numpy() - truth
    assert at_once.std() == pytest.approx(sigma * math.sqrt(6 / 4), abs=4 * sigma * 1.5 / math.sqrt(2 * items**2))


def test_fewer_than_three_hide_nobody_in_their_sum():
    with pytest.raises(ConfigError, match="takes 3 devices at least, found 2"):
        release(Histories.from_lists([[0, 1], [1, 2]]), np.arange(2), ITEMS, 1.0, Repeatable(1), in_shares=True)


def summed_by_themselves(told, items, sigma, silent, known):
    """(items, items) of a secure sum whose members are devices, some of which are silent when they are to mask."""
    names = [f"d{row}" for row in range(len(told))]
    identities = list(strangers([f"d{row}" for row in range(known)]).values())[: len(names)]
    members = [SecureSum(one, chance=Unforeseen(bytes([row] * 32))) for row, one in enumerate(identities)]
    task = Task("train", 1, Plan(federation=FederationPlan(secure=True)), {"told": np.zeros(items**2, np.float32)}, "b")
    steps = iter(("announce", "deal", "mask", "attend", "open"))
    away = set()

    def put(raws):
        if next(steps) == "mask":
            away.update(silent)
        return {node: answer(node, raw) for node, raw in raws.items() if node not in away}

    def answer(node, raw):
        if is_secure(raw):
            return members[node].answer(raw)
        pairs, weights = of_device(told.row(node).astype(np.int64), items)
        vector = np.zeros(items**2, np.float32)
        vector[pairs] = weights
        update = AdapterUpdate(names[node], 1, {"told": vector}, 1.0, "b")
        return members[node].announce(update, 1.0, task_digest(raw), noise=sigma)

    carry = secure_carrier(lambda: range(len(names)), put, frozenset({"told"}), lambda who, why: None)
    (update,) = carry(lambda domain: task)
    assert update.weight == len(names) - len(silent)  # how many there are is told as it is
    return update.weight * update.delta["told"].reshape(items, items)


def test_the_table_knows_what_follows_and_in_which_order():
    told = Histories.from_lists([[0, 1, 2]] * 400 + [[3, 4]] * 400)
    found = table(release(told, np.arange(800), ITEMS, 1.0, Repeatable(1)))
    likely = dense(found)
    assert found.rows.shape == (ITEMS, min(ITEMS, FOLLOWERS))
    assert [int(likely[first].argmax()) for first in (0, 1, 3)] == [1, 2, 4]
    assert likely[0, 1] > likely[1, 0] > 0
    assert (likely.diagonal() == 0).all()
    assert (likely >= 0).all()


def test_devices_are_trained_on_what_serves():
    draw = torch.Generator().manual_seed(0)
    follows = table(torch.rand(ITEMS, ITEMS, generator=draw))
    private = Private(
        np.ones(ITEMS, np.int64), 3, 4, ModelPlan(), Neighbours(follows.rows[:, :1], follows.cosines[:, :1])
    )
    put(private, follows)
    items = torch.randint(ITEMS, (3, 5), generator=draw)
    mask = torch.arange(5) < torch.tensor([5, 3, 1])[:, None]
    at = torch.tensor([[0, 4], [2, 1], [0, 0]])
    batch = Batch(torch.full((3,), -1), items, torch.zeros_like(items), mask)
    rows = torch.arange(3).repeat_interleave(2)
    served = private.nearness(batch, (rows, at.flatten())).view(3, 2, ITEMS)
    assert served.abs().max() > 0.1
    torch.testing.assert_close(added(dense(follows), items, mask, at), served, rtol=1e-4, atol=1e-4)


def test_a_catalogue_too_large_is_refused():
    check_catalogue(10_000)
    with pytest.raises(ConfigError, match=r"has 10,001: set privacy\.transitions=0"):
        check_catalogue(10_001)
