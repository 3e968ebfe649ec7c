"""Noise as it is promised: mean, spread, shape, independence, each within three standard errors."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from client.chance import GRID, Repeatable, Unforeseen, noised

DRAWS = 10_000


@pytest.fixture(params=["real", "simulated"])
def chance(request):
    return Unforeseen(bytes(range(32))) if request.param == "real" else Repeatable(0, "test")


def normals(chance, *shape):
    return chance.normal(shape).numpy()


def test_mean_and_variance(chance):
    drawn = normals(chance, DRAWS)
    assert abs(drawn.mean()) < 3 / np.sqrt(DRAWS)
    assert abs(drawn.var() - 1) < 3 * np.sqrt(2 / DRAWS)


def test_the_shape_is_the_normal_distributions(chance):
    assert kstest(normals(chance, DRAWS), "norm").pvalue > 0.001


def test_draws_know_nothing_of_each_other(chance):
    parameters = normals(chance, DRAWS, 4)
    drawn = parameters.ravel()
    for lag in (1, 2, 3, 4, 7, DRAWS):
        assert abs(np.mean(drawn[lag:] * drawn[:-lag])) < 4 / np.sqrt(len(drawn) - lag)
    steps = normals(chance, DRAWS, 4)
    assert np.abs(np.corrcoef(parameters.T, steps.T) - np.eye(8)).max() < 4.5 / np.sqrt(DRAWS)
    assert abs(np.mean(parameters**2 * steps**2) - 1) < 3 * np.sqrt(8 / (4 * DRAWS))


def test_uniforms_and_integers_are_even(chance):
    drawn = chance.uniform(DRAWS)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert kstest(drawn, "uniform").pvalue > 0.001
    counts = np.bincount(chance.integers(10, (DRAWS // 10, 10)).ravel(), minlength=10)
    assert len(counts) == 10
    assert np.abs(counts - DRAWS / 10).max() < 4.5 * np.sqrt(DRAWS * 0.09)


def test_normals_have_the_shape_asked_for_in_double_precision(chance):
    drawn = chance.normal((3, 5, 2))
    assert drawn.shape == (3, 5, 2)
    assert drawn.dtype == torch.float64


def test_what_is_noised_lies_on_the_grid_next_to_the_exact_sum(chance):
    total, noise = torch.tensor([0.0, 0.3, -1.7, 1e-9]).repeat(500), 0.7 * chance.normal((2000,))
    found = noised(total, noise, clip=0.25)
    assert found.dtype == total.dtype
    places = found.double() / (0.25 * GRID)
    assert torch.equal(places, places.round())
    assert ((found.double() - (total.double() + noise)).abs() <= 0.25 * GRID / 2).all()


def test_no_value_tells_what_was_under_the_noise(chance):
    """In single precision some sums can come of 0.3 plus noise that cannot come of noise alone."""
    zero, some = (noised(torch.full((200_000,), told), chance.normal((200_000,)), clip=1.0) for told in (0.0, 0.3))
    low = [torch.remainder(found.double() / GRID, 16) for found in (zero, some)]
    for found in low:  # the last bits of what comes out are as even for the one as for the other
        counts = torch.bincount(found.long(), minlength=16).double()
        assert (counts - 12_500).abs().max() < 4.5 * 12_500**0.5


def test_only_the_simulated_repeat():
    like = (50,)
    assert torch.equal(Repeatable(1, "a").normal(like), Repeatable(1, "a").normal(like))
    assert not torch.equal(Repeatable(1, "a").normal(like), Repeatable(1, "b").normal(like))
    torch.manual_seed(0)
    np.random.seed(0)
    first = Unforeseen().normal(like)
    torch.manual_seed(0)
    np.random.seed(0)
    assert not torch.equal(first, Unforeseen().normal(like))
