"""What a noisy step costs beside the same step without noise: seconds and memory, as ratios in one run.

    python benchmarks/private_step.py [--releases all] [--steps 5]

Both take the same lots of users through the same encoder and losses. The noisy step holds each user's own gradient,
clips it, sums, and adds noise; the plain one sums gradients as backward does. Steps are taken in turn and medians
compared; resident memory is sampled during the steps of each kind in a process of its own.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import torch
import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from client.chance import Repeatable
from client.corpus import build_corpus
from client.dataset import read_domain
from client.privacy import PerUserGradients, lots, sampled_users
from client.workshop import Workshop
from shared.console import quiet_libraries
from shared.model import adapter_tensors, released_names
from shared.plan import read_plan
from simulations.world import write_world

NOISE = 1.0
CACHE = Path("var/cache")


class Bench:
    """A model, a domain of the generated world, and both kinds of step."""

    def __init__(self, folder: Path, releases: str) -> None:
        self.plan = read_plan({"privacy": {"epsilon": 8.0, "releases": releases}})
        shop = Workshop(CACHE)
        self.model = shop.model(self.plan)
        domain = read_domain(write_world(folder)["video"])
        self.corpus = build_corpus(domain, "loo", shop.space(self.plan, domain), self.plan)
        released = released_names(self.plan, list(adapter_tensors(self.model)))
        self.engine = PerUserGradients(self.model, self.corpus.space, self.plan, released)
        self.optimizer = self.engine.optimizer(NOISE, self.plan.privacy.lot_users)
        self.plain_optimizer = torch.optim.Adam(self.engine.named.values(), lr=self.plan.privacy.lr)
        self.users = sampled_users(self.corpus)[: self.plan.privacy.lot_users]

    def groups(self, step: int):
        chance = Repeatable(step)
        rows = self.corpus.split.train
        return lots(rows, self.users, self.plan, len(self.corpus.space), chance, self.engine.group)

    def noisy(self, step: int) -> None:
        self.engine.noisy_step(self.optimizer, self.groups(step), Repeatable(step, "noise"))

    def plain(self, step: int) -> None:
        self.engine.hooks.disable_hooks()
        for lot in self.groups(step):
            self.engine.losses(self.engine.encode(lot), lot).sum().backward()
        self.plain_optimizer.step()
        self.plain_optimizer.zero_grad()
        self.engine.hooks.enable_hooks()


def peak_mb(work: Callable[[], object]) -> int:
    """Most resident memory of this process while the work is done, looked at every few milliseconds."""
    me, done = psutil.Process(), threading.Event()
    seen = [me.memory_info().rss]

    def watch() -> None:
        while not done.wait(0.003):
            seen.append(me.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    done.set()
    watcher.join()
    return max(seen) // 2**20


def main(
    releases: Annotated[str, typer.Option(help="What is released: all, towers or outputs.")] = "all",
    steps: Annotated[int, typer.Option(min=1, help="Of each kind.")] = 5,
    only: Annotated[str, typer.Option(help="noisy or plain: print the peak memory of that kind alone.")] = "",
) -> None:
    """Print both medians (s), both peaks (MB) and their ratios as JSON."""
    quiet_libraries()
    warnings.filterwarnings("ignore")  # of hooks on modules whose input needs no gradient
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), releases)
    if only:
        print(peak_mb(lambda: [getattr(bench, only)(step) for step in range(2)]))
        return
    seconds: dict[str, list[float]] = {"noisy": [], "plain": []}
    for step in range(steps + 1):
        for kind, taken in seconds.items():
            began = time.perf_counter()
            getattr(bench, kind)(step)
            taken.append(time.perf_counter() - began)
    medians = {kind: statistics.median(taken[1:]) for kind, taken in seconds.items()}  # the first warms up
    words = [sys.executable, __file__, "--releases", releases, "--only"]
    peaks = {
        kind: int(subprocess.run([*words, kind], capture_output=True, text=True, check=True).stdout.split()[-1])
        for kind in seconds
    }
    found = {
        "releases": releases,
        "numbers": int(np.sum([value.numel() for value in bench.engine.named.values()])),
        "users": len(bench.users),
        "seconds": {kind: round(value, 3) for kind, value in medians.items()},
        "times the seconds": round(medians["noisy"] / medians["plain"], 2),
        "peak_resident_mb": peaks,
        "times the memory": round(peaks["noisy"] / peaks["plain"], 2),
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    typer.run(main)
