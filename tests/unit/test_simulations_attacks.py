import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console
from scipy.stats import binom, norm
from support.tiny_members import TINY, tiny_plan
from torch.nn import functional as F
from typer.testing import CliRunner

from client.privacy import sampled_users
from client.train import train
from shared.errors import DataError
from shared.model import Recommender, adapter_tensors, load_adapter_tensors
from simulations.__main__ import app
from simulations.attacks import audit as room
from simulations.attacks import inversion
from simulations.attacks.audit import audit
from simulations.attacks.bound import chance_of, epsilon_at_least
from simulations.attacks.interactions import confidence, events_of
from simulations.attacks.inversion import invert, precision, pushed
from simulations.attacks.likelihood import likelihood_ratio
from simulations.attacks.membership import losses, told
from simulations.attacks.training import only, take_rounds, unpromised
from simulations.attacks.verdict import auc, verdict
from simulations.tables import audits_of


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


def test_auc_by_hand():
    scores = np.array([4.0, 1.0, 3.0, 2.0])
    assert auc(scores, np.array([True, False, False, True])) == 3 / 4  # 4 beats both, 2 beats one of two
    assert auc(np.ones(4), np.array([True, False, False, True])) == 0.5  # ties tell nothing
    assert auc(scores, np.zeros(4, bool)) == 0.5  # nobody to find


def test_a_perfect_and_a_blind_attacker():
    coins = np.arange(200) % 2 == 0
    perfect = told(coins.astype(float), coins, 1e-5, 0.95)
    assert (perfect["auc"], perfect["right"], perfect["guessed"]) == (1.0, 100, 100)
    assert perfect["epsilon_at_least"] > 3
    assert perfect["caught_at_1_percent"] == 1.0
    blind = told(np.random.default_rng(0).random(200), coins, 1e-5, 0.95)
    assert abs(blind["auc"] - 0.5) < 0.1
    assert blind["epsilon_at_least"] < 0.5
    curve = verdict(coins.astype(float), coins)["roc"]
    assert (curve["false"][0], curve["false"][-1], curve["true"][-1]) == (0.0, 1.0, 1.0)


def test_the_likelihood_ratio_of_known_gaussians():
    # Two users with means 0 and 10; taking part adds 2; the noise is +-1 in each case: variance 8 / 7.
    coins = np.array([[True, True], [True, True], [False, False], [False, False]])
    shadows = (np.array([0.0, 10.0]) + 2 * coins + np.array([[1.0], [-1.0], [1.0], [-1.0]]))[..., None]
    found = likelihood_ratio(np.array([[0.0], [12.0]]), shadows, coins)
    # log N(x; m + 2, v) - log N(x; m, v) = (x - m - 1) * 2 / v
    assert found == pytest.approx([-2 / (8 / 7), 2 / (8 / 7)])


def test_the_likelihood_ratio_is_as_good_as_theory_allows():
    draw = np.random.default_rng(0)
    coins = draw.random((65, 3000)) < 0.5
    signals = draw.normal(size=3000) * 5 + coins + draw.normal(size=coins.shape)  # users differ more than it adds
    found = likelihood_ratio(signals[0, :, None], signals[1:, :, None], coins[1:])
    assert auc(found, coins[0]) == pytest.approx(norm.cdf(1 / math.sqrt(2)), abs=0.02)
    assert auc(signals[0], coins[0]) < 0.6  # who does not know the users tells little


@pytest.fixture
def bench(members, tiny_base):
    plan = tiny_plan(
        tiny_base, "privacy.epsilon=8.0", "federation.rounds=1", "model.hidden=64", "privacy.releases=towers"
    )
    member = members[0]
    return member.workshop.model(plan), member.corpus(plan), plan


def fresh(bench):
    """The model as it was drawn."""
    model, _, plan = bench
    return Recommender(plan.model, model.base, plan.federation.seed)


@pytest.fixture
def memorised(bench):
    """A model that went over six users of twelve again and again: (model, corpus, plan, the twelve, who was in)."""
    model, corpus, plan = bench
    users = sampled_users(corpus)[:12]
    half = only(corpus, users[::2])
    assert sampled_users(half).tolist() == users[::2].tolist()
    still = replace(plan.train, lora_lr=0.0)  # the catalogue is then encoded once
    plain = replace(unpromised(plan), train=still)
    train(model, [half], [None], plain, epochs=30, place=("test",), early_stopping=False)
    return model, corpus, plan, users, np.arange(12) % 2 == 0


def test_membership_finds_who_was_memorised_and_nobody_in_a_model_that_saw_nothing(bench, memorised):
    model, corpus, plan, users, coins = memorised
    before, after = (losses(one, corpus, plan, users)[:, 0] for one in (fresh(bench), model))
    assert auc(before - after, coins) > 0.9
    assert auc(before - before, coins) == 0.5


def test_losses_are_those_of_each_user_alone(bench):
    model, corpus, plan = bench
    users = sampled_users(corpus)[:7]
    alone = np.concatenate([losses(model, corpus, plan, users[place : place + 1]) for place in range(7)])
    assert losses(model, corpus, plan, users) == pytest.approx(alone, abs=1e-4)
    assert alone[:, 0] != pytest.approx(alone[:, 1])  # all events, and the last few


def test_events_are_the_last_one_learnt_and_the_one_held_out(bench):
    _, corpus, _ = bench
    users = sampled_users(corpus)[:5]
    learnt, held = events_of(corpus, users)
    assert learnt.users.tolist() == held.users.tolist()
    for place, user in enumerate(held.users):
        row = corpus.split.train.row(int(user)).tolist()
        assert learnt.histories.row(place).tolist() == row[:-1]
        assert learnt.targets.row(place).tolist() == row[-1:]
        assert held.histories.row(place)[-2] == row[-1]  # then came the one for validation


