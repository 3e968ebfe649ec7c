"""What a domain adds to the shared model and keeps to itself."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from shared.neighbours import Neighbours
from shared.payload import Tensors, table_name
from shared.plan import ModelPlan

if TYPE_CHECKING:
    from shared.model import Batch


class Private(nn.Module):
    """What never leaves the domain: item bias, and (where asked for) item-id and user-id residuals, neighbours.

    The bias starts at the log of an item's popularity at home, the residuals at zero. Two are set when training is over
    (``client/calibrate.py``) and zero until then: ``lift``, added to each item's score, and ``near``, the (weight,
    sharpness, decay a step back) of what neighbours add.
    """

    lift: torch.Tensor  # (items,)
    near: torch.Tensor  # (3,)

    def __init__(
        self,
        popularity: npt.NDArray[np.int64],
        users: int,
        dim: int,
        plan: ModelPlan,
        neighbours: Neighbours | None = None,
    ) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.register_buffer("lift", torch.zeros(len(popularity)))
        self.register_buffer("near", torch.zeros(3))
        logs = np.log(popularity + 1.0)
        self.bias = nn.Parameter(torch.from_numpy(logs - logs.mean()).float())
        self.strength = nn.Parameter(torch.tensor(0.2))
        self.item = _zeros(len(popularity), dim) if plan.item_embedding else None
        self.reads = plan.item_reading
        # A batch touches few users: their rows alone get gradients.
        self.user = _zeros(users, dim, sparse=True) if plan.user_embedding else None

    def items(self, v: torch.Tensor, among: torch.Tensor | None = None) -> torch.Tensor:
        """Item vectors of the catalogue, or of the rows ``among``, with their residuals: (items, dim)."""
        if self.item is None:
            return v
        return v + (self.item.weight if among is None else self.item(among))

    def read(self, x: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Vectors (..., dim) of the items (...) of a history with what the domain knows of them beyond their texts."""
        return x + self.item(items) if self.item is not None and self.reads else x

    def users(self, u: torch.Tensor, users: torch.Tensor) -> torch.Tensor:
        """User vectors (rows, dim) with the residuals of these users (rows,); -1 is somebody unknown."""
        if self.user is None:
            return u
        known: torch.Tensor = self.user(users.clamp(min=0)) * (users >= 0)[:, None]
        return u + known

    def uncalibrate(self) -> None:
        """As a training must find it."""
        self.lift.zero_()
        self.near.zero_()

    def nearness(self, batch: "Batch", at: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """What neighbours of the history add to the scores: (positions, items).

        weight * log(1 + sharpness * likeness).
        """
        weight, sharpness, decay = self.near
        added: torch.Tensor = weight * torch.log1p(sharpness * self.likeness(batch, at, float(decay)))
        return added

    def likeness(self, batch: "Batch", at: tuple[torch.Tensor, torch.Tensor], decay: float) -> torch.Tensor:
        """Cosines of each item with the events up to each position, an event counting decay^age: (positions, items)."""
        assert self.neighbours is not None
        age = at[1][:, None] - torch.arange(batch.items.shape[1])
        weights = torch.where((age >= 0) & batch.mask[at[0]], decay ** age.clamp(min=0), 0.0)
        return self.neighbours.likeness(batch.items[at[0]], weights)


def _zeros(rows: int, dim: int, sparse: bool = False) -> nn.Embedding:
    table = nn.Embedding(rows, dim, sparse=sparse)
    nn.init.zeros_(table.weight)
    return table


def item_table(private: Private, catalogue: str) -> Tensors:
    """Item residuals and biases, of the catalogue with that fingerprint."""
    assert private.item is not None  # plan.model.shared_items needs item_embedding
    values = {"bias": private.bias, "vectors": private.item.weight}
    return {table_name(catalogue, key): value.detach().numpy().copy() for key, value in values.items()}


def load_item_table(private: Private, tensors: Tensors) -> None:
    """Put a checked table's residuals and biases in the place of the domain's own."""
    assert private.item is not None
    own = {"bias": private.bias, "vectors": private.item.weight}
    for name, value in tensors.items():
        if (key := name.rpartition(".")[2]) in own:
            own[key].data.copy_(torch.from_numpy(value))
