"""One federated round as a pure function; it knows neither threads nor network."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from server.ranks import allocate, budget
from server.rule import KIN, Aggregator
from server.screen import screen
from shared.errors import FederationError
from shared.payload import AdapterUpdate, Task, Tensors, table
from shared.plan import Plan

TaskFor = Callable[[str], Task]  # what a domain of that name is to do
Carrier = Callable[[TaskFor], Iterable[AdapterUpdate]]  # in-process loop, or Flower messages


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
    """One federated round: send each domain its adapter, fold the answers, return the next state.

    Raises FederationError when no usable update came; the state given is still good then.
    """
    like = {key: state.adapter[key] for key in state.released}
    refused: dict[str, str] = {}
    norms: dict[str, float] = {}
    names: list[str] = []
    weights: dict[str, float] = {}
    quality: dict[str, float] = {}

    def usable() -> Iterable[AdapterUpdate]:
        for update in screen(carry(tasks(state, aggregator, "train")), state, like, refused.__setitem__):
            # In one order of names: bytes from a peer may list them in another, and sums of floats differ.
            norms[update.domain] = float(
                np.sqrt(sum(float((part**2).sum()) for _, part in sorted(update.delta.items())))
            )
            names.extend(update.summed or [update.domain])
            if not update.summed:
                weights[update.domain] = update.weight
            if update.quality is not None:
                quality[update.domain] = round(update.quality, 2)
            yield update

    try:
        delta, memory, facts = aggregator.apply(state.memory, usable())
    except FederationError as error:
        raise FederationError("; ".join([str(error), *(f"{who}: {why}" for who, why in refused.items())])) from None
    adapter = {key: value + delta[key] if key in delta else value for key, value in state.adapter.items()}
    if state.plan.federation.mean_rank:
        adapter, facts["ranks"] = allocate(adapter, budget(state.plan.federation, state.plan.model.rank, state.round))
    report = {
        "round": state.round,
        "domains": sorted(names),
        "update_norms": norms,
        "weights": weights,
        "quality": quality,
        "refused": refused,
        "moved": {key: float(np.abs(value).max()) for key, value in sorted(delta.items())},
        "aggregation": aggregator.note,
        **facts,
    }
    return replace(state, round=state.round + 1, adapter=adapter, memory=memory, report=report)


def tasks(state: ServerState, aggregator: Aggregator, kind: str) -> TaskFor:
    """Each domain's task of that kind: the common adapter, and on top what the aggregator holds for it alone."""

    def task_for(domain: str) -> Task:
        # Yes or no: how much would tell a domain how large its kin are.
        kin = kind == "finish" and aggregator.others(state.memory, domain) >= KIN
        adapter = adapter_for(state, aggregator, domain)
        return Task(kind, state.round, state.plan, adapter, state.base, kin)

    return task_for


def adapter_for(state: ServerState, aggregator: Aggregator, domain: str) -> Tensors:
    """The adapter that a domain works with; one that is not known yet gets the common one.

    The table of its catalogue, which nobody else has, comes with it.
    """
    own = aggregator.offsets(state.memory, domain)
    return {key: value + own[key] if key in own else value for key, value in state.adapter.items()} | table(own)
