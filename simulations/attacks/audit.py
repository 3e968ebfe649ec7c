"""Train with the promise and without, then ask: who was in, what did they meet, what was learnt from?

A coin decides for each user asked about whether they are in the training data; all others are. The attacker sees the
adapter before and after, knows every history, and trains shadow models with coins of their own on it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from client.calibrate import calibrate
from client.corpus import Corpus
from client.privacy import sampled_users
from client.rounds import personalise
from client.splits import Cases
from client.train import Tick
from shared.errors import DataError
from shared.metrics import Floats
from shared.model import Recommender, adapter_tensors, load_adapter_tensors
from shared.plan import Plan
from shared.private import Private
from shared.seeding import stream
from simulations.attacks import interactions, inversion, membership
from simulations.attacks.bound import CONFIDENCE
from simulations.attacks.likelihood import likelihood_ratio, mean_where
from simulations.attacks.training import only, take_rounds, unpromised
from simulations.attacks.verdict import Coins, verdict

FEWEST = 40  # users, for an attack that tells anything
GROUPS = {"items of a device": 1, "items of 8 users": 8}  # users behind the update that is read
Say = Callable[[str], None]


@dataclass(frozen=True)
class Target:
    """A domain under attack."""

    corpus: Corpus
    asked: npt.NDArray[np.int64]  # users whose coins were tossed, in order
    others: npt.NDArray[np.int64]  # always in
    coins: Coins  # (1 + shadows, asked): who is in the training under attack, then in each shadow

    def data(self, number: int) -> Corpus:
        """What the training of that number learns from."""
        return only(self.corpus, np.union1d(self.others, self.asked[self.coins[number]]))


def audit(
    model: Recommender, corpus: Corpus, plan: Plan, users: int, shadows: int, say: Say, tick: Tick | None = None
) -> dict[str, Any]:
    """All attacks on ``corpus`` trained as ``plan.privacy`` promises ("private") and without ("plain").

    At most ``users`` are asked about. Raises DataError on a domain that is too small.
    """
    draw = stream(plan.federation.seed, "audit")
    everybody = sampled_users(corpus)
    if len(everybody) < FEWEST:
        raise DataError(f"{corpus.name}: expected {FEWEST} users with two training events, found {len(everybody)}")
    asked = np.sort(draw.choice(everybody, min(users, len(everybody)), replace=False))
    coins = draw.random((1 + shadows, len(asked))) < 0.5
    target = Target(corpus, asked, np.setdiff1d(everybody, asked), coins)
    start = adapter_tensors(model)
    found: dict[str, Any] = {
        "asked": len(asked),
        "members": int(coins[0].sum()) + len(target.others),
        "shadows": shadows,
        "delta": plan.privacy.delta,
    }
    for name, one in (("private", plan), ("plain", unpromised(plan))):
        claimed, attacks = who_and_what(model, target, one, tick)
        for way, size in GROUPS.items():
            load_adapter_tensors(model, start)
            attacks[way] = inversion.invert(model, corpus, one, size, tick)
        load_adapter_tensors(model, start)
        bounds = [attack["epsilon_at_least"] for attack in attacks.values() if "epsilon_at_least" in attack]
        found[name] = {"epsilon": claimed, "epsilon_at_least": max(bounds), "attacks": attacks}
        say(f"{corpus.name} {name}: " + ", ".join(f"{way} AUC {cell['auc']:.3f}" for way, cell in attacks.items()))
    return found


def who_and_what(
    model: Recommender, target: Target, plan: Plan, tick: Tick | None = None
) -> tuple[float | None, dict[str, Any]]:
    """(claimed epsilon, verdicts) of the attacks that train shadow models."""
    start = adapter_tensors(model)
    learnt, held = interactions.events_of(target.corpus, target.asked)
    members = target.coins[0][np.searchsorted(target.asked, held.users)]
    at_first = membership.losses(model, target.corpus, plan, target.asked)
    falls, sure = [], []
    served: Floats = np.empty(0)
    claimed = None
    for number in range(len(target.coins)):
        load_adapter_tensors(model, start)
        data = target.data(number)
        trained = take_rounds(model, data, plan, ("attacks", "shadow", number), tick)
        falls.append(at_first - membership.losses(model, target.corpus, plan, target.asked))
        sure.append(confidences(model, target.corpus, (learnt, held)))
        if number == 0:
            claimed = trained.claimed(plan.privacy.delta)
            private, _ = personalise(model, data, plan, trained.private, trained.private is not None, tick)
            calibrate(model, data, private)
            served = confidences(model, target.corpus, (learnt, held), private)
    load_adapter_tensors(model, start)
    seen, shadows, coins = falls[0], np.stack(falls[1:]), target.coins[1:]
    confidence = 1 - (1 - CONFIDENCE) / 2  # two bounds are read off the same coins
    delta = plan.privacy.delta
    by = {"loss": seen[:, 0], "likelihood ratio": likelihood_ratio(seen, shadows, coins)}
    attacks = {
        f"membership by {way}": {"epsilon": claimed, **membership.told(scores, target.coins[0], delta, confidence)}
        for way, scores in by.items()
    }
    without = ~coins[:, np.searchsorted(target.asked, held.users)]
    usual = mean_where(np.stack(sure[1:]), without)
    # What is trained at home and served carries no promise.
    for name, scores, covered in (("the adapter", sure[0], claimed), ("answers", served, None)):
        kept = (scores - usual)[members & without.any(0)]
        truth = np.repeat([True, False], len(kept))
        attacks[f"interactions from {name}"] = {"epsilon": covered, **verdict(kept.T.ravel(), truth)}
    return claimed, attacks


def confidences(
    model: Recommender, corpus: Corpus, cases: tuple[Cases, Cases], private: Private | None = None
) -> Floats:
    """(users, 2): in each user's event that was learnt from, and in the one that was held out."""
    return np.stack([interactions.confidence(model, corpus, one, private) for one in cases], 1)
