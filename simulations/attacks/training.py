"""A domain's rounds as a client takes them, for whoever attacks what they release."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from client.budget import planned_noise
from client.corpus import Corpus
from client.privacy import sampled_users, train_privately
from client.splits import Histories
from client.train import Tick, train
from shared.accounting import epsilon
from shared.ledger import GaussianSteps
from shared.model import Recommender, released_names, shared_parameters
from shared.plan import Plan
from shared.private import Private


@dataclass(frozen=True)
class Trained:
    """What the rounds of one domain left beside the adapter."""

    private: Private | None  # trained at home; None under a promise
    spent: tuple[GaussianSteps, ...]  # one for each round; none where nothing is promised

    def claimed(self, delta: float) -> float | None:
        """Epsilon of all rounds together; None where nothing is promised."""
        return epsilon(self.spent, delta) if self.spent else None


def take_rounds(
    model: Recommender, corpus: Corpus, plan: Plan, place: tuple[str | int, ...], tick: Tick | None = None
) -> Trained:
    """All rounds of the plan in place, with its promise or without; the domain is alone in its federation."""
    released = released_names(plan, list(shared_parameters(model)))
    numbers = range(1, plan.federation.rounds + 1)
    if plan.private:
        noise = planned_noise(plan, len(sampled_users(corpus)))
        spent = [
            train_privately(model, corpus, plan, noise, released, (*place, number), simulated=True, tick=tick)
            for number in numbers
        ]
        return Trained(None, tuple(spent))
    private = corpus.private(model) if plan.train.private_rounds else None
    for number in numbers:
        train(
            model,
            [corpus],
            [private],
            plan,
            epochs=plan.train.round_epochs,
            place=(*place, number),
            early_stopping=False,
            released=released,
            part=(number - 1, plan.federation.rounds),
            tick=tick,
        )
    return Trained(private, ())


def unpromised(plan: Plan) -> Plan:
    """The same plan without a promise of privacy."""
    return replace(plan, privacy=replace(plan.privacy, epsilon=0.0))


def only(corpus: Corpus, users: npt.NDArray[np.int64]) -> Corpus:
    """The same domain with the training rows of these users alone."""
    rows = corpus.split.train
    kept = np.zeros(len(rows), bool)
    kept[users] = True
    events = np.repeat(kept, rows.lengths)
    offsets = np.concatenate([[0], np.cumsum(np.where(kept, rows.lengths, 0))]).astype(np.int64)
    left = Histories(offsets, rows.items[events], rows.behaviours[events])
    return replace(corpus, split=replace(corpus.split, train=left))
