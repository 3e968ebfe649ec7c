"""Items met by the same users: what no text and no vector of a few hundred numbers can hold (Sarwar et al. 2001)."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_matrix

BLOCK = 512  # items whose likeness to all others is held at a time


@dataclass(frozen=True)
class Neighbours:
    """Of each item the k that it was most often met with; cosines of 0 fill rows that have fewer."""

    rows: torch.Tensor  # (items, k) integers
    cosines: torch.Tensor  # (items, k)

    def __len__(self) -> int:
        return len(self.rows)

    def likeness(self, items: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Sum over the items (positions, events) of weight times cosine with each item of the catalogue.

        Returns (positions, len(self)). Events of weight 0, or of an item behind the catalogue, add nothing.
        """
        weights = weights * (items < len(self))
        own = items.clamp(max=len(self) - 1)
        found = torch.zeros(len(items), len(self))
        return found.scatter_add_(
            1, self.rows[own].flatten(1).long(), (weights[..., None] * self.cosines[own]).flatten(1)
        )


def met_together(users: npt.NDArray[np.integer], items: npt.NDArray[np.integer], count: int, k: int) -> Neighbours:
    """From events (user, item) over a catalogue of ``count`` items: cosine = users of both / sqrt(users of each)."""
    people = int(users.max(initial=-1)) + 1
    met = csr_matrix((np.ones(len(users), np.float32), (users, items)), shape=(people, count))
    met.data[:] = 1  # the constructor has summed an item that one user met twice
    size = np.sqrt(np.maximum(np.asarray(met.sum(axis=0)).ravel(), 1)).astype(np.float32)
    by_item = met.T.tocsr()
    k = min(k, count)
    rows, cosines = torch.zeros(count, k, dtype=torch.int32), torch.zeros(count, k)
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        block = (by_item[start:stop] @ met).toarray() / (size[start:stop, None] * size)
        block[np.arange(stop - start), np.arange(start, stop)] = 0
        best = torch.topk(torch.from_numpy(block), k)
        rows[start:stop], cosines[start:stop] = best.indices.int(), best.values
    return Neighbours(rows, cosines)
