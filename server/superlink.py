"""One flower-superlink: its files, its command line, and questions to it through Flower's own client."""

import contextlib
import json
import shutil
import ssl
import subprocess
import threading
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import FederationError
from shared.processes import flower_env, flower_tool

CONNECTION = "isthmus"  # name in Flower's config.toml
HEALTH_S = 60.0
ANSWER_S = 120.0
ALREADY = "already"  # in Flower's answer when a key is registered twice


@dataclass(frozen=True)
class Certificates:
    """TLS of the SuperLink; ``members`` holds the public node keys (*.pub) that may join, None lets anyone in."""

    ca: Path
    certificate: Path
    key: Path
    members: Path | None = None


@dataclass(frozen=True)
class SuperLink:
    """Where the server listens, and with which files."""

    run_dir: Path
    host: str
    port: int
    certificates: Certificates | None

    @property
    def address(self) -> str:
        """Where this machine itself reaches it."""
        return f"{'127.0.0.1' if self.host in {'0.0.0.0', '::'} else self.host}:{self.port}"  # noqa: S104

    @property
    def env(self) -> dict[str, str]:
        return flower_env(self.run_dir / "flower")

    def command(self) -> list[str]:
        command = [flower_tool("flower-superlink"), "--host", self.host, "--port", str(self.port)]
        command += ["--database", str(self.run_dir / "superlink.db"), "--disable-runtime-dependency-installation"]
        tls = self.certificates
        if tls is None:
            return [*command, "--insecure"]
        command += ["--ssl-ca-certfile", str(tls.ca), "--ssl-certfile", str(tls.certificate)]
        command += ["--ssl-keyfile", str(tls.key)]
        return command if tls.members is None else [*command, "--enable-supernode-auth"]


def wait_health(link: SuperLink, process: subprocess.Popen[bytes], stopped: threading.Event) -> None:
    """Return once the SuperLink answers, or a signal came. Raises FederationError when it ends or stays silent."""
    tls = link.certificates
    scheme, trust = ("http", None) if tls is None else ("https", ssl.create_default_context(cafile=str(tls.ca)))
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust))
    deadline = time.monotonic() + HEALTH_S
    while not stopped.wait(0.1):
        if process.poll() is not None or time.monotonic() >= deadline:
            log = link.run_dir / "superlink.log"
            raise FederationError(f"the SuperLink did not start on {link.address}: {last_line(log)}; see {log}")
        try:
            with direct.open(f"{scheme}://{link.address}/health", timeout=1) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            continue


def write_config(link: SuperLink) -> None:
    """Tell Flower's client, in its own home, to talk to this SuperLink unless told otherwise."""
    tls = link.certificates
    trust = "insecure = true" if tls is None else f"root-certificates = {json.dumps(str(tls.ca.resolve()))}"
    text = f'[superlink]\ndefault = "{CONNECTION}"\n[superlink.{CONNECTION}]\naddress = "{link.address}"\n{trust}\n'
    (link.run_dir / "flower" / "config.toml").write_text(text, encoding="utf-8")


def staged(link: SuperLink, project: Path) -> Path:
    """A folder with what ``project`` ships to members (``fab-include`` of its pyproject.toml), and no more.

    Flower walks through all of the folder that it is given: in a checkout that is a virtual environment of fifty
    thousand files, and every run that is kept. Raises FederationError.
    """
    app = link.run_dir / "flower" / "app"
    try:
        about = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
        shipped = [path for pattern in about["tool"]["flwr"]["app"]["fab-include"] for path in project.glob(pattern)]
        shutil.rmtree(app, ignore_errors=True)  # of the run that is resumed
        for path in [project / "pyproject.toml", *shipped]:
            to = app / path.relative_to(project)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)
    except (OSError, KeyError, ValueError) as error:
        raise FederationError(f"cannot lay out the app for its members in {app}: {error}") from None
    return app


def stop_stale_runs(link: SuperLink) -> None:
    """Stop what a SuperLink that crashed left in the database: it can never go on."""
    for run in ask(link, "list")["runs"]:
        if not run["status"].startswith("finished"):
            with contextlib.suppress(FederationError):  # it may end by itself meanwhile
                ask(link, "stop", run["run-id"])


def register_members(link: SuperLink, say: Callable[[str], None]) -> None:
    """Register each member's public node key. Raises FederationError when Flower refuses one."""
    if link.certificates is None or link.certificates.members is None:
        return
    for key in sorted(link.certificates.members.glob("*.pub")):
        try:
            ask(link, "supernode", "register", str(key.resolve()), "--name", key.stem)
            say(f"{key.stem} may join")
        except FederationError as error:
            if ALREADY not in str(error):  # a resumed run finds its members in the database
                raise


def ask(link: SuperLink, *words: str) -> dict[str, Any]:
    """Flower's JSON answer to one command, e.g. ``ask(link, "list")``. Raises FederationError when it fails.

    Flower exits 0 even when it reports an error in JSON, so ``success`` is what counts.
    """
    try:
        done = subprocess.run(  # noqa: S603 - our own command line, no shell
            [flower_tool("flwr"), *words, "--format", "json"],
            env=link.env,
            capture_output=True,
            text=True,
            timeout=ANSWER_S,
            check=False,
        )
        answer = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise FederationError(f"flwr {words[0]} gave no answer within {ANSWER_S:g} s; the SuperLink hangs") from None
    except ValueError:
        found = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
        raise FederationError(f"flwr {words[0]}: expected JSON, found {found[-1][:200]!r}") from None
    if not answer.get("success"):
        raise FederationError(f"flwr {words[0]} failed: {answer.get('error-message') or 'no reason given'}")
    return dict(answer)


def last_line(log: Path) -> str:
    """What a process said last, or that it said nothing."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "it said nothing")
