"""A domain without data or torch: each training goes half the way to a target of its own."""

import time
from pathlib import Path

import numpy as np

from server.rounds import Carrier
from shared.errors import BudgetError
from shared.payload import AdapterUpdate, Task, Tensors
from shared.plan import FederationPlan, Plan

BASE = "fake-base/top2/len64"
NAMES = ("book", "music", "video")


def fake_plan(rounds: int = 2, seed: int = 7, secure: bool = False) -> Plan:
    return Plan(federation=FederationPlan(rounds=rounds, seed=seed, secure=secure))


def fake_start(plan: Plan) -> tuple[Tensors, frozenset[str], str]:
    """(adapter, released names, base), a function of the plan's seed."""
    draw = np.random.default_rng(plan.federation.seed)
    adapter = {
        "lora_A": draw.normal(size=(2, 5)).astype(np.float32),
        "lora_B": np.zeros((5, 2), np.float32),
        "tower": draw.normal(size=(3,)).astype(np.float32),
    }
    return adapter, frozenset({"lora_B", "tower"}), BASE


class FakeMember:
    """Deterministic in (name, task); counts what it was asked."""

    def __init__(self, name: str, behaviour: str = "good", home: Path | None = None) -> None:
        self.name, self.behaviour, self.home = name, behaviour, home
        self.trained: list[int] = []
        self.kept: Task | None = None

    def train(self, task: Task) -> AdapterUpdate:
        if self.behaviour == "refuses":
            raise BudgetError("the plan would spend epsilon 9, the data owner allows 8; lower the rounds")
        if self.behaviour == "breaks":
            raise RuntimeError("user u-secret-17 has no items")
        if self.behaviour == "sleeps":
            time.sleep(120)
        self.trained.append(task.round)
        released = sorted(key for key in task.adapter if key != "lora_A")
        delta = {key: np.float32(0.5) * (self._target(key, task) - task.adapter[key]) for key in released}
        return AdapterUpdate(self.name, task.round, delta, 2.0 ** (1 + len(self.name)), task.base)

    def finish(self, task: Task) -> None:
        self.kept = task
        if self.home is not None:
            np.savez(self.home / "kept.npz", **task.adapter)

    def _target(self, key: str, task: Task) -> np.ndarray:
        draw = np.random.default_rng([*self.name.encode(), *key.encode(), task.round])
        return draw.normal(size=task.adapter[key].shape).astype(np.float32)


def carry_for(members: dict[str, FakeMember]) -> Carrier:
    """One after the other, by name."""
    return lambda task_for: [members[name].train(task_for(name)) for name in sorted(members)]


def open_fake(folder: Path, name: str | None, home: Path) -> FakeMember:
    """Opener for the simulation carrier: the folder's name says how the member behaves."""
    home.mkdir(parents=True, exist_ok=True)
    return FakeMember(str(name), folder.name, home)
