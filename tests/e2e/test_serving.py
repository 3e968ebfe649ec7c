"""A real process serves a real, tiny run: both doors, what comes in, kill -9, a good end, an end before the start."""

import contextlib
import signal
import socket
import time

import grpc
import httpx
import pytest
from support.serving_process import Serving
from support.tiny_home import make_home

from client.journal import Event, Journal
from shared.http import MOST_CONNECTIONS
from shared.processes import free_port
from shared.proto import recommender_pb2 as pb
from shared.proto.recommender_pb2_grpc import HomeStub

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tiny_base, tiny_world, cache, tmp_path):
    return make_home(tiny_base, tiny_world["video"], tmp_path / "home", cache)


@pytest.fixture
def serve(home, cache, tmp_path):
    def start(*words: object, port: int | None = None) -> Serving:
        common = ("--domain", "video", "--home", home.folder, "--cache", cache, "serve")
        return Serving("client", port or free_port(), *common, *words, folder=tmp_path)

    return start


def until(true, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def shown(items) -> list[str]:
    return [one["item_id"] if isinstance(one, dict) else one.item_id for one in items]


def test_both_doors_one_journal_and_a_good_end(serve, home):
    rest, ports = httpx.Client(trust_env=False), (free_port(), free_port())

    def by_rest(serving, user):
        answer = rest.post(f"{serving.url}/api/recommend", json={"user": user, "k": 5})
        assert answer.status_code == 200, answer.text
        return answer.json()

    with serve("--grpc-port", ports[1], port=ports[0]) as serving:
        serving.ready()
        assert f"by gRPC at 127.0.0.1:{ports[1]}" in serving.said.read_text()
        with grpc.insecure_channel(f"127.0.0.1:{ports[1]}") as channel:
            stub = HomeStub(channel)
            user = "u00000"
            first = by_rest(serving, user)
            same = stub.Recommend(pb.HomeAsk(user=user, wish={"k": 5}))
            assert (same.model, shown(same.items)) == (first["model"], shown(first["items"]))
            met = first["items"][0]["item_id"]
            assert stub.AddEvents(pb.Events(events=[{"user": user, "item": met}]), timeout=20).kept == 1
            assert met not in shown(by_rest(serving, user)["items"])
        serving.process.send_signal(signal.SIGKILL)
        assert serving.ended()[0] == -signal.SIGKILL

    with serve("--grpc-port", ports[1], port=ports[0]) as serving:
        serving.ready()
        after = by_rest(serving, user)
        assert met not in shown(after["items"])
        with grpc.insecure_channel(f"127.0.0.1:{ports[1]}") as channel:
            stub = HomeStub(channel)
            assert shown(stub.Recommend(pb.HomeAsk(user=user, wish={"k": 5})).items) == shown(after["items"])
            assert stub.History(pb.HistoryAsk(user=user, k=1)).events[0].item_id == met
        serving.process.send_signal(signal.SIGTERM)
        status, said = serving.ended()
        assert status == 0, said
        assert "Traceback" not in said
    assert [(one.user, one.item) for one in Journal(home.journal).of(Event)] == [(user, met)]


def test_who_comes_when_all_connections_are_taken_is_told_so(serve):
    with serve() as serving, contextlib.ExitStack() as idle:
        serving.ready()
        address = ("127.0.0.1", int(serving.url.rpartition(":")[2]))
        with httpx.Client(trust_env=False, base_url=serving.url) as client:
            assert client.get("/healthz").status_code == 200
        for _ in range(MOST_CONNECTIONS):
            idle.enter_context(socket.create_connection(address))
        refused = httpx.get(f"{serving.url}/healthz", trust_env=False)
        assert refused.status_code == 503
        idle.close()
        until(lambda: httpx.get(f"{serving.url}/healthz", trust_env=False).status_code == 200)


@pytest.mark.parametrize("option", ["--port", "--grpc-port"])
def test_a_taken_port_is_one_line(serve, option):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        given = {"port": port} if option == "--port" else {}
        with serve(*(() if given else (option, port)), **given) as serving:
            status, said = serving.ended()
    assert status == 2
    (line,) = said.splitlines()
    assert line.startswith(f"error: cannot listen on 127.0.0.1:{port}")
    assert line.endswith(f"stop what does, or choose {option}")


def test_a_missing_run_is_one_line(cache, tmp_path):
    words = ("--domain", "video", "--home", tmp_path / "none", "--cache", cache, "serve")
    with Serving("client", free_port(), *words, folder=tmp_path) as serving:
        status, said = serving.ended()
    assert status == 2
    (line,) = said.splitlines()
    assert line.startswith("error: no finished run in")
