"""Real processes on loopback: a run from its first knock to its last round."""

import signal
import time
from contextlib import ExitStack

import numpy as np
import pytest
from support.fake_member import NAMES, FakeMember, carry_for, fake_plan, fake_start
from support.federation import federation_in
from support.proxy import NGINX, federation_door

from server import registry
from server.aggregate import weighted_mean
from server.certs import make_certificates
from server.rounds import ServerState, step
from shared.payload import Task
from shared.processes import free_port

# Where a machine is busy each of Flower's processes takes ten seconds and more to begin.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def federation(tmp_path):
    with federation_in(tmp_path) as made:
        yield made


def in_process(rounds: int, names: tuple[str, ...]) -> ServerState:
    plan = fake_plan(rounds)
    state = ServerState(1, plan, *fake_start(plan))
    members = {name: FakeMember(name) for name in names}
    for _ in range(rounds):
        state = step(state, carry_for(members), weighted_mean(4096))
    return state


def test_killed_and_resumed_run_equals_the_loop_in_process(federation):
    two = NAMES[1:]
    clients = [federation.client(name) for name in two]
    server = federation.server("server", "run", 2, 2, 200)
    federation.wait_said("server", "round 1/2: 2 domains (music, video)")
    server.kill()
    server.wait(10)

    resumed = federation.server("resumed", "run", 2, 2, 200, "--resume")
    # Flower takes up to 60 s to see that the killed server's run is dead, and more on a busy machine.
    assert federation.ended("resumed", resumed, 400) == 0, federation.said("resumed")
    assert "round 2/2: 2 domains (music, video)" in federation.said("resumed")
    assert [client.wait(90) for client in clients] == [0, 0]

    expected = in_process(2, two)
    state = registry.load_state(federation.folder / "run")
    assert state.round == expected.round
    assert [report["round"] for report in registry.read_rounds(federation.folder / "run")] == [1, 2]
    assert state.report["update_norms"] == expected.report["update_norms"]
    for key, value in expected.adapter.items():
        np.testing.assert_array_equal(state.adapter[key], value)
        for name in two:
            with np.load(federation.folder / name / "kept.npz") as kept:
                np.testing.assert_array_equal(kept[key], value)


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

    expected = in_process(1, NAMES)
    run = federation.folder / "run"
    state = registry.load_state(run)
    for key, value in expected.adapter.items():
        np.testing.assert_allclose(state.adapter[key], value, rtol=1e-6, atol=1e-8)
    assert list(state.report["update_norms"]) == ["all together"]
    task = Task("train", 1, fake_plan(1), *fake_start(fake_plan(1))[::2])
    singles = [value.tobytes() for name in NAMES for value in FakeMember(name).train(task).delta.values()]
    left = [path.read_bytes() for path in run.rglob("*") if path.is_file()]
    assert not any(single in raw for single in singles for raw in left)


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
