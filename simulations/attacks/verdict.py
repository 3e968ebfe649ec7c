"""How well an attack tells one kind from another, whatever it looked at."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from shared.metrics import Floats

POINTS = 101  # of a ROC curve
Coins = npt.NDArray[np.bool_]


def auc(scores: Floats, truth: Coins) -> float:
    """Chance that one of those that are true scores above one that is not; a tie counts half (Mann & Whitney 1947)."""
    true, false = int(truth.sum()), int((~truth).sum())
    if not true or not false:
        return 0.5
    return float((rankdata(scores)[truth].sum() - true * (true + 1) / 2) / (true * false))


def verdict(scores: Floats, truth: Coins) -> dict[str, Any]:
    """AUC, the ROC curve, and how many are caught where one in a hundred is wrongly accused."""
    true, false = scores[truth], scores[~truth]
    levels = np.linspace(0, 1, POINTS)
    caught = [float((true > np.quantile(false, 1 - level)).mean()) for level in levels]
    return {
        "auc": auc(scores, truth),
        "caught_at_1_percent": caught[1],
        "roc": {"false": levels.tolist(), "true": caught},
    }
