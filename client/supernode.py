"""Flower's SuperNode, as a process that ends when its connection does: ``python -m client.supernode ARGUMENTS``.

An answer that Flower does not ask for again (of a server that fails inside, as one may that goes down) ends its
connection, or the thread that tells the server it is there. The process would stay, connected to nobody, beside its own
HTTP server; only one that has ended can be started again.

It looks for answers to send only after a message came, and sends what it finds first. A message of a run that ended
while it was read leaves an answer too many, and each later one would wait for the message after it: here answers that
lie ready are also sent when no message came.

Its SuperExec is ``client.superexec``.

The server also hands out the app that answers its messages, and Flower runs whatever comes. It is run here only where
it is the relay of this very version, file by file; else this process ends.
"""

import io
import os
import subprocess
import sys
import threading
import tomllib
import zipfile
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

LOST = 1
OURS = Path(__file__).resolve().parents[1]
RELAY = "client.relay:app"
FOREIGN = "the server sent another app than the relay of this version"
MOST_APP = 2**24  # bytes of all files of an app
ANY_RUN = 0  # in place of a run's number, which Flower only compares with None


def main() -> None:
    """Run it until it stops or has lost its connection."""
    threading.excepthook = _lost
    # Where Flower looks into an app for the first time, before any of it is installed or run.
    inside = import_module("flwr.supernode.start_client_internal")
    inside.get_fused_config_from_fab = _checked(inside.get_fused_config_from_fab)  # type: ignore[attr-defined]
    inside._pull_and_store_message = pulling(inside._pull_and_store_message)  # type: ignore[attr-defined]
    inside.subprocess = SimpleNamespace(Popen=start_superexec)  # type: ignore[attr-defined]
    (tool,) = entry_points(group="console_scripts", name="flower-supernode")
    tool.load()()  # a signal leaves it by SystemExit
    _leave()


def start_superexec(command: list[str]) -> None:
    """In place of ``subprocess.Popen``, which Flower's SuperNode calls for nothing else."""
    subprocess.Popen([sys.executable, "-m", "client.superexec", *command[1:]])  # noqa: S603 - no shell


def foreign(app: bytes) -> str | None:
    """What in an app, a zip file as Flower makes it, is not this version's; None where all is."""
    try:
        with zipfile.ZipFile(io.BytesIO(app)) as files:
            if sum(one.file_size for one in files.infolist()) > MOST_APP:
                return f"it is larger than {MOST_APP} bytes"
            held = {one.filename: files.read(one) for one in files.infolist() if not one.is_dir()}
            if len(held) < sum(not one.is_dir() for one in files.infolist()):
                return "it holds a file twice"
        about = tomllib.loads(held.pop("pyproject.toml").decode())
        starts = about["tool"]["flwr"]["app"]["components"]["clientapp"]
    except Exception as error:  # whatever a stranger's bytes make of a parser: they are not run
        return f"it cannot be read ({type(error).__name__})"
    if starts != RELAY:
        return f"it starts {str(starts)[:60]!r}, not {RELAY!r}"
    for name, raw in sorted(held.items()):
        if name != ".info/CONTENT" and not _ours(name, raw):  # that lists the others
            return f"{name[:80]!r} in it differs"
    return None


def _ours(name: str, raw: bytes) -> bool:
    path = (OURS / name).resolve()
    return path.is_relative_to(OURS) and path.suffix == ".py" and path.is_file() and path.read_bytes() == raw


def _checked(plain: Callable[..., Any]) -> Callable[..., Any]:
    def read(app: bytes, *others: Any) -> Any:
        if reason := foreign(app):
            print(f"{FOREIGN}: {reason}", flush=True)
            _leave()
        return plain(app, *others)

    return read


def pulling(plain: Callable[..., int | None]) -> Callable[..., int | None]:
    """Flower's pull of a message (None: none came), which also asks for a push where answers lie ready."""

    def pull(*, state: Any, **others: Any) -> int | None:
        run = plain(state=state, **others)
        return ANY_RUN if run is None and _owes(state) else run

    return pull


def _owes(state: Any) -> bool:
    with state.lock_msg_store:
        entries = list(state.msg_store.values())
    return any(entry.message.metadata.reply_to_message_id and not entry.is_retrieved for entry in entries)


def _lost(thread: threading.ExceptHookArgs) -> None:
    threading.__excepthook__(thread)
    if not issubclass(thread.exc_type, SystemExit):  # a thread that wanted to end
        _leave()


def _leave() -> None:
    """At once: an ordinary end waits for the thread that serves HTTP, which nobody stops."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(LOST)


if __name__ == "__main__":
    main()
