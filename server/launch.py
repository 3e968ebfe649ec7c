"""Starts flower-superlink and one run of our ServerApp, follows it, and stops everything again."""

import contextlib
import json
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from server import registry
from server.aggregate import aggregator_for
from server.beside import Door, beside
from server.rounds import ServerState
from server.superlink import (
    Certificates,
    SuperLink,
    ask,
    register_members,
    staged,
    stop_stale_runs,
    wait_health,
    write_config,
)
from shared.errors import ConfigError, FederationError, IsthmusError
from shared.payload import Tensors
from shared.plan import Plan, check_silos
from shared.processes import check_port, free_port, is_loopback, signals, spawn, stop
from shared.secure_sum import FEWEST, MOST_MEMBERS

ROOT = Path(__file__).resolve().parents[1]  # holds pyproject.toml with [tool.flwr.app]
POLL_S = 0.3
ASK_S = 30.0  # each question to Flower's command line costs two seconds of a core
LOOKED_S = 1.0  # who looks whether the run is alive (server/glance.py) holds its lock for an instant
INTERRUPTED = 130

Say = Callable[[str], None]
Start = Callable[[Plan], tuple[Tensors, frozenset[str], str]]


def run_server(
    plan: Plan,
    run_dir: Path,
    *,
    clients: int,
    host: str = "127.0.0.1",
    port: int = 18000,
    wait_s: float = 300.0,
    round_timeout_s: float = 3600.0,
    certificates: Certificates | None = None,
    resume: bool = False,
    start: Start | None = None,
    door: Door | None = None,
    say: Say = print,
) -> int:
    """Run a federation from the first round to the last; returns the exit status.

    0 only when every round is done; 1 with the reason said; 130 after SIGINT or SIGTERM. ``port`` 0
    takes a free one. ``start`` gives the first adapter (default: ``shared.model.initial_state``). A ``door`` is open
    for HTTP while the run lasts.
    Raises ConfigError when the settings cannot work, FederationError when another server works in
    ``run_dir``; both change nothing.
    """
    check(host, clients, wait_s, round_timeout_s, certificates, plan.federation.secure)
    if not resume:
        check_silos(plan)
    link = SuperLink(run_dir.resolve(), host, port or free_port(), certificates)
    check_port(host, link.port)
    if door is not None:
        door.check()
    with registry.owned(link.run_dir, "server", LOOKED_S), signals() as stopped:
        prepare(link.run_dir, plan, start, resume)
        say(f"run directory: {run_dir}")
        job = {"clients": clients, "wait_s": wait_s, "round_timeout_s": round_timeout_s}
        registry.write(link.run_dir / "job.json", json.dumps(job).encode())
        superlink = spawn(link.command(), link.env, link.run_dir / "superlink.log")
        try:
            with beside(door, link.run_dir, say) as look:
                return follow(link, superlink, plan, stopped, say, look)
        except IsthmusError as error:
            if not reason(link.run_dir):
                registry.note_failure(link.run_dir, error)
            say(f"failed: {error}")
            return 1
        finally:
            stop(superlink)


def check(
    host: str, clients: int, wait_s: float, round_timeout_s: float, certificates: Certificates | None, secure: bool
) -> None:
    """Raises ConfigError on settings that cannot work, or would let anybody in."""
    if clients < 1:
        raise ConfigError(f"expected at least 1 client, found {clients}")
    if secure and not FEWEST <= clients <= MOST_MEMBERS:
        raise ConfigError(f"--clients: a secure sum takes {FEWEST} to {MOST_MEMBERS} domains, found {clients}")
    if min(wait_s, round_timeout_s) <= 0:
        raise ConfigError(f"expected waits above 0 s, found {min(wait_s, round_timeout_s):g}")
    if not is_loopback(host):
        raise ConfigError(
            f"{host} is open to a network, and Flower's port has a control API that asks nobody who they are: "
            "listen on 127.0.0.1 and put the proxy of docs/deployment.md before it"
        )
    if certificates is not None:
        for path in (certificates.ca, certificates.certificate, certificates.key):
            if not path.is_file():
                raise ConfigError(f"expected a file at {path}, found none; make it with python -m server certs")
        check_usable(certificates)
        if certificates.members is None:  # Flower would let in whoever knocks
            raise ConfigError(
                f"{certificates.ca.parent} knows no members: add each domain's key to it (python -m server certs "
                f"{certificates.ca.parent} --public NAME.pub)"
            )
    if not (ROOT / "pyproject.toml").is_file():
        raise ConfigError(f"expected pyproject.toml in {ROOT}; run the server from a checkout of the project")


