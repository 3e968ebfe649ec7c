"""Starts and restarts flower-supernode beside the resident worker, and stops both cleanly."""

import atexit
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from client.secure_sum import Identity, SecureSum
from client.supernode import FOREIGN
from client.worker import Desk, Member, serving
from shared.errors import ConfigError
from shared.processes import flower_env, free_port, is_loopback, signals, spawn, stop

ADMITTED = b"SuperNode ID"  # an exit may come seconds after the start: only this line means "in"
DELIVERED = b"Sent successfully"
GONE = b"Giving up reconnection"  # said after --max-wait-time
LINGER_S = 4.0  # Flower voids a sent answer whose node left before the server looked, and that looks every 0.5 s
DELIVERY_S = 15.0  # the SuperNode looks for a finished reply every 0.5 s; more only when the server is gone
POLL_S = 0.2
LONGEST_WAIT_S = 10.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Link:
    """How one domain reaches its federation."""

    domain: str
    superlink: str  # host:port
    home: Path
    root_certificates: Path | None  # None: no TLS, loopback only
    key: Path | None  # the node's private key, where the server asks for one
    connect_timeout_s: float

    @property
    def log(self) -> Path:
        return self.home / "supernode.log"


def run_client(
    member: Member,
    domain: str,
    superlink: str,
    home: Path,
    *,
    root_certificates: Path | None = None,
    key: Path | None = None,
    connect_timeout_s: float = 60.0,
    identity: Identity | None = None,
    once: bool = False,
    say: Say = print,
) -> int:
    """Serve one domain until a signal, or with ``once`` until its final task is answered; returns the exit status.

    0 after a signal or the final task; 1 when no SuperLink admitted us within ``connect_timeout_s``, or with
    ``once`` when it went away for as long. With an ``identity`` it answers in secure sums alone.
    Raises ConfigError when the settings cannot work.
    """
    link = Link(domain, superlink, home.resolve(), root_certificates, key, connect_timeout_s)
    check(link)
    secure = None if identity is None else SecureSum(identity, link.home / "sums.jsonl")
    desk = Desk(member, link.home / "domain.log", say, secure)
    with signals() as stopped, serving(desk) as socket:
        status = _keep_connected(link, socket, desk, stopped, once)
    if desk.lock.locked():
        say("stopped in the middle of a task; its result is dropped")
        atexit.register(_leave, status)
    return status


def _leave(status: int) -> None:
    """Leave at once: an interpreter that ends beside a thread in torch's C++ aborts, and the status would lie."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def check(link: Link) -> None:
    """Raises ConfigError on settings that Flower would refuse later, or that would send updates in clear."""
    host, colon, port = link.superlink.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit()):
        raise ConfigError(f"expected the SuperLink as host:port, found {link.superlink!r}")
    if link.root_certificates is None and not is_loopback(host):
        raise ConfigError(f"{host} is not this machine: pass --root-certificates with the server's ca.crt")
    if link.key is not None and link.root_certificates is None:
        raise ConfigError("a node key needs TLS: pass --root-certificates with the server's ca.crt")
    for path in filter(None, (link.root_certificates, link.key)):
        if not path.is_file():
            raise ConfigError(f"expected a file at {path}, found none; ask the server's owner for it")
    if any(letter in link.domain for letter in "\"\\'\n") or not link.domain:
        raise ConfigError(f"expected a domain's name without quotes, found {link.domain!r}")


def supernode_command(link: Link, socket: Path, once: bool = False) -> list[str]:
    """The command line of one SuperNode; its own port is free and on loopback.

    It looks for a server that went away for ever, or with ``once`` as long as for one that has not come yet.
    """
    command = [sys.executable, "-m", "client.supernode", "--superlink", link.superlink]
    command += ["--host", "127.0.0.1", "--port", str(free_port())]
    command += ["--node-config", f'domain="{link.domain}" socket="{socket}"']
    if once:
        command += ["--max-wait-time", str(link.connect_timeout_s)]
    if link.root_certificates is None:
        return [*command, "--insecure"]
    command += ["--root-certificates", str(link.root_certificates.resolve())]
    return command if link.key is None else [*command, "--auth-supernode-private-key", str(link.key.resolve())]


def _keep_connected(link: Link, socket: Path, desk: Desk, stopped: threading.Event, once: bool) -> int:
    """Restart the SuperNode with growing pauses until it is admitted, told to stop, or out of time."""
    deadline = time.monotonic() + link.connect_timeout_s
    pause_s = 1.0
    while True:
        node = spawn(supernode_command(link, socket, once), flower_env(link.home / "flower"), link.log)
        try:
            admitted = _watch(node, link, desk, stopped, once, deadline)
        finally:
            stop(node)
        if stopped.is_set() or (once and desk.finished.is_set()):
            return 0
        if FOREIGN.encode() in link.log.read_bytes():
            desk.say(f"{FOREIGN}, which is not run; both sides must have the same version; details in {link.log}")
            return 1
        if admitted and once and GONE in link.log.read_bytes():
            desk.say(f"{link.superlink} went away before the run was over; start both again (server: --resume)")
            return 1
        if admitted:  # it was in and fell out: a new outage, a new deadline
            deadline, pause_s = time.monotonic() + link.connect_timeout_s, 1.0
        if time.monotonic() >= deadline:
            desk.say(
                f"{link.superlink} did not admit {link.domain} within {link.connect_timeout_s:g} s; "
                f"start the server, or register this node's key there; details in {link.log}"
            )
            return 1
        stopped.wait(pause_s)
        pause_s = min(2 * pause_s, LONGEST_WAIT_S)


def _watch(
    node: subprocess.Popen[bytes], link: Link, desk: Desk, stopped: threading.Event, once: bool, deadline: float
) -> bool:
    """Wait while the SuperNode runs and nobody asks it to stop; returns whether it was ever admitted."""
    admitted = False
    while node.poll() is None and not stopped.wait(POLL_S):
        if not admitted and (admitted := ADMITTED in link.log.read_bytes()):
            desk.say(f"{link.domain}: connected to {link.superlink}")
        if not admitted and time.monotonic() >= deadline:
            break
        if once and desk.finished.is_set():
            _wait_delivered(node, link, stopped)
            break
    return admitted


def _wait_delivered(node: subprocess.Popen[bytes], link: Link, stopped: threading.Event) -> None:
    """Give the relay time to carry the last answer: until the SuperNode says it is sent."""
    sent = link.log.read_bytes().count(DELIVERED)
    deadline = time.monotonic() + DELIVERY_S
    while node.poll() is None and time.monotonic() < deadline and not stopped.wait(POLL_S):
        if link.log.read_bytes().count(DELIVERED) > sent:
            stopped.wait(LINGER_S)
            return
