"""What right guesses prove: a lower bound on epsilon from one run with many coins (Steinke, Nasr & Jagielski 2023)."""

import numpy as np
from scipy.stats import binom

CONFIDENCE = 0.95
HIGHEST = 64.0  # no audit of this size could show more


def epsilon_at_least(coins: int, guessed: int, right: int, delta: float, confidence: float = CONFIDENCE) -> float:
    """The largest epsilon that so many right guesses of so many refute; 0 where they refute none."""
    doubt = 1 - confidence
    low, high = 0.0, HIGHEST
    if chance_of(coins, guessed, right, low, delta) > doubt:
        return 0.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        if chance_of(coins, guessed, right, middle, delta) <= doubt:
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
