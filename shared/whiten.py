"""Whitening of a catalogue's text vectors: every direction of the space counts the same.

Catalogue text is public, so this costs no privacy.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class Whitening:
    """``x -> normalise((x - mean) @ matrix)``; orientation-preserving, so vectors of two catalogues stay comparable."""

    mean: torch.Tensor  # (dim,)
    matrix: torch.Tensor  # (dim, dim), symmetric

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(items, dim) -> (items, dim), length 1."""
        return F.normalize((x - self.mean) @ self.matrix, dim=-1)


def fit_whitening(x: torch.Tensor, ridge: float = 0.1) -> Whitening:
    """Fit on (items, dim): ``U (L + e)^-1/2 U^T`` with e = ``ridge`` times the mean eigenvalue.

    The ridge also keeps catalogues with fewer items than dimensions from blowing up empty directions.
    """
    mean = x.double().mean(0)
    centred = x.double() - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / max(len(x), 1))
    floor = ridge * values.mean().clamp(min=1e-12)
    matrix = vectors @ torch.diag((values.clamp(min=0) + floor).rsqrt()) @ vectors.T
    return Whitening(mean.float(), matrix.float())
