"""Takes a newer model over while the old one answers: what both sides' services do when a training has ended."""

import threading
from collections.abc import Callable
from pathlib import Path


def watch(
    refresh: Callable[[], str | None],
    mark: Callable[[], object],
    stopped: threading.Event,
    every_s: float = 1.0,
    say: Callable[[str], None] = print,
    what: str = "model",
) -> None:
    """Refresh until told to stop. ``refresh`` gives the name of a model (or of ``what``) that it took over, else None.

    One that cannot serve is said once for each ``mark``, which changes with every training; the old one stays.
    """
    stays = "one stays" if what == "model" else "ones stay"
    complained: object = object()
    while not stopped.wait(every_s):
        try:
            if (name := refresh()) is not None:
                say(f"serves the {what} {name}")
        except Exception as error:
            if (found := mark()) != complained:
                complained = found
                say(f"cannot serve the new {what}, the old {stays}: {error}")


def mark_of(path: Path) -> object:
    """Changes whenever another file takes its place; None while there is none."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_ino
