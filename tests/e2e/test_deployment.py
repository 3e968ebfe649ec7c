"""Real processes on loopback: SuperLink, SuperNodes, relays, resident members without torch."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil
import pytest
from support.failing_superlink import failing_superlink
from support.fake_member import NAMES, FakeMember, carry_for, fake_plan, fake_start
from support.proxy import NGINX, federation_door

from server import registry
from server.aggregate import weighted_mean
from server.certs import make_certificates
from server.rounds import ServerState, step
from shared.payload import Task
from shared.processes import free_port

# Where a machine is busy each of Flower's processes takes ten seconds and more to begin.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
DRIVER = ROOT / "tests" / "support" / "federation_driver.py"


class Federation:
    """Starts drivers, keeps their output in files, ends them all."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, str(free_port())
        self.running: list[subprocess.Popen] = []

    def start(self, label: str, *words: object, root: Path = ROOT) -> subprocess.Popen:
        environment = {**os.environ, "PYTHONPATH": str(root)}
        with (self.folder / f"{label}.out").open("wb") as out:
            command = [sys.executable, str(DRIVER), *map(str, words)]
            self.running.append(subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT))
        return self.running[-1]

    def server(self, label: str, run: str, rounds: int, clients: int, wait_s: float, *flags: str) -> subprocess.Popen:
        return self.start(label, "server", self.folder / run, self.port, rounds, clients, wait_s, *flags)

    def client(
        self, name: str, behaviour: str = "good", once: str = "once", *certificates: Path, port: int | None = None
    ) -> subprocess.Popen:
        return self.start(name, "client", name, behaviour, self.folder / name, port or self.port, once, *certificates)

    def said(self, label: str) -> str:
        return (self.folder / f"{label}.out").read_text()

    def wait_said(self, label: str, text: str, timeout_s: float = 200) -> None:
        deadline = time.monotonic() + timeout_s
        while text not in self.said(label):
            assert time.monotonic() < deadline, f"{label} never said {text!r}:\n{self.said(label)}"
            time.sleep(0.1)

    def ended(self, label: str, process: subprocess.Popen, timeout_s: float) -> int:
        """Exit status; where it does not end, all that was said and Flower's own logs."""
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            logs = sorted([*self.folder.glob("*.out"), *self.folder.rglob("*.log")])
            told = "\n".join(f"== {log.name} of {log.parent.name}\n{log.read_text()[-4000:]}" for log in logs)
            raise AssertionError(f"{label} did not end within {timeout_s:g} s:\n{told}") from None

    def left(self) -> list[str]:
        """Command lines of processes that still belong to this federation."""
        mine = []
        for process in psutil.process_iter(["cmdline", "environ"]):
            home = (process.info["environ"] or {}).get("FLWR_HOME", "")
            if home.startswith(str(self.folder)):
                mine.append(" ".join(process.info["cmdline"] or []))
        return mine

    def wait_gone(self, timeout_s: float = 15) -> None:
        deadline = time.monotonic() + timeout_s
        while left := self.left():
            assert time.monotonic() < deadline, left
            time.sleep(0.2)


@pytest.fixture
def federation(tmp_path):
    made = Federation(tmp_path)
    yield made
    for process in made.running:
        if process.poll() is None:
            process.terminate()
    for process in made.running:
        process.wait(60)  # its server asks Flower to stop the run
    made.wait_gone()


def in_process(rounds: int) -> ServerState:
    plan = fake_plan(rounds)
    state = ServerState(1, plan, *fake_start(plan))
    members = {name: FakeMember(name) for name in NAMES}
    for _ in range(rounds):
        state = step(state, carry_for(members), weighted_mean(4096))
    return state


def test_killed_and_resumed_run_equals_the_loop_in_process(federation):
    clients = [federation.client(name) for name in NAMES]
    server = federation.server("server", "run", 2, 3, 200)
    federation.wait_said("server", "round 1/2: 3 domains (book, music, video)")
    server.kill()
    server.wait(10)

    resumed = federation.server("resumed", "run", 2, 3, 200, "--resume")
    # Flower takes up to 60 s to see that the killed server's run is dead, and more on a busy machine.
    assert federation.ended("resumed", resumed, 400) == 0, federation.said("resumed")
    assert "round 2/2: 3 domains (book, music, video)" in federation.said("resumed")
    assert [client.wait(90) for client in clients] == [0, 0, 0]

    expected = in_process(2)
    state = registry.load_state(federation.folder / "run")
    assert state.round == expected.round
    assert [report["round"] for report in registry.read_rounds(federation.folder / "run")] == [1, 2]
    assert state.report["update_norms"] == expected.report["update_norms"]
    for key, value in expected.adapter.items():
        np.testing.assert_array_equal(state.adapter[key], value)
        for name in NAMES:
            with np.load(federation.folder / name / "kept.npz") as kept:
                np.testing.assert_array_equal(kept[key], value)


