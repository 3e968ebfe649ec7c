"""The HTTP door as a child of the server that runs a federation: it ends with the run, and its failure does not."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from server.superlink import last_line
from shared.errors import ConfigError
from shared.processes import SWITCHES, check_port, free_port, spawn, stop

ROOT = Path(__file__).resolve().parents[1]
LOG = "http.log"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Door:
    """Where the HTTP door listens, and over which catalogues."""

    port: int
    catalogues: Sequence[Path]
    cache: Path
    host: str = "127.0.0.1"

    def check(self) -> None:
        """Raises ConfigError, DataError for what would fail a minute later."""
        check_port(self.host, self.port)
        if self.catalogues:
            from server.service import read_catalogues  # heavy, and needed for catalogues alone

            read_catalogues(self.catalogues)

    def command(self, run_dir: Path) -> list[str]:
        command = [sys.executable, "-m", "server", "serve", "--run-dir", str(run_dir.resolve())]
        command += ["--host", self.host, "--port", str(self.port), "--cache", str(self.cache.resolve())]
        return command + [word for one in self.catalogues for word in ("--catalogue", str(one.resolve()))]


class Beside:
    """The running door; ``look`` says once when it is gone."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, say: Say) -> None:
        self.process, self.log, self.say = process, log, say
        self.told = False

    def look(self) -> None:
        if not self.told and self.process.poll() is not None:
            self.told = True
            self.say(f"the HTTP door ended ({last_line(self.log)}); the run goes on; see {self.log}")


@contextlib.contextmanager
def beside(door: Door | None, run_dir: Path, say: Say) -> Iterator[Callable[[], None]]:
    """Have the door open while the block runs; yields what looks after it."""
    if door is None:
        yield lambda: None
        return
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    process = spawn(door.command(run_dir), {**os.environ, **SWITCHES, "PYTHONPATH": path}, run_dir / LOG)
    say(f"HTTP at http://{door.host}:{door.port}/ as soon as it has read its catalogues")
    try:
        yield Beside(process, run_dir / LOG, say).look
    finally:
        stop(process)


def door_from(port: int | None, catalogues: Sequence[Path], cache: Path) -> Door | None:
    """None where no port was asked for; 0 takes a free one. Raises ConfigError."""
    if port is None:
        if catalogues:
            raise ConfigError("--catalogue needs --http-port: where shall it be served?")
        return None
    return Door(port or free_port(), catalogues, cache)
