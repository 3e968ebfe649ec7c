import torch
from torch.nn import functional as F

from shared.whiten import fit_whitening


def texts(count: int, seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, 12, generator=draw) + 0.7, dim=1)


def test_whitening_can_be_undone_for_vectors_of_length_one():
    whitening = fit_whitening(texts(300, 1))
    others = texts(40, 2)  # that it was not fitted on
    torch.testing.assert_close(whitening.undo(whitening(others)), others, atol=1e-5, rtol=0)


def test_undoing_by_hand():
    # One dimension apart from the mean: matrix = 2 I, mean = (0, .6); y = (1, 0) came from s (1/2, 0) + (0, .6) of
    # length 1, hence s / 2 = .8.
    whitening = type(fit_whitening(texts(5, 1)))(torch.tensor([0.0, 0.6]), 2 * torch.eye(2))
    torch.testing.assert_close(whitening.undo(torch.tensor([[1.0, 0.0]])), torch.tensor([[0.8, 0.6]]))
