"""Attacks on what a training releases: they must fail where the ledger says so, and work where nothing is promised.

A coin decides for each user of a domain whether they are in the training data. The attacker sees the adapter before
and after each round, knows every user's history, and asks of each: in or out? Two ways to tell: whether the updates
went where this user's own gradient points, and how much the user's own loss fell. One run with many coins bounds
epsilon from below (Steinke, Nasr & Jagielski 2023).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import binom, mannwhitneyu

from client.budget import planned_noise, sample_rate
from client.chance import Repeatable
from client.corpus import Corpus
from client.privacy import PerUserGradients, lots, sampled_users, train_privately
from client.splits import Histories
from client.train import Tick, train
from shared.accounting import epsilon
from shared.errors import DataError
from shared.ledger import GaussianSteps
from shared.metrics import Floats
from shared.model import Recommender, adapter_tensors, load_adapter_tensors, released_names
from shared.payload import Tensors
from shared.plan import Plan
from shared.seeding import stream

FEWEST = 40  # users, for an attack that tells anything
CONFIDENCE = 0.95  # of the lower bound
GUESSED = 4  # one user in so many is guessed "in", as many "out"; the attacker abstains on the rest
POINTS = 101  # of a ROC curve
Coins = npt.NDArray[np.bool_]
Say = Callable[[str], None]


def audit(
    model: Recommender, corpus: Corpus, plan: Plan, users: int, say: Say, tick: Tick | None = None
) -> dict[str, Any]:
    """Train on a random half of at most ``users`` users, as ``plan.privacy`` promises and without; attack both.

    Returns, for "private" and "plain", the epsilon that is claimed, the bound from below and the AUC of each attack.
    Raises DataError on a domain that is too small.
    """
    draw = stream(plan.federation.seed, "audit")
    everybody = sampled_users(corpus)
    if len(everybody) < FEWEST:
        raise DataError(f"{corpus.name}: expected {FEWEST} users with two training events, found {len(everybody)}")
    asked = np.sort(draw.choice(everybody, min(users, len(everybody)), replace=False))
    coins = draw.random(len(asked)) < 0.5
    half = _only(corpus, asked[coins])
    start = adapter_tensors(model)
    released = released_names(plan, list(start))
    quiet = replace(plan, privacy=replace(plan.privacy, epsilon=0.0))
    members = int(coins.sum())
    rate = sample_rate(plan, members)
    noise = planned_noise(plan, members, rate)
    found: dict[str, Any] = {"users": len(asked), "members": members, "delta": plan.privacy.delta}

    def private_round(number: int) -> None:
        place = ("audit", "private", number)
        train_privately(model, half, plan, noise, released, place, simulated=True, tick=tick)

    def plain_round(number: int) -> None:
        place = ("audit", "plain", number)
        rounds = plan.federation.rounds
        train(
            model,
            [half],
            [None],
            quiet,
            epochs=plan.train.round_epochs,
            place=place,
            early_stopping=False,
            released=released,
            part=(number - 1, rounds),
            tick=tick,
        )

    for name, one_round in (("private", private_round), ("plain", plain_round)):
        load_adapter_tensors(model, start)
        scores = attack(model, corpus, plan, asked, released, one_round)
        load_adapter_tensors(model, start)
        claimed = None
        if name == "private":
            claimed = epsilon(
                [GaussianSteps(noise, rate, plan.privacy.steps)] * plan.federation.rounds, plan.privacy.delta
            )
        found[name] = {
            "epsilon": claimed,
            **{way: verdict(one, coins, plan.privacy.delta) for way, one in scores.items()},
        }
        told = ", ".join(f"{way} AUC {found[name][way]['auc']:.3f}" for way in scores)
        say(f"{corpus.name} {name}: {told}")
    return found


def attack(
    model: Recommender,
    corpus: Corpus,
    plan: Plan,
    asked: npt.NDArray[np.int64],
    released: frozenset[str],
    one_round: Callable[[int], None],
) -> dict[str, Floats]:
    """How strongly each of the users seems to have been in the training, by each way of telling: (users,) each."""
    agreed = np.zeros(len(asked))
    at_first = _probe(model, corpus, plan, asked, released)
    for number in range(1, plan.federation.rounds + 1):
        before = adapter_tensors(model)
        one_round(number)
        after = adapter_tensors(model)
        load_adapter_tensors(model, before)
        went = {name: after[name] - before[name] for name in released}
        agreed += _probe(model, corpus, plan, asked, released, went)
        load_adapter_tensors(model, after)
    return {"gradient": agreed, "loss": at_first - _probe(model, corpus, plan, asked, released)}


def _probe(
    model: Recommender,
    corpus: Corpus,
    plan: Plan,
    asked: npt.NDArray[np.int64],
    released: frozenset[str],
    went: Tensors | None = None,
) -> Floats:
    """(users,) losses, or minus the products of clipped gradients with where the adapter ``went``."""
    engine = PerUserGradients(model, corpus.space, plan, released)
    chance = Repeatable(plan.federation.seed, "audit", "negatives")  # the same for each probe
    found = []
    try:
        for lot in lots(corpus.split.train, asked, plan, len(corpus.space), chance):
            if went is None:
                engine.hooks.disable_hooks()
                with torch.no_grad():
                    found.append(engine.losses(engine.encode(lot), lot))
                engine.hooks.enable_hooks()
                continue
            grads = {name: value.flatten(1).float() for name, value in engine.per_user(lot).items()}
            norms = torch.stack([value.pow(2).sum(1) for value in grads.values()]).sum(0).sqrt()
            products = [value @ torch.from_numpy(went[name]).flatten() for name, value in grads.items()]
            found.append(-torch.stack(products).sum(0) * (plan.privacy.clip_norm / norms.clamp(min=1e-12)).clamp(max=1))
            for value in engine.named.values():
                value.grad_sample = None  # type: ignore[attr-defined]
    finally:
        engine.close()
    return torch.cat(found).double().numpy()


def verdict(scores: Floats, coins: Coins, delta: float) -> dict[str, Any]:
    """AUC of telling who was in, the lower bound on epsilon, and the ROC curve."""
    inside, outside = scores[coins], scores[~coins]
    auc = mannwhitneyu(inside, outside).statistic / (len(inside) * len(outside))
    some = max(1, len(scores) // GUESSED)
    order = np.argsort(scores, kind="stable")
    right = int(coins[order[-some:]].sum() + (~coins[order[:some]]).sum())
    levels = np.linspace(0, 1, POINTS)
    caught = [float((inside > np.quantile(outside, 1 - level)).mean()) for level in levels]
    return {
        "auc": float(auc),
        "epsilon_at_least": epsilon_at_least(len(scores), 2 * some, right, delta),
        "guessed": 2 * some,
        "right": right,
        "roc": {"false": levels.tolist(), "true": caught},
    }


def epsilon_at_least(coins: int, guessed: int, right: int, delta: float) -> float:
    """The largest epsilon that so many right guesses of so many refute, at ``CONFIDENCE``; 0 where they refute none."""
    low, high = 0.0, 64.0
    if chance_of(coins, guessed, right, low, delta) > 1 - CONFIDENCE:
        return 0.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        if chance_of(coins, guessed, right, middle, delta) <= 1 - CONFIDENCE:
            low = middle
        else:
            high = middle
    return low


def chance_of(coins: int, guessed: int, right: int, at: float, delta: float) -> float:
    """The most likely that an (``at``, ``delta``)-private training lets so many guesses be right (theorem 3 there).

    Without delta each guess is right with odds e^epsilon at most, as under randomised response; delta adds
    2 * coins * delta * the largest mean of the next few probabilities below.
    """
    accuracy = 1 / (1 + np.exp(-at))
    tail = float(binom.sf(right - 1, guessed, accuracy))
    below = np.cumsum(binom.pmf(right - np.arange(1, right + 1), guessed, accuracy))
    slack = float(np.max(below / np.arange(1, right + 1), initial=0.0))
    return min(1.0, tail + 2 * coins * delta * slack)


def _only(corpus: Corpus, users: npt.NDArray[np.int64]) -> Corpus:
    """The same domain with the training rows of these users alone."""
    train_rows = corpus.split.train
    kept = np.zeros(len(train_rows), bool)
    kept[users] = True
    lengths = np.where(kept, train_rows.lengths, 0)
    events = np.repeat(kept, train_rows.lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    rows = Histories(offsets, train_rows.items[events], train_rows.behaviours[events])
    return replace(corpus, split=replace(corpus.split, train=rows))
