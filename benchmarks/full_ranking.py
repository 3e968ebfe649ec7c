"""Full ranking at the size of a large service: every user's target among the whole catalogue, seen items struck.

    make bench        or    python benchmarks/full_ranking.py [--users 100000 --items 100000 --dim 64]

Vectors are random; what is measured is the evaluation's own code (``client.evaluate.rank_cases`` and the metrics).
"""

import json
import resource
import time
from typing import Annotated

import numpy as np
import torch
import typer

from client.evaluate import per_case, rank_cases
from client.splits import Cases, Histories
from shared.console import quiet_libraries
from shared.metrics import exposure, means

HISTORY = 20


def main(
    users: Annotated[int, typer.Option(help="How many cases.")] = 100_000,
    items: Annotated[int, typer.Option(help="How large a catalogue.")] = 100_000,
    dim: Annotated[int, typer.Option(help="Length of a vector.")] = 64,
) -> None:
    """Print seconds and peak resident memory as JSON."""
    quiet_libraries()
    draw = np.random.default_rng(0)
    u, v = (torch.from_numpy(draw.normal(size=(rows, dim)).astype(np.float32)) for rows in (users, items))
    offsets = np.arange(users + 1, dtype=np.int64)
    seen = draw.integers(items, size=users * HISTORY).astype(np.int32)
    targets = draw.integers(items, size=users).astype(np.int32)
    histories = Histories(offsets * HISTORY, seen, np.zeros(len(seen), np.int8))
    wanted = Histories(offsets, targets, np.zeros(users, np.int8))
    cases = Cases(np.arange(users, dtype=np.int32), histories, wanted, seen=histories)
    began = time.perf_counter()
    ranked = rank_cases(cases, items, lambda rows: u[torch.from_numpy(rows)] @ v.T, 10)
    found = {**means(per_case(ranked, cases)), **exposure(ranked.top, np.ones(items, np.int64))}
    seconds = time.perf_counter() - began
    print(
        json.dumps(
            {
                "users": users,
                "items": items,
                "dim": dim,
                "threads": torch.get_num_threads(),
                "seconds": round(seconds, 1),
                "million_scores_per_second": round(users * items / seconds / 1e6),
                "peak_resident_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                "auc": round(found["auc"], 4),  # of random vectors: one half
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    typer.run(main)
