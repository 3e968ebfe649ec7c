"""Members of a secure sum and a server between them that remembers all it hears; members may fall silent."""

from pathlib import Path

import numpy as np

from client.secure_sum import Identity, SecureSum, strangers
from server.secure_sum import secure_carrier
from shared import secure_payload as payload
from shared.errors import PayloadError
from shared.payload import AdapterUpdate, Task, task_from_bytes
from shared.plan import FederationPlan, Plan
from shared.secure_payload import is_secure
from shared.secure_sum import Attendance, task_digest

STEPS = ("announce", "deal", "mask", "attend", "open")
CAP = 4096.0
PLAN = Plan(federation=FederationPlan(secure=True, weight_cap=CAP))
ADAPTER = {
    "lora_A": np.ones((2, 3), np.float32),
    "lora_B": np.zeros((3, 2), np.float32),
    "tower": np.zeros(5, np.float32),
}
RELEASED = frozenset({"lora_B", "tower"})


def an_update(name: str, seed: int, number: int = 1) -> AdapterUpdate:
    draw = np.random.default_rng(seed)
    delta = {key: draw.normal(scale=0.01, size=ADAPTER[key].shape).astype(np.float32) for key in RELEASED}
    return AdapterUpdate(name, number, delta, float(2 ** (seed % 14)), "base")  # some weigh more than CAP


class Party:
    """``silent`` by step: who gives no answer from then on."""

    def __init__(self, count: int, identities: dict[str, Identity] | None = None, sums: Path | None = None) -> None:
        self.names = [f"d{row:03d}" for row in range(count)]
        self.identities = identities or strangers(self.names)
        self.updates = {name: an_update(name, seed) for seed, name in enumerate(self.names)}
        self.members = {
            name: SecureSum(self.identities[name], None if sums is None else sums / name) for name in self.names
        }
        self.key = "a run and its round"
        self.noise = 0.0
        self.silent: dict[str, set[str]] = {}
        self.heard: list[tuple[str, str, bytes]] = []  # (step, member, answer)
        self.sent = 0  # bytes to all members
        self.told: dict[str, str] = {}

    def run(self) -> AdapterUpdate:
        """The server's whole side. Raises FederationError."""
        steps = iter(STEPS)
        away: set[str] = set()

        def put(raws):
            step = next(steps)
            away.update(self.silent.get(step, ()))
            answers = {}
            for node, raw in raws.items():
                name = self.names[node]
                self.sent += len(raw)
                if name in away:
                    self.told[name] = f"silent at {step}"
                    continue
                try:
                    answers[node] = self.answer(name, raw)
                except PayloadError as error:  # a refusal: the server hears the reason
                    self.told[name] = str(error)
                    continue
                self.heard.append((step, name, answers[node]))
            return answers

        carry = secure_carrier(lambda: range(len(self.names)), put, RELEASED, self.told.__setitem__)
        (update,) = carry(lambda domain: Task("train", 1, PLAN, ADAPTER, "base"))
        return update

    def answer(self, name: str, raw: bytes) -> bytes:
        if is_secure(raw):
            return self.members[name].answer(raw)
        task_from_bytes(raw)
        return self.members[name].announce(self.updates[name], CAP, task_digest(raw), self.key, self.noise)

    def mean(self, names) -> dict[str, np.ndarray]:
        """The slow truth: the weighted mean of the updates of these members."""
        weights = {name: min(self.updates[name].weight, CAP) for name in names}
        total = sum(weights.values())
        return {
            key: sum(weights[name] / total * self.updates[name].delta[key].astype(np.float64) for name in names)
            for key in RELEASED
        }


def announcements(party):
    return [announcement(party, name) for name in party.names]


def announcement(party, name, task="0" * 64):
    return payload.announcement_from(party.members[name].announce(party.updates[name], CAP, task, party.key))


def to_masking(party):
    """All have dealt; (what each is handed next, by name)."""
    request = payload.deal(announcements(party))
    pairs = {}
    for name in party.names:
        _, head, _ = payload.unpack(party.members[name].answer(request), payload.DEALT)
        pairs[name] = payload.table_from(head, "pairs")
    return {name: {other: pairs[other][name] for other in party.names if other != name} for name in party.names}


def to_opening(party):
    handed = to_masking(party)
    for name in party.names:
        party.members[name].answer(payload.blobs(payload.MASK, pairs=handed[name]))


def attendance(there, gone):
    return Attendance(frozenset(f"d00{row}" for row in there), frozenset(f"d00{row}" for row in gone))
