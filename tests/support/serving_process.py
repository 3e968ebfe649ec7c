"""A real ``serve`` process on loopback: what it says, when it is ready, how it ends."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Serving:
    """Ends with the block, whatever happens in it."""

    def __init__(self, room: str, port: int, *words: object, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", room, *map(str, words), "--port", str(port)]
        self.said = folder / f"{port}.said"
        with self.said.open("wb") as out:
            self.process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT, cwd=folder)

    def __enter__(self) -> "Serving":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def ready(self, timeout_s: float = 120) -> "Serving":
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/healthz", timeout=5):
                    return self
            except (urllib.error.URLError, ConnectionError):
                assert self.process.poll() is None, self.said.read_text()
                assert time.monotonic() < deadline, self.said.read_text()
                time.sleep(0.1)

    def ended(self, timeout_s: float = 120) -> tuple[int, str]:
        """(status, all that it said), once it ends by itself."""
        status = self.process.wait(timeout_s)
        return status, self.said.read_text()
