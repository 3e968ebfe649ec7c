"""Which items did the users behind one update meet? Read off the item tower's last layer.

That layer moves by a sum over items: (where the loss wants the item's vector) x (the item's hidden values). The latter
are public: texts and the adapter before give them. So ridge regression undoes the sum, and an item that was met had
its vector wanted elsewhere more than one that merely was not chosen. Where a promise releases outputs alone, that layer
stays at home and nothing is told.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from torch.nn import functional as F

from client.corpus import Corpus
from client.privacy import sampled_users
from client.train import Tick
from shared.metrics import Floats
from shared.model import Recommender, adapter_tensors, load_adapter_tensors
from shared.payload import Tensors
from shared.plan import Plan
from shared.seeding import stream
from simulations.attacks.training import only, take_rounds
from simulations.attacks.verdict import Coins, auc, verdict

LAYER = "item.outer.weight"  # (dim, hidden)
RIDGE = 0.01  # of the mean eigenvalue
DEVICES = 24  # attacked one after the other


def invert(model: Recommender, corpus: Corpus, plan: Plan, together: int, tick: Tick | None = None) -> dict[str, Any]:
    """The verdict over some domains of ``together`` users each, beside guessing the items that all others met most.

    Each is attacked through one round, which carries the whole promise of the plan.
    """
    whole = replace(plan, federation=replace(plan.federation, rounds=1))
    draw = stream(plan.federation.seed, "attacks", "devices", together)
    users = sampled_users(corpus)
    count = max(1, min(DEVICES, len(users) // (2 * together)))
    chosen = draw.choice(users, (count, together), replace=False)
    guess = only(corpus, np.setdiff1d(users, chosen)).popularity.astype(np.float64)
    start = adapter_tensors(model)
    x = model.encode(corpus.space)
    strengths, met = [], []
    for place, owners in enumerate(chosen):
        load_adapter_tensors(model, start)
        theirs = only(corpus, owners)
        trained = take_rounds(model, theirs, whole, ("attacks", "device", together, place), tick)
        after = adapter_tensors(model)
        load_adapter_tensors(model, start)
        strengths.append(pushed(model, x, start, after))
        met.append(theirs.popularity > 0)
    guesses = [guess] * count
    return {
        "epsilon": trained.claimed(plan.privacy.delta),
        "domains": count,
        "users_each": together,
        **verdict(np.concatenate([rankdata(one) for one in strengths]), np.concatenate(met)),
        "precision": precision(strengths, met),
        "by_popularity": {
            "auc": auc(np.concatenate([rankdata(one) for one in guesses]), np.concatenate(met)),
            "precision": precision(guesses, met),
        },
    }


@torch.no_grad()
def pushed(model: Recommender, x: torch.Tensor, before: Tensors, after: Tensors) -> Floats:
    """How strongly each item's vector was wanted elsewhere, (items,); ``x`` (items, dim) is the catalogue."""
    hidden = F.relu(model.item.inner(x)).double().numpy()
    moved = (after[LAYER] - before[LAYER]).astype(np.float64)
    products = hidden @ hidden.T
    products += RIDGE * np.trace(products) / len(products) * np.eye(len(products))
    strength: Floats = np.linalg.norm(np.linalg.solve(products, hidden @ moved.T), axis=1)
    return strength


def precision(scores: list[Floats], met: list[Coins]) -> float:
    """Of the n items guessed, n being how many were met, the part that was met; mean over domains."""
    hits = [
        truth[np.argsort(-one, kind="stable")[: truth.sum()]].mean() for one, truth in zip(scores, met, strict=True)
    ]
    return float(np.mean(hits))
