"""One federated round as a pure function; it knows neither threads nor network."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from server.aggregate import Aggregator
from server.screen import screen
from shared.errors import FederationError
from shared.payload import AdapterUpdate, Task, Tensors
from shared.plan import Plan

Carrier = Callable[[Task], Iterable[AdapterUpdate]]  # in-process loop, or Flower messages


@dataclass(frozen=True)
class ServerState:
    """Everything a round needs and leaves behind."""

    round: int  # of the next round, from 1
    plan: Plan
    adapter: Tensors
    released: frozenset[str]  # names of the tensors that clients train and send
    base: str
    memory: Any = None
    report: dict[str, Any] = field(default_factory=dict)  # of the last round, for the log


def step(state: ServerState, carry: Carrier, aggregator: Aggregator) -> ServerState:
    """One federated round: send the adapter, fold the answers, return the next state.

    Raises FederationError when no usable update came; the state given is still good then.
    """
    task = Task("train", state.round, state.plan, state.adapter, state.base)
    like = {key: state.adapter[key] for key in state.released}
    refused: dict[str, str] = {}
    norms: dict[str, float] = {}

    def usable() -> Iterable[AdapterUpdate]:
        for update in screen(carry(task), task, like, refused.__setitem__):
            # In one order of names: bytes from a peer may list them in another, and sums of floats differ.
            norms[update.domain] = float(
                np.sqrt(sum(float((part**2).sum()) for _, part in sorted(update.delta.items())))
            )
            yield update

    try:
        delta, memory = aggregator.apply(state.memory, usable())
    except FederationError as error:
        raise FederationError("; ".join([str(error), *(f"{who}: {why}" for who, why in refused.items())])) from None
    adapter = {key: value + delta[key] if key in delta else value for key, value in state.adapter.items()}
    report = {
        "round": state.round,
        "domains": sorted(norms),
        "update_norms": norms,
        "refused": refused,
        "moved": {key: float(np.abs(value).max()) for key, value in sorted(delta.items())},
        "aggregation": aggregator.note,
    }
    return replace(state, round=state.round + 1, adapter=adapter, memory=memory, report=report)
