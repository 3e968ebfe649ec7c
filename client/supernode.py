"""Flower's SuperNode, as a process that ends when its connection does: ``python -m client.supernode ARGUMENTS``.

An answer that Flower does not ask for again (of a server that fails inside, as one may that goes down) ends its
connection, or the thread that tells the server it is there. The process would stay, connected to nobody, beside its own
HTTP server; only one that has ended can be started again.
"""

import os
import sys
import threading
from importlib.metadata import entry_points

LOST = 1


def main() -> None:
    """Run it until it stops or has lost its connection."""
    threading.excepthook = _lost
    (tool,) = entry_points(group="console_scripts", name="flower-supernode")
    tool.load()()  # a signal leaves it by SystemExit
    _leave()


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
