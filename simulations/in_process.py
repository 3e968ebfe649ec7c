"""A carrier that is a for loop: the whole federation in one process, no network."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from client.secure_sum import SecureSum, strangers
from server.rounds import Carrier, ServerState, TaskFor
from server.secure_sum import secure_carrier
from shared.errors import FederationError
from shared.payload import AdapterUpdate, Task, task_from_bytes, task_to_bytes, update_from_bytes, update_to_bytes
from shared.secure_payload import is_secure
from shared.secure_sum import task_digest


class Trains(Protocol):
    """The part of a member that a round needs."""

    @property
    def name(self) -> str: ...
    def train(self, task: Task) -> AdapterUpdate: ...


def carrier_for(state: ServerState, members: Sequence[Trains]) -> Carrier:
    """The carrier that the state's plan asks for."""
    return in_secrecy(members, state.released) if state.plan.federation.secure else in_process(members)


def in_process(members: Sequence[Trains]) -> Carrier:
    """One member after the other, in the order of their names, through the same bytes as over a network.

    A member that raises stops the run: on one machine there is nobody else to tell.
    """

    def carry(task_for: TaskFor) -> Iterator[AdapterUpdate]:
        for member in sorted(members, key=lambda member: member.name):
            raw = task_to_bytes(task_for(member.name))
            yield update_from_bytes(update_to_bytes(member.train(task_from_bytes(raw))))

    return carry


def in_secrecy(members: Sequence[Trains], released: frozenset[str]) -> Carrier:
    """The same as one secure sum, between members whose keys are made up for it."""
    order = sorted(members, key=lambda member: member.name)
    sums = [SecureSum(identity) for identity in strangers([member.name for member in order]).values()]

    def answer(node: int, raw: bytes) -> bytes:
        if is_secure(raw):
            return sums[node].answer(raw)
        task = task_from_bytes(raw)
        return sums[node].announce(order[node].train(task), task.plan.federation.weight_cap, task_digest(raw))

    def put(raws: Mapping[int, bytes]) -> dict[int, bytes]:
        return {node: answer(node, raw) for node, raw in raws.items()}

    def tell(who: str, why: str) -> None:
        raise FederationError(f"{who}: {why}")

    return secure_carrier(lambda: range(len(order)), put, released, tell)
