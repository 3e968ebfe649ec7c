"""Who takes part in a run: which node answers for which domain, who is there, what went to and fro."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

WAITING, TRAINING, FINISHING = "waiting", "training", "finishing"


@dataclass
class Members:
    """Lives as long as the run; ``note`` hears of each change, in plain values: names and counts."""

    wanted: int
    wait_s: float
    note: Callable[[dict[str, Any]], None] = lambda now: None
    names: dict[int, str] = field(default_factory=dict)
    met: bool = False  # the first round needs them all; a later one goes on with those who are left
    there: list[int] = field(default_factory=list)
    round: int = 0
    phase: str = TRAINING
    answered: set[int] = field(default_factory=set)  # in this round
    down: dict[int, int] = field(default_factory=dict)  # bytes of this round, by node
    up: dict[int, int] = field(default_factory=dict)
    _noted: dict[str, Any] = field(default_factory=dict)

    def name(self, node: int) -> str:
        return self.names.get(node, f"node {node}")

    def begin(self, number: int, phase: str = TRAINING) -> None:
        """A round, or the delivery of the final adapter, starts."""
        self.round, self.phase = number, phase
        self.answered, self.down, self.up = set(), {}, {}
        self._tell()

    def see(self, nodes: Iterable[int]) -> list[int]:
        """Those who are there now, in order."""
        self.there = sorted(nodes)
        self._tell()
        return self.there

    def meet(self) -> None:
        """All who are needed are there."""
        self.met = True
        self._tell()

    def sent(self, node: int, count: int) -> None:
        self.down[node] = self.down.get(node, 0) + count

    def heard(self, node: int, domain: str, count: int = 0) -> None:
        """A node says for which domain it speaks, and perhaps more."""
        self.names[node] = domain
        if count:
            self.answered.add(node)
            self.up[node] = self.up.get(node, 0) + count
        self._tell()

    def traffic(self) -> dict[str, dict[str, int]]:
        """Bytes of this round's tasks and answers, Flower's framing aside, by domain."""
        return {self.name(node): {"down": count, "up": self.up.get(node, 0)} for node, count in self.down.items()}

    def now(self) -> dict[str, Any]:
        """For who looks at the federation."""
        return {
            "wanted": self.wanted,
            "connected": len(self.there),
            "names": sorted(self.names[node] for node in self.there if node in self.names),
            "round": self.round,
            "phase": self.phase if self.met else WAITING,
            "answered": sorted(self.name(node) for node in self.answered),
        }

    def _tell(self) -> None:
        if (now := self.now()) != self._noted:
            self._noted = now
            self.note(now)
