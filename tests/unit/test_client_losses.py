import math

import pytest
import torch

from client.adversary import worst_case
from client.losses import LOSSES

POSITIVE = torch.tensor([1.0])
NEGATIVES = torch.tensor([[0.0, 2.0, 9.0]])
COUNTS = torch.tensor([[True, True, False]])  # the third negative is the target itself


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("softmax", math.log(math.e + 1 + math.e**2) - 1),
        ("bce", math.log(1 + math.exp(-1)) + (math.log(2) + math.log(1 + math.exp(2))) / 2),
        ("mse", (1 - 1 / (1 + math.exp(-1))) ** 2 + (0.25 + (1 / (1 + math.exp(-2))) ** 2) / 2),
        ("bpr", (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(1))) / 2),
    ],
)
def test_by_hand(name, expected):
    found = LOSSES[name](POSITIVE, NEGATIVES, COUNTS)
    assert found.shape == (1,)
    assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_better_target_costs_less_and_rows_do_not_mix(name):
    two = torch.tensor([0.5, 3.0])
    negatives = torch.tensor([[0.1, 0.2], [0.3, 0.4]])
    counts = torch.ones_like(negatives, dtype=torch.bool)
    loss = LOSSES[name](two, negatives, counts)
    assert loss[1] < loss[0]
    changed = LOSSES[name](two, torch.stack([negatives[0] + 5, negatives[1]]), counts)
    assert changed[1] == loss[1]


def test_the_perturbation_follows_the_gradient_at_the_radius():
    target = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    weight = torch.ones(1, requires_grad=True)
    x = torch.zeros(2, 2, requires_grad=True)
    shift = worst_case(lambda probe: weight * ((probe - target) ** 2).sum(), x, radius=0.3)
    # the gradient is -2 target: each row moves 0.3 away from its target
    torch.testing.assert_close(shift, torch.tensor([[-0.3, 0.0], [0.0, -0.3]]))
    assert weight.grad is None
    assert x.grad is None
    assert not shift.requires_grad


def test_an_item_without_gradient_stays_where_it_is():
    shift = worst_case(lambda probe: probe[0].sum(), torch.ones(2, 3), radius=1.0)
    assert shift[1].tolist() == [0.0, 0.0, 0.0]
