"""Likelihood ratio of "was in" to "was out", learnt from shadow models (LiRA, Carlini et al. 2022).

Each user has a mean of their own, as there. What taking part adds to it, and the covariance, are common to all users:
a handful of shadow models is too few to learn them for each (``LOG.md``).
"""

import numpy as np

from shared.metrics import Floats
from simulations.attacks.verdict import Coins

LEAST = 1e-12  # of a variance: signals that never vary tell nothing


def likelihood_ratio(seen: Floats, shadows: Floats, coins: Coins) -> Floats:
    """Log of the ratio for each user, (users,).

    ``seen`` (users, signals) comes from the model under attack, ``shadows`` (models, users, signals) from models of the
    attacker's own, ``coins`` (models, users) says who was in them.
    """
    was_in = coins[..., None]
    told = coins.any(0) & ~coins.all(0)
    gain = (mean_where(shadows, coins) - mean_where(shadows, ~coins))[told].mean(0)
    mean = (shadows - was_in * gain).mean(0)
    rest = (shadows - was_in * gain - mean).reshape(-1, seen.shape[1])
    covariance = np.atleast_2d(np.cov(rest.T)) + LEAST * np.eye(seen.shape[1])
    ratio: Floats = (seen - mean - gain / 2) @ np.linalg.solve(covariance, gain)
    return ratio


def mean_where(values: Floats, where: Coins) -> Floats:
    """Mean over the models (models, users, signals) in which a user is ``where`` (models, users); 0 if in none."""
    counts = where.sum(0)[:, None]
    mean: Floats = (values * where[..., None]).sum(0) / np.maximum(counts, 1)
    return mean
