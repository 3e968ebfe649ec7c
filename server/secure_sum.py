"""The server's side of a secure sum: passes on what members say to each other, and opens the sum alone.

It sees no single update: the masks that the shares it is given take away are those of the whole sum.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from server.rounds import Carrier, TaskFor
from shared import secure_payload as payload
from shared.errors import FederationError, PayloadError
from shared.payload import AdapterUpdate, Task, Tensors, task_to_bytes
from shared.secure_sum import (
    FEWEST,
    Announcement,
    Attendance,
    Circle,
    Floats,
    Ring,
    circle,
    from_ring,
    mask,
    opened_key,
    opened_seed,
    pair_mask,
    task_digest,
)

Tell = Callable[[str, str], None]  # (who, why there is nothing from it)
# Hands each node its bytes and returns the answers that came, by node; of those who gave none it tells itself.
Put = Callable[[Mapping[int, bytes]], Mapping[int, bytes]]
Shares = Mapping[str, Sequence[bytes]]  # by whose secret they open
Read = TypeVar("Read")
TOGETHER = "all together"


def secure_carrier(nodes: Callable[[], Sequence[int]], put: Put, released: frozenset[str], tell: Tell) -> Carrier:
    """A carrier whose single update is the weighted mean of all who were there.

    Every member does the same task. Raises FederationError when too few are left at some step: the round can be
    tried again, and nobody's update is known.
    """

    def carry(task_for: TaskFor) -> list[AdapterUpdate]:
        try:
            return [_Sum(task_for(""), released, put, tell).run(nodes())]
        except PayloadError as error:
            raise FederationError(f"secure sum: {error}") from None

    return carry


class _Sum:
    """One attempt."""

    def __init__(self, task: Task, released: frozenset[str], put: Put, tell: Tell) -> None:
        self.task, self.put, self.tell = task, put, tell
        self.raw = task_to_bytes(task)
        self.digest = task_digest(self.raw)
        self.names = sorted(released)
        self.count = 1 + sum(task.adapter[name].size for name in self.names)  # the last is the weight
        self.node_of: dict[str, int] = {}  # by member

    def run(self, nodes: Sequence[int]) -> AdapterUpdate:
        """Raises PayloadError when too few members are left, or the sum makes no sense."""
        within = self._announced(nodes)
        dealt = self._dealt(within)
        masked = self._masked(within, dealt)
        who = Attendance(frozenset(masked), frozenset(dealt.keys() - masked.keys()))
        seeds, keys = self._opened(who, self._attended(who))
        total = np.sum(list(masked.values()), axis=0, dtype=np.uint64)
        return self._mean(from_ring(total - left_masks(within, seeds, keys, self.count)), sorted(masked))

    def _announced(self, nodes: Sequence[int]) -> Circle:
        if len(nodes) < FEWEST:  # said before anybody trains, which may cost some of a budget
            raise PayloadError(f"{len(nodes)} members are there, expected {FEWEST} at least")
        self.node_of = {str(node): node for node in nodes}
        found: dict[str, Announcement] = {}
        places: dict[str, int] = {}
        for who, one in self._step(dict.fromkeys(self.node_of, self.raw), self._announcement).items():
            if one.name in found:
                self.tell(one.name, "announced itself twice; give each domain a name of its own")
                continue
            found[one.name], places[one.name] = one, self.node_of[who]
        self.node_of = places
        return circle(list(found.values()))

    def _announcement(self, who: str, raw: bytes) -> Announcement:
        one = payload.announcement_from(raw)
        if one.task != self.digest:
            raise PayloadError("announced keys for another task than it was handed; begin the round again")
        return one

    def _dealt(self, within: Circle) -> dict[str, dict[str, bytes]]:
        """Sealed pairs of shares, by dealer, then by holder."""

        def read(name: str, raw: bytes) -> dict[str, bytes]:
            pairs = payload.table_from(payload.unpack(raw, payload.DEALT)[1], "pairs")
            if set(pairs) != set(within.peers(name)):
                raise PayloadError("dealt shares to others than its peers")
            return pairs

        request = payload.deal(list(within.members.values()))
        return self._step(dict.fromkeys(within.members, request), read)

    def _masked(self, within: Circle, dealt: Mapping[str, Mapping[str, bytes]]) -> dict[str, Ring]:
        """Numbers under all masks, by member."""
        requests = {}
        for name in dealt:
            pairs = {peer: dealt[peer][name] for peer in within.peers(name) if peer in dealt}
            requests[name] = payload.blobs(payload.MASK, pairs=pairs)
        return self._step(requests, lambda name, raw: payload.numbers_from(raw, self.count))

    def _attended(self, who: Attendance) -> dict[str, bytes]:
        """Signatures under who is there and gone, by member: they show each other that all were told the same."""
        return self._step(
            dict.fromkeys(sorted(who.there), payload.attend(who)), lambda _, raw: payload.signature_from(raw)
        )

    def _opened(self, who: Attendance, signatures: Mapping[str, bytes]) -> tuple[Shares, Shares]:
        """Shares of the seeds of those who are there, and of the keys of those who are gone."""
        request = payload.blobs(payload.OPEN, signatures=signatures)

        def read(name: str, raw: bytes) -> tuple[dict[str, bytes], dict[str, bytes]]:
            _, head, _ = payload.unpack(raw, payload.OPENED)
            return payload.table_from(head, "seeds"), payload.table_from(head, "keys")

        came = self._step(dict.fromkeys(signatures, request), read).values()
        seeds = {name: [table[name] for table, _ in came if name in table] for name in who.there}
        keys = {name: [table[name] for _, table in came if name in table] for name in who.gone}
        return seeds, keys

    def _mean(self, total: Floats, there: Sequence[str]) -> AdapterUpdate:
        weight = float(total[-1])
        most = self.task.plan.federation.weight_cap * len(there)
        if weight == 0:
            raise PayloadError("no member learnt anything from this task; each has the reason in its own log")
        if not 0 < weight <= most:  # a mask that was left over makes any number, hardly one of these
            raise PayloadError(f"the sum has weight {weight:g}, expected {most:g} at most; a member broke the rules")
        mean = (total[:-1] / weight).astype(np.float32)
        delta: Tensors = {}
        start = 0
        for name in self.names:
            like = self.task.adapter[name]
            delta[name] = mean[start : start + like.size].reshape(like.shape)
            start += like.size
        return AdapterUpdate(TOGETHER, self.task.round, delta, weight, self.task.base, summed=tuple(there))

    def _step(self, requests: Mapping[str, bytes], read: Callable[[str, bytes], Read]) -> dict[str, Read]:
        """What members answered to requests of their own, as read; ``tell`` hears why one cannot be used."""
        came = self.put({self.node_of[name]: raw for name, raw in requests.items()})
        found = {}
        for name in requests:
            if (raw := came.get(self.node_of[name])) is None:
                continue
            try:
                found[name] = read(name, raw)
            except PayloadError as error:
                self.tell(name, str(error))
        if len(found) < 2:
            raise PayloadError(f"{len(found)} of {len(requests)} members answered; begin the round again")
        return found


def left_masks(within: Circle, seeds: Shares, keys: Shares, count: int) -> Ring:
    """What all masks leave in the sum: own ones of those there, and theirs with peers who are gone; (count,).

    Raises PayloadError when shares are missing or wrong.
    """
    left = np.zeros(count, np.uint64)
    for name, shares in seeds.items():
        left += mask(opened_seed(shares, name, within), count)
    for name, shares in keys.items():
        key = opened_key(shares, name, within)
        for peer in within.peers(name):
            if peer in seeds:
                left -= pair_mask(key, name, within.members[peer], within, count)
    return left
