"""Clip, noise and sensitivity of central privacy against numpy, brute force, and other people's formulas."""

import math
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import norm

from server.central import CorrelatedNoise, clip_factors, next_clip, sensitivity, split_noise, square_root
from shared.accounting import epsilon
from shared.ledger import GaussianSteps


def toeplitz(coefficients, steps):
    """The lower-triangular matrix C with these numbers down its first column."""
    c = np.zeros((steps, steps))
    for lag, value in enumerate(coefficients[:steps]):
        c += value * np.eye(steps, k=-lag)
    return c


def test_the_square_root_times_itself_sums_up():
    c = toeplitz(square_root(6), 6)
    assert np.allclose(c @ c, np.tril(np.ones((6, 6))))


@pytest.mark.parametrize(("steps", "apart"), [(7, 1), (7, 3), (6, 3), (4, 9)])
def test_noise_by_recurrence_is_that_of_the_inverse_matrix(steps, apart):
    noise = CorrelatedNoise(steps, apart)
    z = torch.randn(steps, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rows = torch.stack([noise.next(row) for row in z])
    truth = np.linalg.inv(toeplitz(square_root(min(apart, steps)), steps)) @ z.numpy()
    assert np.allclose(rows.numpy(), noise.sensitivity * truth)


@pytest.mark.parametrize("apart", [1, 2, 3, 4])
@pytest.mark.parametrize("steps", range(1, 10))
def test_sensitivity_is_the_most_over_all_ways_to_take_part(steps, apart):
    coefficients = square_root(min(apart, steps))
    c = toeplitz(coefficients, steps)
    most = max(
        np.linalg.norm(c[:, list(joined)].sum(1))  # all updates alike: the worst case, for no entry is negative
        for count in range(1, steps + 1)
        for joined in combinations(range(steps), count)
        if all(later - earlier >= apart for earlier, later in pairwise(joined))
    )
    found = sensitivity(coefficients, steps, apart)
    assert found == pytest.approx(most)
    assert found <= math.sqrt(math.ceil(steps / apart)) * np.linalg.norm(c[:, 0]) + 1e-12


def test_more_bands_than_steps_apart_are_refused():
    with pytest.raises(ValueError, match="at most 2 bands"):
        sensitivity(square_root(3), 10, 2)


@pytest.mark.parametrize("multiplier", [0.6, 1.0, 3.0])
def test_one_release_costs_what_the_analytic_gaussian_mechanism_does(multiplier):
    delta = 1e-5

    def excess(eps):  # Balle & Wang 2018, theorem 8, sensitivity 1
        half, shift = 1 / (2 * multiplier), eps * multiplier
        return norm.cdf(half - shift) - math.exp(eps) * norm.cdf(-half - shift) - delta

    exact = brentq(excess, 0.0, 50.0)
    found = epsilon([GaussianSteps(multiplier, 1.0, 1)], delta)
    assert exact <= found < exact + 0.03


def test_no_device_is_longer_than_the_clip_and_short_ones_are_left_alone():
    norms = torch.tensor([0.0, 0.5, 1.0, 4.0])
    assert clip_factors(norms, 1.0).tolist() == [1.0, 1.0, 1.0, 0.25]


def test_the_noise_of_sum_and_count_costs_what_one_noise_would():
    of_sum, of_count = split_noise(1.3)
    assert 1 / of_sum**2 + 1 / (2 * of_count) ** 2 == pytest.approx(1 / 1.3**2)
    assert 1.3 < of_sum < 1.31


@pytest.mark.parametrize("start", [0.01, 100.0])
def test_the_clip_finds_the_quantile_of_known_norms(start):
    draw = np.random.default_rng(5)
    norms, clip = draw.lognormal(1.0, 0.5, 1000), start
    for _ in range(200):
        clip = next_clip(clip, (norms <= clip).mean() + draw.normal(0, 0.02), 0.7)
    assert abs((norms <= clip).mean() - 0.7) < 0.05