def test_an_app_that_is_not_this_versions_is_not_run(federation):
    """A server that would have its own code run beside the data."""
    theirs = federation.folder / "theirs"
    for part in ("server", "shared", "client"):
        shutil.copytree(ROOT / part, theirs / part, ignore=shutil.ignore_patterns("__pycache__", "web"))
    shutil.copy(ROOT / "pyproject.toml", theirs)
    ran = federation.folder / "ran"
    relay = theirs / "client" / "relay.py"
    relay.write_text(f"open({str(ran)!r}, 'w').close()\n" + relay.read_text())
    client = federation.client("video")
    federation.start("server", "server", federation.folder / "run", federation.port, 1, 1, 60, root=theirs)
    assert federation.ended("video", client, 300) == 1, federation.said("video")
    assert "another app than the relay of this version, which is not run" in federation.said("video")
    assert not ran.exists()


def test_a_secure_sum_is_the_plain_one_and_no_single_update_reaches_the_server(federation):
    folder = federation.folder / "certificates"
    make_certificates(folder, NAMES)
    server = federation.server("server", "run", 1, 3, 200, f"--certificates={folder}")
    federation.wait_said("server", "waiting for domains")  # who knocks before its key is known begins again and again
    with ExitStack() as open_ones:
        door = int(federation.port)
        if NGINX is not None:  # as docs/deployment.md has it: members come through the proxy
            open_ones.enter_context(federation_door(federation.folder / "nginx", folder, door, door := free_port()))
        clients = [federation.client(name, "good", "once", folder, port=door) for name in NAMES]
        assert server.wait(400) == 0, federation.said("server")
        assert "round 1/1: 3 domains (book, music, video)" in federation.said("server")
        assert [client.wait(90) for client in clients] == [0, 0, 0]

    expected = in_process(1)
    run = federation.folder / "run"
    state = registry.load_state(run)
    for key, value in expected.adapter.items():
        np.testing.assert_allclose(state.adapter[key], value, rtol=1e-6, atol=1e-8)
    assert list(state.report["update_norms"]) == ["all together"]
    task = Task("train", 1, fake_plan(1), *fake_start(fake_plan(1))[::2])
    singles = [value.tobytes() for name in NAMES for value in FakeMember(name).train(task).delta.values()]
    left = [path.read_bytes() for path in run.rglob("*") if path.is_file()]
    assert not any(single in raw for single in singles for raw in left)


def test_server_says_why_it_failed_and_the_client_outlives_it(federation):
    client = federation.client("video", "refuses", "stay")
    alone = federation.server("alone", "alone", 1, 3, 4)
    assert alone.wait(180) == 1
    assert re.search(r"failed: .*[01] of 3 domains came within 4 s", federation.said("alone"))

    refused = federation.server("refused", "refused", 1, 1, 200)
    assert refused.wait(240) == 1
    said = federation.said("refused")
    assert "no usable update this round" in said
    assert "video: the plan would spend epsilon 9, the data owner allows 8" in said
    assert "Traceback" not in said

    client.terminate()
    assert client.wait(90) == 0
    assert "Traceback" not in federation.said("video")


def test_interrupts_in_the_middle_of_a_round_stop_everything(federation):
    client = federation.client("video", "sleeps")
    server = federation.server("server", "run", 1, 1, 200)
    federation.wait_said("video", "round 1: training")
    server.send_signal(signal.SIGINT)
    assert server.wait(90) == 130
    assert "interrupted" in federation.said("server")
    start = time.monotonic()
    client.send_signal(signal.SIGINT)
    assert client.wait(90) == 0, federation.said("video")
    assert time.monotonic() - start < 15  # and not the two minutes of its training
    assert "stopped in the middle of a task" in federation.said("video")
    federation.wait_gone()
    again = federation.server("again", "run", 1, 1, 200)
    assert again.wait(90) == 2
    assert "already holds a run; pass --resume" in federation.said("again")


def test_a_client_of_one_run_ends_when_the_server_failed(federation):
    from client.supervise import run_client

    server = federation.server("alone", "alone", 1, 3, 15)
    lines: list[str] = []
    home = federation.folder / "video"
    address = f"127.0.0.1:{federation.port}"
    status = run_client(FakeMember("video"), "video", address, home, connect_timeout_s=25, once=True, say=lines.append)
    assert status == 1
    assert server.wait(60) == 1
    assert "went away before the run was over" in lines[-1]


def test_client_gives_up_when_nobody_answers(federation):
    from client.supervise import run_client

    lines: list[str] = []
    address = f"127.0.0.1:{federation.port}"
    status = run_client(
        FakeMember("video"), "video", address, federation.folder / "video", connect_timeout_s=2, say=lines.append
    )
    assert status == 1
    assert "did not admit video within 2 s; start the server" in lines[-1]


@pytest.mark.parametrize("fails", ["pull", "heartbeat"])
def test_a_client_whose_connection_a_failing_server_ended_comes_again(federation, fails):
    with failing_superlink(int(federation.port), fails):
        client = federation.client("video")  # of one run: the server has not gone away, so it goes on as well
        deadline = time.monotonic() + 90
        while federation.said("video").count("video: connected to") < 2:
            assert client.poll() is None, federation.said("video")
            assert time.monotonic() < deadline, federation.said("video")
            time.sleep(0.1)
    client.terminate()
    assert client.wait(90) == 0
