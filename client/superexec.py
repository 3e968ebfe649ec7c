"""Flower's SuperExec (``python -m client.superexec ARGUMENTS``), whose apps are forks of a process that loaded Flower.

Flower starts an interpreter for each message, which imports Flower anew: three seconds of a core before it looks at
what came, and a secure sum sends five messages a round. Here the standard library's fork server imports it once. It
holds no thread and no connection, so that forking it is safe, and nothing of a run; each message still has a process of
its own.
"""

import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points
from multiprocessing import forkserver, get_context
from types import SimpleNamespace
from typing import Any

APP = "flwr-clientapp"
LOADED = "flwr.supernode.cli.flwr_clientapp"


def main() -> None:
    """Run it until it stops or the SuperNode has ended."""
    forkserver.set_forkserver_preload([LOADED])
    forkserver.ensure_running()  # it imports while we wait for the first message
    executor = import_module("flwr.supercore.superexec.executor.subprocess_executor")
    executor.subprocess = SimpleNamespace(Popen=start, DEVNULL=subprocess.DEVNULL)  # type: ignore[attr-defined]
    _tool("flower-superexec")()


def start(command: list[str], **others: Any) -> None:
    """In place of ``subprocess.Popen``, for commands that nobody waits for. What an app says is never hidden."""
    if command[0] == APP:
        get_context("forkserver").Process(target=run_app, args=(command,), daemon=True).start()
    else:
        subprocess.Popen(command, **others)  # noqa: S603 - Flower's own command line, no shell


def run_app(command: list[str]) -> None:
    """Flower's command, in a process that was forked for it."""
    sys.argv = command
    _tool(APP)()


def _tool(name: str) -> Any:
    (found,) = entry_points(group="console_scripts", name=name)
    return found.load()


if __name__ == "__main__":
    main()
