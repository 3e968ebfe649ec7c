"""Kills a private training with SIGKILL at random moments: does the ledger ever hold less than what was released?

    python benchmarks/kill_ledger.py [--kills 100] [--seed 0]

A child process runs round after round of user-level DP training on a generated domain and puts each update into a
folder, as a transport would; the parent kills it after a random time and compares ledger and folder, again and again:
each update that differs from all others must have an event of its own, of the task that it answers. What was paid and
has not left is told too: that is one round at most, which the next child makes without paying again.
"""

import hashlib
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # forked children may not meet another thread's locks

from client.budget import Limits
from client.dataset import read_domain
from client.rounds import DomainMember
from client.store import Home
from client.workshop import Workshop
from shared.console import quiet_libraries
from shared.ledger import GaussianSteps, read_events
from shared.model import initial_state
from shared.payload import Task, name_of, update_to_bytes
from shared.plan import read_plan
from simulations.world import write_world

SETTINGS = {
    "privacy": {"epsilon": 8.0, "delta": 1e-4, "lot_users": 4, "steps": 1, "events": 3, "negatives": 2},
    "model": {"max_tokens": 8, "rank": 1, "top_layers": 1, "hidden": 16, "width": 16, "heads": 2, "blocks": 1},
    "federation": {"rounds": 10_000},
}


def main(
    kills: Annotated[int, typer.Option(min=1, help="How often.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 0,
) -> None:
    """Print how many rounds were paid and released, and the worst balance ever seen of one task."""
    quiet_libraries()
    plan = read_plan(SETTINGS)
    draw = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        data = write_world(folder / "world", seed=0, users=60, items=60, domains=("video",))["video"]
        released = folder / "released"
        released.mkdir()
        member = DomainMember(read_domain(data), Home(folder / "home"), Workshop(folder / "cache"), limits=Limits())
        adapter, _, base = initial_state(plan)
        member.train(Task("train", 1, plan, adapter, base))  # all is read and compiled: the rest takes a blink
        worst, spare, left = 0, 0, Counter()
        for _ in range(kills):
            child = os.fork()
            if child == 0:
                for number in range(max(1, len(left)), 10_000):  # a server goes on with the last, or once more
                    task = Task("train", number, plan, adapter, base)
                    update = member.train(task)
                    numbers = b"".join(value.tobytes() for _, value in sorted(update.delta.items()))
                    name = f"{name_of(task)}-{hashlib.sha256(numbers).hexdigest()}"
                    (released / f".{name}").write_bytes(update_to_bytes(update))
                    (released / f".{name}").rename(released / name)
            time.sleep(draw.uniform(0, 1.5))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            events = read_events(member.home.ledger)
            paid = Counter(event.task for event in events if isinstance(event, GaussianSteps))
            left = Counter(path.name.partition("-")[0] for path in released.iterdir() if not path.name.startswith("."))
            worst = min([worst, *(paid[task] - out for task, out in left.items())])
            spare = max(spare, paid.total() - left.total())
        written = (
            f"{paid.total()} rounds in the ledger, {left.total()} released, {spare} more paid than released at most"
        )
        print(f"{kills} kills: {written}; least balance of a task {worst} (0 or more wanted)")
        raise SystemExit(worst < 0 or spare > 1)


if __name__ == "__main__":
    typer.run(main)
