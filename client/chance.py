"""Where a private training's chance comes from: a cipher under the operating system's key, or a run's seed.

What protects users must not be foretold: neither who was sampled nor the noise. A generator made for simulations can,
from some of its output; only a simulation, which promises nothing to anybody, may use one.
"""

import math
import os
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from shared.seeding import stream, torch_stream

Floats = npt.NDArray[np.float64]
TERMS = 4  # normals that one is summed from
GRID = 2.0**-20  # of the clip: what is released lies on its multiples


class Chance(Protocol):
    """Draws that nobody else knows."""

    def uniform(self, count: int) -> Floats:
        """(count,) in [0, 1)."""

    def normal(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Standard normal, of that shape, in double precision."""

    def integers(self, most: int, size: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """Of that size, in [0, most)."""


class Unforeseen:
    """AES-256 in counter mode, under a key that the operating system gives and nothing keeps."""

    def __init__(self, key: bytes | None = None) -> None:
        """A ``key`` (32 bytes) is for tests."""
        self.cipher = Cipher(algorithms.AES(key or os.urandom(32)), modes.CTR(bytes(16))).encryptor()

    def uniform(self, count: int) -> Floats:
        words = np.frombuffer(self.cipher.update(bytes(8 * count)), np.uint64)
        return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def normal(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Each number is a sum of several: the bits of a single one tell what was added to (Holohan & Braghin 2021)."""
        count = math.prod(shape)
        first, second = self.uniform(TERMS * count).reshape(2, -1)
        length, turn = np.sqrt(-2 * np.log1p(-first)), 2 * np.pi * second  # Box & Muller 1958
        both = np.concatenate([length * np.cos(turn), length * np.sin(turn)])
        return torch.from_numpy(both.reshape(TERMS, -1).sum(0) / np.sqrt(TERMS)).view(shape)

    def integers(self, most: int, size: tuple[int, ...]) -> npt.NDArray[np.int64]:
        return (self.uniform(int(np.prod(size))) * most).astype(np.int64).reshape(size)


class Repeatable:
    """The same draws for the same seed and place; for simulations only."""

    def __init__(self, seed: int, *place: str | int) -> None:
        self.draw = stream(seed, *place, "lots")
        self.noise = torch_stream(seed, *place, "noise")

    def uniform(self, count: int) -> Floats:
        return self.draw.random(count)

    def normal(self, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.normal(0.0, 1.0, shape, generator=self.noise, dtype=torch.float64)

    def integers(self, most: int, size: tuple[int, ...]) -> npt.NDArray[np.int64]:
        return self.draw.integers(most, size=size)


def noised(total: torch.Tensor, noise: torch.Tensor, clip: float) -> torch.Tensor:
    """``total`` + ``noise`` (double precision), on multiples of ``clip`` x ``GRID``, of the type of ``total``.

    A float has values that zero plus noise can take and others that it cannot, so which one comes out may tell for
    certain what was under the noise (Mironov 2012). Rounded to a grid that is far coarser than the noise's own steps,
    and known to all, each value can come of any total near it, as often as the bound reckons with.
    """
    step = clip * GRID
    return ((total.double() + noise) / step).round_().mul_(step).to(total.dtype)
