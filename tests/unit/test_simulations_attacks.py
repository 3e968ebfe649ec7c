import math

import numpy as np
import pytest
from scipy.stats import binom
from support.tiny_members import tiny_plan

from client.privacy import sampled_users, train_privately
from shared.errors import DataError
from shared.model import adapter_tensors, load_adapter_tensors, released_names
from simulations import audit as room
from simulations.audit import attack, audit, chance_of, epsilon_at_least, verdict


def test_the_bound_by_hand():
    # All of 100 guesses right: (e^x / (1 + e^x))^100 = .05 at x = 3.49.
    accuracy = 0.05**0.01
    assert epsilon_at_least(100, 100, 100, 0.0) == pytest.approx(math.log(accuracy / (1 - accuracy)), abs=0.002)
    assert epsilon_at_least(100, 100, 55, 0.0) == 0.0  # as good as guessing
    # One guess right of one: its chance is the accuracy, and delta adds 2 m delta times the chance of one less.
    assert chance_of(10, 1, 1, 1.0, 0.01) == pytest.approx(math.e / (1 + math.e) + 2 * 10 * 0.01 / (1 + math.e))


def test_delta_only_ever_lowers_the_bound():
    bounds = [epsilon_at_least(1000, 200, 180, delta) for delta in (0.0, 1e-5, 1e-3, 1e-1)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > bounds[2] > 0


@pytest.mark.parametrize("true", [0.5, 2.0])
def test_the_bound_holds_for_a_mechanism_whose_epsilon_is_known(true):
    # Randomised response: each coin is told truly with chance e^x / (1 + e^x).
    draw = np.random.default_rng(0)
    right = binom.rvs(200, 1 / (1 + math.exp(-true)), size=400, random_state=draw)
    found = np.array([epsilon_at_least(400, 200, int(one), 0.0) for one in right])
    assert (found <= true).mean() >= 0.93  # of 400 runs, promised for 95 %
    assert np.median(found) > true - 0.6  # and it says something


def test_a_perfect_and_a_blind_attacker():
    coins = np.arange(200) % 2 == 0
    perfect = verdict(coins.astype(float), coins, 1e-5)
    assert (perfect["auc"], perfect["right"], perfect["guessed"]) == (1.0, 100, 100)
    assert perfect["epsilon_at_least"] > 3
    blind = verdict(np.random.default_rng(0).random(200), coins, 1e-5)
    assert abs(blind["auc"] - 0.5) < 0.1
    assert blind["epsilon_at_least"] < 0.5
    assert verdict(np.zeros(200), coins, 1e-5)["auc"] == 0.5  # ties tell nothing


@pytest.fixture
def bench(members, tiny_base):
    plan = tiny_plan(tiny_base, "privacy.epsilon=8.0", "federation.rounds=1")
    member = members[0]
    return member.workshop.model(plan), member.corpus(plan), plan


def test_a_training_on_few_users_without_noise_gives_them_away(bench):
    model, corpus, plan = bench
    users = sampled_users(corpus)
    inside = users[:6]
    half = room._only(corpus, inside)
    assert sampled_users(half).tolist() == inside.tolist()
    released = released_names(plan, list(adapter_tensors(model)))

    def one_round(number):
        train_privately(model, half, plan, 0.0, released, ("test", number), simulated=True)

    scores = attack(model, corpus, plan, users, released, one_round)
    coins = np.isin(users, inside)
    assert verdict(scores["gradient"], coins, 1e-5)["auc"] > 0.8
    assert verdict(scores["loss"], coins, 1e-5)["auc"] > 0.6


def test_an_audit_tells_both_trainings(bench):
    model, corpus, plan = bench
    said = []
    start = adapter_tensors(model)
    found = audit(model, corpus, plan, 60, said.append)
    assert found["users"] == 60
    assert 7 < found["private"]["epsilon"] <= 8
    assert found["plain"]["epsilon"] is None
    for name in ("private", "plain"):
        for way in ("gradient", "loss"):
            assert 0 <= found[name][way]["auc"] <= 1
            assert found[name][way]["epsilon_at_least"] <= 8
    assert len(said) == 2
    load_adapter_tensors(model, start)
    assert audit(model, corpus, plan, 60, said.append) == found  # it can be repeated


def test_a_domain_with_too_few_users_is_refused(bench, monkeypatch):
    monkeypatch.setattr(room, "FEWEST", 10_000)
    with pytest.raises(DataError, match="expected 10000 users with two training events"):
        audit(*bench, 60, print)
