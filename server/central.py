"""Central differential privacy: how a server that is trusted with it clips, and what noise it adds to a sum of devices.

Two mechanisms, over the sums of a run's steps. ``poisson``: each device joins a step by a toss of its own, the noise of
each step is fresh (DP-FedAvg, McMahan et al. 2018). ``banded``: each device joins every so many steps, and the noise of
a step takes back part of that of the steps before, so that it nearly cancels in the sum over steps (DP-FTRL by matrix
factorisation, Choquette-Choo et al. 2023). That asks nothing of chance in who joins.
"""

import math
from collections import deque

import torch

COUNT_SHARE = 0.01  # of 1 / multiplier^2: what the count below the clip costs of the whole
CLIP_RATE = 0.2  # of the geometric update (Andrew et al. 2021, section 3.1)


def clip_factors(norms: torch.Tensor, clip: float) -> torch.Tensor:
    """What each device's gradient is multiplied by, (devices,), so that no norm is above ``clip``."""
    return (clip / norms.clamp(min=1e-12)).clamp(max=1.0)


def split_noise(multiplier: float) -> tuple[float, float]:
    """(noise of the sum / clip, noise of the count) that together cost what ``multiplier`` alone does on the sum.

    The count is a sum over devices of +1/2 for a norm below the clip and -1/2 above it, so one device moves it by 1/2:
    1 / multiplier^2 = 1 / sum^2 + 1 / (2 count)^2 (Andrew et al. 2021, theorem 1). They give the count a noise of a
    twentieth of the cohort; a fixed share of the cost holds for small cohorts too.
    """
    return multiplier / math.sqrt(1 - COUNT_SHARE), multiplier / (2 * math.sqrt(COUNT_SHARE))


def next_clip(clip: float, below: float, quantile: float) -> float:
    """The clip moved towards the ``quantile`` of the norms, ``below`` being the noised share of them under it."""
    return clip * math.exp(-CLIP_RATE * (below - quantile))


def square_root(bands: int) -> list[float]:
    """First ``bands`` coefficients of (1 - x)^(-1/2): 1, 1/2, 3/8, 5/16, ...

    As the first column of a lower-triangular Toeplitz matrix C they make the banded square root of the prefix sums
    (Kalinin & Lampert 2024, "Banded square root matrix factorization").
    """
    found = [1.0]
    for k in range(1, bands):
        found.append(found[-1] * (2 * k - 1) / (2 * k))
    return found


def sensitivity(coefficients: list[float], steps: int, apart: int) -> float:
    """Most that one device of clip 1 moves C x, x the sums of all ``steps``, joining at least ``apart`` steps apart.

    With no more bands than ``apart`` its columns share no row: the lengths add up in squares, and are greatest from the
    first step on. At most sqrt(participations) times the first column's length.
    """
    if len(coefficients) > apart:
        raise ValueError(f"expected at most {apart} bands for steps {apart} apart, got {len(coefficients)}")
    squares = [sum(c * c for c in coefficients[: steps - first]) for first in range(0, steps, apart)]
    return math.sqrt(sum(squares))


class CorrelatedNoise:
    """Rows of sensitivity x C^-1 z, one a step: over the run as much noise as multiplier 1 in one Gaussian release.

    C^-1 by recurrence: z_t = c_0 n_t + c_1 n_(t-1) + ... gives n_t from z_t and the last ``bands`` - 1 rows.
    """

    def __init__(self, steps: int, apart: int) -> None:
        self.coefficients = square_root(min(apart, steps))
        self.sensitivity = sensitivity(self.coefficients, steps, apart)
        self.rows: deque[torch.Tensor] = deque(maxlen=len(self.coefficients) - 1)

    def next(self, z: torch.Tensor) -> torch.Tensor:
        """The noise of the next step from fresh standard normals, of their shape."""
        row = z.clone()
        for coefficient, before in zip(self.coefficients[1:], self.rows, strict=False):
            row -= coefficient * before
        self.rows.appendleft(row)
        return self.sensitivity * row
