"""SuperLink, SuperNodes, relays and resident members without torch, as processes on loopback."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from shared.processes import free_port

ROOT = Path(__file__).resolve().parents[2]
DRIVER = ROOT / "tests" / "support" / "federation_driver.py"


class Federation:
    """Starts drivers, keeps their output in files, ends them all."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, str(free_port())
        self.running: list[subprocess.Popen] = []

    def start(self, label: str, *words: object, root: Path = ROOT) -> subprocess.Popen:
        environment = {**os.environ, "PYTHONPATH": str(root)}
        with (self.folder / f"{label}.out").open("wb") as out:
            command = [sys.executable, str(DRIVER), *map(str, words)]
            self.running.append(subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT))
        return self.running[-1]

    def server(self, label: str, run: str, rounds: int, clients: int, wait_s: float, *flags: str) -> subprocess.Popen:
        return self.start(label, "server", self.folder / run, self.port, rounds, clients, wait_s, *flags)

    def client(
        self, name: str, behaviour: str = "good", once: str = "once", *certificates: Path, port: int | None = None
    ) -> subprocess.Popen:
        return self.start(name, "client", name, behaviour, self.folder / name, port or self.port, once, *certificates)

    def said(self, label: str) -> str:
        return (self.folder / f"{label}.out").read_text()

    def wait_said(self, label: str, text: str, timeout_s: float = 200) -> None:
        deadline = time.monotonic() + timeout_s
        while text not in self.said(label):
            assert time.monotonic() < deadline, f"{label} never said {text!r}:\n{self.said(label)}"
            time.sleep(0.1)

    def ended(self, label: str, process: subprocess.Popen, timeout_s: float) -> int:
        """Exit status; where it does not end, all that was said and Flower's own logs."""
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            logs = sorted([*self.folder.glob("*.out"), *self.folder.rglob("*.log")])
            told = "\n".join(f"== {log.name} of {log.parent.name}\n{log.read_text()[-4000:]}" for log in logs)
            raise AssertionError(f"{label} did not end within {timeout_s:g} s:\n{told}") from None

    def left(self) -> list[str]:
        """Command lines of processes that still belong to this federation."""
        mine = []
        for process in psutil.process_iter(["cmdline", "environ"]):
            home = (process.info["environ"] or {}).get("FLWR_HOME", "")
            if home.startswith(str(self.folder)):
                mine.append(" ".join(process.info["cmdline"] or []))
        return mine

    def wait_gone(self, timeout_s: float = 15) -> None:
        deadline = time.monotonic() + timeout_s
        while left := self.left():
            assert time.monotonic() < deadline, left
            time.sleep(0.2)


@contextmanager
def federation_in(folder: Path) -> Iterator[Federation]:
    """Nothing of it runs any longer when the block has ended."""
    made = Federation(folder)
    try:
        yield made
    finally:
        for process in made.running:
            if process.poll() is None:
                process.terminate()
        for process in made.running:
            process.wait(60)  # its server asks Flower to stop the run
        made.wait_gone()
