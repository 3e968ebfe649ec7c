"""Drops what cannot be aggregated, with a reason for each."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from shared.errors import PayloadError
from shared.payload import AdapterUpdate, check_like, check_table, common, table, table_keys

if TYPE_CHECKING:
    from server.rounds import ServerState

# No training moves a number so far, and no item was met so often; sums of squares of less stay finite.
LARGEST = 1e9


def screen(
    updates: Iterable[AdapterUpdate],
    state: "ServerState",
    released: dict[str, npt.NDArray[Any]],
    refuse: Callable[[str, str], None],
) -> Iterator[AdapterUpdate]:
    """Pass usable updates on; tell ``refuse(domain, reason)`` of every other one."""
    seen: set[str] = set()
    shares_items = state.plan.model.shared_items
    width = len(state.adapter["user.outward.bias"]) if shares_items else 0
    # Of one catalogue all tables are of one shape, in this round and in those before. A name without the domain before
    # it is itself a domain's, which may look like a table's.
    kept = state.memory if shares_items and state.memory else {}
    shapes = {key.rpartition("\n")[2]: value.shape for key, value in kept.items() if key.count("\n") == 2}
    for update in updates:
        try:
            if update.round != state.round:
                raise PayloadError(f"answers round {update.round}, this is round {state.round}")
            if update.base != state.base:
                raise PayloadError("was trained on another base model; both sides must run the same plan")
            if not (math.isfinite(update.weight) and update.weight > 0):
                raise PayloadError(f"declares weight {update.weight}, expected a positive number")
            if update.quality is not None and not 0 <= update.quality <= 1:  # nor what is no number
                raise PayloadError(f"declares a quality of {update.quality}, expected an NDCG from 0 to 1")
            if update.domain in seen:
                raise PayloadError("answered this round already")
            check_like(common(update.delta) if shares_items else update.delta, released, "the update")
            if shares_items:
                check_table(table(update.delta), width, table_keys(state.plan, state.round), "the update")
                for key, value in table(update.delta).items():
                    if shapes.setdefault(key, value.shape) != value.shape:
                        raise PayloadError(f"{key} has shape {value.shape}, others sent {shapes[key]}")
            if (most := max(float(np.abs(value).max(initial=0)) for value in update.delta.values())) > LARGEST:
                raise PayloadError(f"moves a number by {most:.3g}, expected {LARGEST:g} at most; its training diverged")
            if not any(np.any(value) for value in update.delta.values()):
                raise PayloadError("is all zeros: its training moved nothing")
        except PayloadError as error:
            refuse(update.domain, str(error))
            continue
        seen.add(update.domain)
        yield update
