"""Audits while a domain serves: each in a process of its own, at low priority, so that answers do not wait for it."""

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from client.audits import seconds_until_due
from client.store import Home
from shared.errors import DataError

LOOK_S = 60.0  # an audit by hand puts the next one off
AGAIN_S = 3600.0  # after one that failed
NICE = 10


def command(home: Home, name: str, cache: Path, data: Path | None, rules: Path | None) -> list[str]:
    """What audits that home, as somebody at a terminal would."""
    words = [sys.executable, "-m", "client", "--domain", name, "--home", str(home.folder), "--cache", str(cache)]
    words += ["--data", str(data)] if data is not None else []
    words += ["audit"]
    return words + (["--rules", str(rules)] if rules is not None else [])


def audit_every(
    home: Home,
    hours: float,
    words: Sequence[str],
    stopped: threading.Event,
    say: Callable[[str], None],
    look_s: float = LOOK_S,
) -> None:
    """Until told to stop; one that is running then ends with it."""
    wait_s = 0.0
    while not stopped.wait(wait_s):
        try:
            due_s = seconds_until_due(home, hours)
        except DataError as error:
            say(f"no audit: {error}")
            due_s = AGAIN_S
        if due_s > 0:
            wait_s = min(due_s, look_s)
            continue
        wait_s = look_s if _run(words, stopped, say) else AGAIN_S


def _run(words: Sequence[str], stopped: threading.Event, say: Callable[[str], None]) -> bool:
    """Whether it ended well; what it said last is said."""
    process = subprocess.Popen(  # noqa: S603 - our own command
        ["nice", "-n", str(NICE), *words],  # noqa: S607
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while True:
        try:
            output, _ = process.communicate(timeout=1.0)
            break
        except subprocess.TimeoutExpired:
            if stopped.is_set():
                process.terminate()
    if stopped.is_set():
        return False
    last = output.strip().splitlines()[-1] if output.strip() else f"ended with status {process.returncode}"
    say(f"audit: {last}")
    return process.returncode == 0
