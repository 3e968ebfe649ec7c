"""Real processes on loopback: what a server or a client does and says when the other one fails."""

import re
import shutil
import time

import pytest
from support.failing_superlink import failing_superlink
from support.fake_member import FakeMember
from support.federation import ROOT, federation_in

from client.supervise import run_client

# Where a machine is busy each of Flower's processes takes ten seconds and more to begin.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def federation(tmp_path):
    with federation_in(tmp_path) as made:
        yield made


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


def test_a_client_of_one_run_ends_when_the_server_failed(federation):
    server = federation.server("alone", "alone", 1, 3, 40)  # time for the one that comes to be there, on a busy machine
    federation.wait_said("alone", "waiting for domains")
    lines: list[str] = []
    home = federation.folder / "video"
    address = f"127.0.0.1:{federation.port}"
    status = run_client(FakeMember("video"), "video", address, home, connect_timeout_s=60, once=True, say=lines.append)
    assert status == 1
    assert server.wait(60) == 1
    assert "went away before the run was over" in lines[-1]


def test_client_gives_up_when_nobody_answers(federation):
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
