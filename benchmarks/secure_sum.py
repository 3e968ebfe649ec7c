"""Secure sums beside plain rounds: is the sum right whoever falls silent, how many bytes and seconds does it take?

    python benchmarks/secure_sum.py [--members 3,10,50] [--numbers 800000]

All members of a sum run in this process. A third of them falls silent at each of the steps in turn. Error: the largest
difference from the weighted mean in double precision beyond what single precision, in which the mean is kept, rounds
off; in steps of the fixed point divided by the weight. Bytes: all that is sent either way, less 64 KiB a member, over
what a plain round sends (adapter out, released part back).
"""

import sys
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from client.secure_sum import SecureSum, strangers
from server.secure_sum import secure_carrier
from shared.errors import FederationError
from shared.payload import AdapterUpdate, Task, task_to_bytes, update_to_bytes
from shared.plan import FederationPlan, Plan
from shared.secure_payload import is_secure
from shared.secure_sum import STEP, task_digest

STEPS = ("nobody", "announce", "deal", "mask", "attend", "open")
PLAN = Plan(federation=FederationPlan(secure=True))


class Trial:
    """One sum in which a third of the members falls silent at a step."""

    def __init__(self, names: list[str], numbers: int, at: str) -> None:
        draw = np.random.default_rng(0)
        self.adapter = {"tower": np.zeros(numbers, np.float32)}
        self.names, self.silent_at = names, at
        self.updates = [
            AdapterUpdate(name, 1, {"tower": draw.normal(0, 0.01, numbers).astype(np.float32)}, 2.0 ** (row % 13), "b")
            for row, name in enumerate(names)
        ]
        self.members = [SecureSum(identity) for identity in strangers(names).values()]
        self.bytes = 0
        self.member_s = 0.0
        self.steps = iter(STEPS[1:])
        self.away: set[int] = set()

    def put(self, raws):
        if next(self.steps) == self.silent_at:
            self.away = set(range(1, len(self.names), 3)[: len(self.names) // 3])
        answers = {}
        for node, raw in raws.items():
            self.bytes += len(raw)
            if node in self.away:
                continue
            began = time.perf_counter()
            member = self.members[node]
            if is_secure(raw):
                answers[node] = member.answer(raw)
            else:
                answers[node] = member.announce(self.updates[node], 4096.0, task_digest(raw))
            self.member_s += time.perf_counter() - began
            self.bytes += len(answers[node])
        return answers

    def run(self) -> str:
        """One line of the table."""
        count = len(self.names)
        task = Task("train", 1, PLAN, self.adapter, "b")
        carry = secure_carrier(lambda: range(count), self.put, frozenset(self.adapter), lambda who, why: None)
        began = time.perf_counter()
        try:
            (update,) = carry(lambda domain: task)
        except FederationError as error:
            return f"{count:7} {self.silent_at:>9}   no sum: {error}"
        server_s = time.perf_counter() - began - self.member_s
        there = [one for one in self.updates if one.domain in update.summed]
        weight = sum(one.weight for one in there)
        truth = sum(one.weight / weight * one.delta["tower"].astype(np.float64) for one in there)
        error = np.abs(update.delta["tower"].astype(np.float64) - truth).max()
        rounding = np.abs(truth).max() * 2.0**-24  # the mean itself is kept in single precision
        plain = count * (len(task_to_bytes(task)) + len(update_to_bytes(self.updates[0])))
        ratio = max(0.0, self.bytes - count * 64 * 1024) / plain
        units = max(0.0, error - rounding) / (STEP / weight)
        return (
            f"{count:7} {self.silent_at:>9} {len(there):7} {units:9.2f} {ratio:7.2f} {self.member_s / count:9.2f} "
            f"{server_s:9.2f}"
        )


def main(
    members: Annotated[str, typer.Option(help="How many, with commas.")] = "3,10,50",
    numbers: Annotated[
        int, typer.Option(min=1, help="Of an update; an adapter of default size has 810,000.")
    ] = 810_000,
) -> None:
    """Print a line for each number of members and each step at which a third of them falls silent."""
    print(f"{'members':>7} {'silent at':>9} {'summed':>7} {'error':>9} {'bytes':>7} {'member s':>9} {'server s':>9}")
    for count in map(int, members.split(",")):
        for at in STEPS:
            print(Trial([f"d{row:03d}" for row in range(count)], numbers, at).run(), flush=True)


if __name__ == "__main__":
    typer.run(main)
