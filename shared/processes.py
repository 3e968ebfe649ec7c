"""Flower's command line tools as child processes that never outlive their launcher.

Used by both launchers (``server/launch.py``, ``client/supervise.py``).
"""

import contextlib
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from shared.errors import ConfigError

# Nothing phones home, nothing is installed at run time, nothing is fetched.
SWITCHES = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # else 15: beside any other work on the machine an actor starves
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PYTHONUNBUFFERED": "1",
}

# Becomes the command after asking the kernel to end it with us: PR_SET_PDEATHSIG survives exec. A fork hook
# (preexec_fn) would do the same but may deadlock beside the threads of torch and gRPC.
GUARD = """
import ctypes, os, signal, sys
try:
    ctypes.CDLL(None).prctl(1, int(signal.SIGTERM), 0, 0, 0)
except (AttributeError, OSError):
    pass
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def flower_env(home: Path) -> dict[str, str]:
    """Environment of one Flower process; ``home`` is its own FLWR_HOME (they race when they share one)."""
    home.mkdir(parents=True, exist_ok=True)
    tools = str(Path(sys.executable).parent)  # Flower looks its own children up on PATH
    path = os.pathsep.join([tools, os.environ.get("PATH", os.defpath)])
    direct = ",".join(filter(None, [os.environ.get("NO_PROXY", ""), "127.0.0.1", "localhost"]))
    own = {"FLWR_HOME": str(home.resolve()), "PATH": path, "NO_PROXY": direct, "no_proxy": direct}
    return {**os.environ, **SWITCHES, **own}


def flower_tool(name: str) -> str:
    """Path of a Flower command. Raises ConfigError when it is not installed beside this Python."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise ConfigError(f"expected the command {name} beside {sys.executable}, found none; pip install flwr")
    return found


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own; 127.0.0.1.example.org is a name like any other."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_places(host: str, port: int, grpc_port: int = 0) -> None:
    """Raises ConfigError where the doors of ``serve`` cannot open: an address that is open to a network, or taken."""
    if not is_loopback(host):
        raise ConfigError(
            f"{host} is open to a network; listen on 127.0.0.1 and put a proxy with TLS and log-in before it"
        )
    if port == grpc_port:
        raise ConfigError(f"--port and --grpc-port are both {port}; choose another for one of them")
    check_port(host, port)
    if grpc_port:
        check_port(host, grpc_port, "--grpc-port")


def check_port(host: str, port: int, option: str = "--port") -> None:
    """Raises ConfigError when nobody could listen there: another server would answer in our place."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise ConfigError(f"cannot listen on {host}:{port} ({error}); stop what does, or choose {option}") from None


def spawn(command: Sequence[str], env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a command in its own process group, output into ``log`` (fresh); it ends when this process ends."""
    guarded = [sys.executable, "-I", "-S", "-c", GUARD, str(os.getpid()), *command]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        return subprocess.Popen(  # noqa: S603 - our own command line, no shell
            guarded, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )


def stop(process: subprocess.Popen[bytes], grace_s: float = 10.0) -> int:
    """Interrupt, wait, and end what is left of its process group; returns the exit status."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


@contextlib.contextmanager
def signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set while the block runs; outside the main thread nobody sets it."""
    got = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        got.set()

    if threading.current_thread() is not threading.main_thread():
        yield got
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield got
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
