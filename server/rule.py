"""The shape of an aggregation rule: pure functions; the caller owns the state between rounds."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from shared.payload import AdapterUpdate, Tensors

# How much of a domain's towers must be others', or its model is one more training of its own data.
KIN = 0.1


class Aggregator(NamedTuple):
    """A rule that joins updates.

    ``init() -> memory``; ``apply(memory, updates) -> (delta of the common adapter, memory, facts for the log)``;
    ``note`` says in the log what rule it is; ``offsets(memory, domain)`` is what that domain's adapter has on top of
    the common one, ``others(memory, domain)`` how much of its towers came from other domains, 0 to 1. Memory is None or
    plain tensors, so that it can be kept on disk.
    """

    init: Callable[[], Any]
    apply: Callable[[Any, Iterable[AdapterUpdate]], tuple[Tensors, Any, dict[str, Any]]]
    note: str
    offsets: Callable[[Any, str], Tensors] = lambda memory, domain: {}
    others: Callable[[Any, str], float] = lambda memory, domain: 1.0
