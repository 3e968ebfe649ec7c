"""The server that is measured and the load upon it, a process each."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from shared.processes import free_port, spawn, stop

HERE = Path(__file__).resolve().parent
READY_S = 3600.0  # a first start makes the index


@dataclass(frozen=True)
class Server:
    """The product, serving a clone of a generated home."""

    process: subprocess.Popen[bytes]
    address: str
    grpc_address: str
    home: Path
    ready_s: float

    @contextlib.contextmanager
    def asking(self) -> Iterator[httpx.Client]:
        with httpx.Client(base_url=f"http://{self.address}", timeout=60.0, trust_env=False) as client:
            yield client


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Started, ready, and at the end stopped and wiped out; the home is a clone of hard links: what is written while it
    serves is its own. The index alone goes back: the next one need not make it again."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="clone-") as place:
        home, port, grpc_port = Path(place) / "home", free_port(), free_port()
        shutil.copytree(folder / "home", home, copy_function=os.link)
        words = ["-m", "client", "--domain", "shop", "--home", str(home), "--cache", str(folder / "cache"), "serve"]
        began = time.perf_counter()
        log = Path(place) / "log"
        words += ["--port", str(port), "--grpc-port", str(grpc_port)]
        process = spawn([sys.executable, *words], {**os.environ, "PYTHONPATH": str(HERE.parent)}, log)
        try:
            while not _healthy(port):
                if process.poll() is not None or time.perf_counter() - began > READY_S:
                    raise RuntimeError(f"the server did not start: {log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.02)
            ready_s = time.perf_counter() - began
            _share_index(home / "serving", folder / "home" / "serving")
            yield Server(process, f"127.0.0.1:{port}", f"127.0.0.1:{grpc_port}", home, ready_s)
        finally:
            stop(process)


def _healthy(port: int) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=1.0, trust_env=False).status_code == 200
    return False


def _share_index(clone: Path, whole: Path) -> None:
    for path in sorted(clone.glob("index-*"), key=lambda path: path.suffix == ".json"):
        if not (whole / path.name).exists():
            os.link(path, whole / path.name)


@dataclass(frozen=True)
class Load:
    """A load generator at work in another process."""

    process: subprocess.Popen[str]
    out: Path

    def begun(self) -> None:
        """Waits until it asks in earnest."""
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def answers(self) -> list[dict[str, Any]]:
        """Waits until it is done."""
        if self.process.wait():
            raise RuntimeError("the load generator failed; see its error above")
        found: list[dict[str, Any]] = json.loads(self.out.read_text())
        return found


@contextlib.contextmanager
def load(
    address: str, asks: list[dict[str, Any]], rate: float, seconds: float, door: str, until: str
) -> Iterator[Load]:
    """``until`` names a file whose coming ends it; "" for none."""
    what = {
        "door": door,
        "address": address,
        "asks": asks,
        "rate": rate,
        "seconds": seconds,
        "warm_s": 3,
        "until": until,
    }
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "what.json"
        file.write_text(json.dumps(what))
        words = [sys.executable, str(HERE / "serving_load.py"), str(file)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        try:
            yield Load(process, Path(place) / "answers.json")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