def check_usable(certificates: Certificates) -> None:
    """Raises ConfigError where TLS cannot use them; Flower would say so in its log alone."""
    advice = "make them anew with python -m server certs"
    try:
        ssl.create_default_context(cafile=str(certificates.ca))
    except ssl.SSLError:
        raise ConfigError(f"expected certificates in {certificates.ca}, found something else; {advice}") from None
    pair, context = (certificates.certificate, certificates.key), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(*pair, password=lambda: "")  # nobody is there to ask
    except ssl.SSLError:
        where = " and ".join(map(str, pair))
        raise ConfigError(f"expected a certificate and its key in {where}, found something else; {advice}") from None


def prepare(run_dir: Path, plan: Plan, start: Start | None, resume: bool) -> None:
    """Make the run directory, or check that it can go on. Raises ConfigError."""
    if resume:
        registry.resume(run_dir, plan.to_json())
    else:
        registry.refuse_used(run_dir)  # before the seconds that the first adapter takes
        adapter, released, base = (start or first_adapter)(plan)
        memory = aggregator_for(plan).init()
        registry.begin(run_dir, ServerState(1, plan, adapter, released, base, memory))
    for mark in ("done.json", "error.json", "members.json"):
        (run_dir / mark).unlink(missing_ok=True)


def first_adapter(plan: Plan) -> tuple[Tensors, frozenset[str], str]:
    from shared.model import initial_state  # heavy, and not needed to resume

    return initial_state(plan)


def follow(
    link: SuperLink,
    superlink: subprocess.Popen[bytes],
    plan: Plan,
    stopped: threading.Event,
    say: Say,
    look: Callable[[], None] = lambda: None,
) -> int:
    """Start the run, say a line per round, return its exit status. Raises FederationError when it failed."""
    wait_health(link, superlink, stopped)
    write_config(link)
    if stopped.is_set():
        return INTERRUPTED
    stop_stale_runs(link)
    register_members(link, say)
    answer = ask(link, "run", str(staged(link, ROOT)), "--run-config", f"run-dir={json.dumps(str(link.run_dir))}")
    say(f"SuperLink listens on {link.address}; waiting for domains")
    status, details = watch(link, superlink, answer["run-id"], plan.federation.rounds, stopped, say, look)
    if stopped.is_set():
        with contextlib.suppress(FederationError):  # a SuperLink that was interrupted too has ended the run itself
            ask(link, "stop", answer["run-id"])
        say("interrupted: the run is stopped; --resume goes on after its last complete round")
        return INTERRUPTED
    if status != "finished:completed":
        raise FederationError(reason(link.run_dir) or details or status)
    for domain, why in json.loads((link.run_dir / "done.json").read_bytes())["failed"].items():
        say(f"{domain} did not keep the final adapter: {why}")
    return 0


def watch(
    link: SuperLink,
    superlink: subprocess.Popen[bytes],
    run_id: str,
    rounds: int,
    stopped: threading.Event,
    say: Say,
    look: Callable[[], None] = lambda: None,
) -> tuple[str, str]:
    """Tail the log of rounds until the run is finished; returns Flower's (status, details)."""
    said = len(registry.read_rounds(link.run_dir))
    asked = time.monotonic()
    run: dict[str, Any] = {"status": ""}
    while not run["status"].startswith("finished") and not stopped.wait(POLL_S):
        look()
        if superlink.poll() is not None:
            raise FederationError(f"the SuperLink ended ({superlink.returncode}); see {link.run_dir / 'superlink.log'}")
        marked = any((link.run_dir / mark).exists() for mark in ("done.json", "error.json"))
        if marked or time.monotonic() - asked > ASK_S:
            run = ask(link, "list", "--run-id", run_id)["runs"][0]
            asked = time.monotonic()
        reports = registry.read_rounds(link.run_dir)  # after the question: none may follow the last status
        for report in reports[said:]:
            say(spell(report, rounds))
        said = len(reports)
    return run["status"], str(run.get("status-details") or "")


def spell(report: dict[str, Any], rounds: int) -> str:
    """One line per round; who gave no update, and why, stands in it."""
    domains = report["domains"]
    absent = {**report["refused"], **report.get("failed", {})}
    line = f"round {report['round']}/{rounds}: {len(domains)} domains ({', '.join(domains)})"
    line += f", {report['seconds']:.1f} s" if "seconds" in report else ""
    return line + "".join(f"; {who} refused: {why}" for who, why in sorted(absent.items()))


def reason(run_dir: Path) -> str:
    """What the ServerApp left in error.json, or nothing."""
    try:
        return str(json.loads((run_dir / "error.json").read_bytes())["reason"])
    except (OSError, ValueError, KeyError):
        return ""
