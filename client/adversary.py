"""Adversarial training: the worst small change of the item vectors (fast gradient, Miyato et al. 2017)."""

from collections.abc import Callable

import torch


def worst_case(loss_at: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, radius: float) -> torch.Tensor:
    """Perturbation of ``x`` (..., dim) along the loss gradient, each vector's length at most ``radius``.

    ``radius`` is relative to item vectors of length 1. The search leaves no gradient behind: only ``x`` is
    differentiated, on a copy, so that no parameter and no hook of a parameter sees it.
    """
    probe = x.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss_at(probe), probe)
    length = gradient.norm(dim=-1, keepdim=True)
    shift: torch.Tensor = radius * gradient / length.clamp(min=1e-12)
    return shift
