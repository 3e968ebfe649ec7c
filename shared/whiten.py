"""Whitening of a catalogue's text vectors: every direction of the space counts the same.

Catalogue text is public, so this costs no privacy.
"""

from dataclasses import dataclass
from functools import cached_property

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

    def undo(self, y: torch.Tensor) -> torch.Tensor:
        """Vectors of length 1 (items, dim) as they were before: for another catalogue's whitening.

        ``x = mean + s d`` with ``d = y matrix^-1``; the length s that ``__call__`` dropped is the one positive s that
        makes x of length 1, for a mean of such vectors is shorter.
        """
        d = y @ self._inverse
        a, b = (d * d).sum(-1, keepdim=True), (d * self.mean).sum(-1, keepdim=True)
        c = 1 - self.mean @ self.mean
        s: torch.Tensor = (-b + (b * b + a * c).clamp(min=0).sqrt()) / a.clamp(min=1e-12)
        return self.mean + s * d

    @cached_property
    def _inverse(self) -> torch.Tensor:
        inverse: torch.Tensor = torch.linalg.inv(self.matrix.double()).float()
        return inverse


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