def test_interactions_are_found_in_a_model_that_memorised_and_not_in_one_that_saw_nothing(bench, memorised):
    model, corpus, _, users, coins = memorised
    events = events_of(corpus, users[coins])
    truth = np.repeat([True, False], len(events[0]))
    after = np.concatenate([confidence(model, corpus, one) for one in events])
    blank = fresh(bench)
    before = np.concatenate([confidence(blank, corpus, one) for one in events])
    assert auc(after - before, truth) > 0.8
    assert auc(before - before, truth) == 0.5


def test_items_are_read_off_a_layer_that_they_moved_and_not_off_one_that_nothing_moved(bench):
    model, corpus, _ = bench
    x = model.encode(corpus.space)
    before = adapter_tensors(model)
    assert pushed(model, x, before, before).max() == 0.0
    met = np.zeros(len(x), bool)
    met[[3, 14, 15]] = True
    hidden = F.relu(model.item.inner(x)).detach()
    draw = torch.Generator().manual_seed(0)
    wanted = torch.randn(3, x.shape[1], generator=draw)
    after = dict(before)
    after["item.outer.weight"] = before["item.outer.weight"] + (wanted.T @ hidden[met]).numpy()
    strength = pushed(model, x, before, after)
    assert auc(strength, met) > 0.95
    assert precision([strength], [met]) >= 2 / 3


def test_items_of_a_device_are_hidden_by_the_promise_alone(bench, monkeypatch):
    monkeypatch.setattr(inversion, "DEVICES", 8)
    model, corpus, plan = bench
    start = adapter_tensors(model)
    plain = invert(model, corpus, unpromised(plan), 1)
    assert plain["epsilon"] is None
    assert plain["auc"] > 0.7 > plain["by_popularity"]["auc"]
    load_adapter_tensors(model, start)
    private = invert(model, corpus, plan, 1)
    assert 7 < private["epsilon"] <= 8
    assert abs(private["auc"] - 0.5) < 0.1


def test_rounds_without_noise_or_with_it_say_what_they_cost(bench):
    model, corpus, plan = bench
    assert take_rounds(model, corpus, unpromised(plan), ("test",)).claimed(1e-4) is None
    done = take_rounds(model, corpus, plan, ("test",))
    assert done.private is None
    assert 7 < done.claimed(plan.privacy.delta) <= 8


def test_a_domain_with_too_few_users_is_refused(bench, monkeypatch):
    monkeypatch.setattr(room, "FEWEST", 10_000)
    with pytest.raises(DataError, match="expected 10000 users with two training events"):
        audit(*bench, 60, 2, print)


def test_the_command_prints_every_attack_and_repeats_under_its_seed(
    tiny_world, tiny_base, cache, tmp_path, monkeypatch
):
    monkeypatch.setattr(inversion, "DEVICES", 2)
    sets = [word for text in (*TINY, "federation.rounds=1", "privacy.releases=towers") for word in ("--set", text)]
    words = ["audit-privacy", tiny_world["video"], "--base", tiny_base, "--cache", cache, "--users", 40]
    words = [str(word) for word in [*words, "--shadows", 2, "--seed", 7, *sets]]

    def invoke(place, *more):
        return CliRunner().invoke(app, [*words, "--out", str(tmp_path / place), *more])

    first, second = (invoke(place, "--json").stdout for place in ("one", "two"))
    assert first == second
    found = json.loads(first)["video"]
    for name in ("private", "plain"):
        assert list(found[name]["attacks"]) == [
            "membership by loss",
            "membership by likelihood ratio",
            "interactions from the adapter",
            "interactions from answers",
            "items of a device",
            "items of 8 users",
        ]
        for attack in found[name]["attacks"].values():
            assert 0 <= attack["auc"] <= 1
    assert (found["asked"], found["shadows"], found["plain"]["epsilon"]) == (40, 2, None)
    assert found["private"]["attacks"]["interactions from answers"]["epsilon"] is None
    assert found["private"]["epsilon_at_least"] <= found["private"]["epsilon"] <= 8
    console = Console(width=160)
    with console.capture() as shown:
        console.print(audits_of({"video": found}))
    assert "items of a device" in shown.get()
    assert "without a promise at least" in shown.get()
    monkeypatch.setattr("simulations.start.audit", lambda *_: 1 / 0)  # what is kept is not attacked again
    again = invoke("one")
    assert again.exit_code == 0
    assert "items of 8 users" in again.stdout
    page = (tmp_path / "one" / "report.html").read_text()
    assert "no more than is claimed" in page
    assert page.count("<svg") == 1
    other = invoke("one", "--shadows", "3")
    assert other.exit_code == 2
    assert "a run of other settings (shadows 2, asked 3)" in other.output
    kept = json.loads((tmp_path / "one" / "audit.json").read_text())
    kept["found"]["video"]["private"]["epsilon_at_least"] = 9.0
    (tmp_path / "one" / "audit.json").write_text(json.dumps(kept))
    broken = invoke("one")
    assert broken.exit_code == 1
    assert "more is proved than is claimed of video" in broken.output
    assert "MORE THAN IS CLAIMED" in (tmp_path / "one" / "report.html").read_text()
    del kept["fingerprints"]
    (tmp_path / "one" / "audit.json").write_text(json.dumps(kept))
    assert "a run of data that it does not name" in invoke("one").output
