"""Noise as it is promised: mean, spread, shape, independence, each within three standard errors."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from client.chance import Repeatable, Unforeseen

DRAWS = 10_000


@pytest.fixture(params=["real", "simulated"])
def chance(request):
    return Unforeseen(bytes(range(32))) if request.param == "real" else Repeatable(0, "test")


def normals(chance, *shape):
    return chance.normal(torch.empty(*shape, dtype=torch.float64)).numpy()


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


def test_type_and_shape_are_the_tensors():
    like = torch.empty(3, 5, 2)
    assert Unforeseen().normal(like).shape == (3, 5, 2)
    assert Unforeseen().normal(like).dtype == torch.float32


def test_only_the_simulated_repeat():
    like = torch.empty(50)
    assert torch.equal(Repeatable(1, "a").normal(like), Repeatable(1, "a").normal(like))
    assert not torch.equal(Repeatable(1, "a").normal(like), Repeatable(1, "b").normal(like))
    torch.manual_seed(0)
    np.random.seed(0)
    first = Unforeseen().normal(like)
    torch.manual_seed(0)
    np.random.seed(0)
    assert not torch.equal(first, Unforeseen().normal(like))
