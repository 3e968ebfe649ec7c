"""Items met by the same users: what no text and no vector of a few hundred numbers can hold (Sarwar et al. 2001)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from shared.payload import HASHES, WIDTH
from shared.seeding import stream

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

ROWS, COSINES = "neighbours.rows", "neighbours.cosines"  # names of what is saved
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

    def with_itself(self, cosine: float) -> "Neighbours":
        """Each item its own neighbour too, in the place of the least: what was met lately comes again."""
        rows, cosines = self.rows.clone(), self.cosines.clone()
        rows[:, -1], cosines[:, -1] = torch.arange(len(self), dtype=rows.dtype), cosine
        return Neighbours(rows, cosines)

    def met_with(self, items: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same of one history (events,), of those items alone that it is not nothing for: (rows, likeness), both
        (found,), rows ascending."""
        rows, place = self.rows[items].flatten().long().unique(return_inverse=True)
        return rows, torch.zeros(len(rows)).index_add_(0, place, (weights[:, None] * self.cosines[items]).flatten())


def tensors_of(neighbours: Neighbours | None) -> dict[str, torch.Tensor]:
    """To be saved beside private parameters; nothing where there are none."""
    return {} if neighbours is None else {ROWS: neighbours.rows, COSINES: neighbours.cosines}


def split_off(tensors: dict[str, torch.Tensor]) -> tuple[Neighbours | None, dict[str, torch.Tensor]]:
    """The neighbours among saved tensors, and the rest."""
    rest = {key: value for key, value in tensors.items() if key not in (ROWS, COSINES)}
    return (Neighbours(tensors[ROWS], tensors[COSINES]) if ROWS in tensors and COSINES in tensors else None), rest


def met_together(users: npt.NDArray[np.integer], items: npt.NDArray[np.integer], count: int, k: int) -> Neighbours:
    """From events (user, item) over a catalogue of ``count`` items: cosine = users of both / sqrt(users of each)."""
    met = _met(users, items, count)
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


def sketch_pairs(
    users: npt.NDArray[np.integer], items: npt.NDArray[np.integer], count: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """How many users met each item, (count,), and in a count-min sketch each pair, (count, HASHES * WIDTH).

    Row i holds, for each hash function, how many meetings of i with items that fall into each bucket (Cormode &
    Muthukrishnan 2005). Sums of several owners' sketches are the sketch of all their users.
    """
    from scipy.sparse import csr_matrix

    met = _met(users, items, count)
    by_item = met.T.tocsr()
    sizes = np.asarray(met.sum(axis=0)).ravel().astype(np.float32)
    pairs = np.zeros((count, HASHES, WIDTH), np.float32)
    own = np.arange(count)
    for place, bucket in enumerate(buckets(count)):
        into = csr_matrix((np.ones(count, np.float32), (own, bucket)), shape=(count, WIDTH))
        pairs[:, place] = (by_item @ (met @ into)).toarray()
        pairs[own, place, bucket] -= sizes  # an item is no neighbour of itself
    return sizes, pairs.reshape(count, -1)


def from_sketch(sizes: npt.NDArray[np.float32], pairs: npt.NDArray[np.float32], k: int) -> Neighbours:
    """Neighbours from such a pair, scaled or summed as one likes; each count is the least that any bucket allows."""
    count = len(sizes)
    k = min(k, count)
    rows, cosines = torch.zeros(count, k, dtype=torch.int32), torch.zeros(count, k)
    table, where = torch.from_numpy(pairs).view(count, HASHES, WIDTH), torch.from_numpy(buckets(count))
    size = torch.from_numpy(np.sqrt(np.maximum(sizes, 0)))
    for start in range(0, count, BLOCK):
        some = torch.arange(start, min(start + BLOCK, count))
        both = torch.full((len(some), count), torch.inf)
        for place in range(HASHES):
            both = torch.minimum(both, table[some, place][:, where[place]])
            both = torch.minimum(both, table[:, place][:, where[place, some]].T)  # a pair stands in both items' rows
        cosine = (both / (size[some, None] * size)).nan_to_num(0, 0, 0).clamp(0, 1)
        cosine[torch.arange(len(some)), some] = 0
        best = torch.topk(cosine, k)
        rows[some], cosines[some] = best.indices.int(), best.values
    return Neighbours(rows, cosines)


def buckets(count: int) -> npt.NDArray[np.int64]:
    """Which bucket of each hash function an item falls into, the same for everybody: (HASHES, count)."""
    return stream(0, "pairs").integers(WIDTH, size=(HASHES, count))


def _met(users: npt.NDArray[np.integer], items: npt.NDArray[np.integer], count: int) -> "csr_matrix":
    """Who met what, (users, items), ones."""
    from scipy.sparse import csr_matrix  # slow to import; who serves has its neighbours already

    found = csr_matrix((np.ones(len(users), np.float32), (users, items)), shape=(int(users.max(initial=-1)) + 1, count))
    found.data[:] = 1  # the constructor has summed an item that one user met twice
    return found
