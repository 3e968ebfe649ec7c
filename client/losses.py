"""Ranking losses per position; no term mixes two users.

Each takes the target's score (positions,), the scores of negatives (positions, negatives) and which of
those count (an item that is itself the target does not), and gives one loss per position. Sums, not means:
under differential privacy a user's loss is the sum over that user's positions.
"""

from collections.abc import Callable

import torch
from torch.nn import functional as F

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def softmax(positive: torch.Tensor, negatives: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the target among the negatives: ``log sum exp(s) - s_target``."""
    scores = torch.cat([positive[..., None], negatives.masked_fill(~counts, -torch.inf)], -1)
    return torch.logsumexp(scores, -1) - positive


def bce(positive: torch.Tensor, negatives: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy: the target is a yes, the mean negative a no."""
    return F.softplus(-positive) + _mean(F.softplus(negatives), counts)


def mse(positive: torch.Tensor, negatives: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Squared error of ``sigmoid(score)`` against 1 for the target and 0 for the mean negative."""
    return (1 - torch.sigmoid(positive)) ** 2 + _mean(torch.sigmoid(negatives) ** 2, counts)


def bpr(positive: torch.Tensor, negatives: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Bayesian personalised ranking (Rendle et al. 2009): ``-log sigmoid(s_target - s_negative)``."""
    return _mean(F.softplus(negatives - positive[..., None]), counts)


def _mean(values: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    return (values * counts).sum(-1) / counts.sum(-1).clamp(min=1)


LOSSES: dict[str, Loss] = {"softmax": softmax, "bce": bce, "mse": mse, "bpr": bpr}
