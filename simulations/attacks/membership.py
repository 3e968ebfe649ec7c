"""Who was in the training data? Told by how much a user's own loss fell from the adapter before to the one after."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from client.batches import in_order, pad
from client.corpus import Corpus
from client.evaluate import BLOCK_ROWS
from client.train import answers, predictions
from shared.metrics import Floats
from shared.model import Recommender
from shared.plan import Plan
from simulations.attacks.bound import epsilon_at_least
from simulations.attacks.verdict import Coins, verdict

GUESSED = 4  # one user in so many is guessed "in", as many "out"; the attacker abstains on the rest


@torch.no_grad()
def losses(model: Recommender, corpus: Corpus, plan: Plan, users: npt.NDArray[np.int64]) -> Floats:
    """Mean cross-entropy among the whole catalogue of each user's events, (users, 2).

    Over the events that the plain training takes of a window, and over those that the private one takes.
    """
    model.eval()
    x = model.encode(corpus.space)
    order = np.argsort(corpus.split.train.lengths[users], kind="stable")  # like lengths together: little padding
    found = np.empty((len(users), 2))
    for block in in_order(len(users), BLOCK_ROWS):
        rows = users[order[block]]
        for column, longest in enumerate((model.plan.max_history + 1, plan.privacy.events)):
            found[order[block], column] = _mean_losses(model, corpus, x, rows, longest)
    return found


def _mean_losses(
    model: Recommender, corpus: Corpus, x: torch.Tensor, users: npt.NDArray[np.int64], longest: int
) -> Floats:
    batch = pad(corpus.split.train, users, users, longest)
    logits = predictions(model, corpus.space, x, None, batch, len(users))
    each = F.cross_entropy(logits, answers(batch, batch.items[:, 0]), reduction="none").double()
    whose = torch.cat([batch.mask[:, 1:].nonzero(as_tuple=True)[0], torch.arange(len(users))])
    sums = torch.zeros(len(users), dtype=torch.float64).index_add(0, whose, each)
    return (sums / torch.bincount(whose)).numpy()


def told(scores: Floats, coins: Coins, delta: float, confidence: float) -> dict[str, Any]:
    """The verdict on who was in, and the epsilon that the surest guesses refute."""
    some = max(1, len(scores) // GUESSED)
    order = np.argsort(scores, kind="stable")
    right = int(coins[order[-some:]].sum() + (~coins[order[:some]]).sum())
    return {
        **verdict(scores, coins),
        "epsilon_at_least": epsilon_at_least(len(scores), 2 * some, right, delta, confidence),
        "guessed": 2 * some,
        "right": right,
    }
