"""Names give seeds: each place in a run draws from a stream of its own.

Adding a draw in one room never shifts another's, and two carriers that name the same place
draw the same numbers.
"""

import zlib

import numpy as np
import torch


def stream(seed: int, *path: str | int) -> np.random.Generator:
    """Generator for one place in the run, e.g. ``stream(7, "client", "video", 3, "negatives")``."""
    return np.random.default_rng([seed, *(zlib.crc32(str(part).encode()) for part in path)])


def torch_stream(seed: int, *path: str | int) -> torch.Generator:
    """The same for torch: ``torch_stream(7, "client", "video", 3, "batches")``."""
    return torch.Generator().manual_seed(int(stream(seed, *path).integers(2**62)))
