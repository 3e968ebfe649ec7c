"""What a message to a domain costs before its app looks at it: an interpreter of its own, or a fork.

    python benchmarks/app_start.py [--starts 5]

Flower begins an interpreter for each message; ``client.superexec`` forks a process that has loaded Flower. Both begin
the same command here, which only prints its help; they take turns, and medians are compared, as a ratio in one run.
"""

import os
import statistics
import subprocess
import sys
import time
from multiprocessing import active_children, forkserver
from pathlib import Path
from typing import Annotated

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from client.superexec import APP, LOADED, start
from shared.processes import flower_tool


def interpreter(command: list[str]) -> None:
    """As Flower does it."""
    subprocess.run([flower_tool(command[0]), *command[1:]], check=True, stdout=subprocess.DEVNULL)


def fork(command: list[str]) -> None:
    """As it is done here."""
    start(command)
    for process in active_children():
        process.join()
        if process.exitcode:
            raise SystemExit(f"expected {command[0]} to end with status 0, found {process.exitcode}")


def seconds(begin, command: list[str]) -> float:
    began = time.perf_counter()
    begin(command)
    return time.perf_counter() - began


def main(starts: Annotated[int, typer.Option(min=1, help="Of each kind.")] = 5) -> None:
    """Compare both."""
    out, quiet = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)  # what is forked prints where the fork server does
    forkserver.set_forkserver_preload([LOADED])
    fork([APP, "--help"])  # waits until the fork server has loaded Flower
    os.dup2(out, 1)
    ways = {"interpreter": interpreter, "fork": fork}
    taken = {name: [] for name in ways}
    for _ in range(starts):
        for name, begin in ways.items():
            taken[name].append(seconds(begin, [APP, "--help"]))
    middle = {name: statistics.median(values) for name, values in taken.items()}
    print(", ".join(f"{name} {value:.2f} s" for name, value in middle.items()))
    print(f"an interpreter takes {middle['interpreter'] / middle['fork']:.0f} times as long as a fork")


if __name__ == "__main__":
    typer.run(main)
