"""What every gRPC door does, whatever it serves: codes, deadlines, limits, health, reflection; generated modules."""

import asyncio
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_tools import protoc
from support.open_door import opened, refused

from shared import errors
from shared.grpc_door import Door, aside, status_of
from shared.processes import free_port
from shared.proto import recommender_pb2 as pb
from shared.proto import recommender_pb2_grpc as pb_grpc

ROOT = Path(__file__).resolve().parents[2]
SECRET = "ann-of-the-secret-histories"


class Odd(pb_grpc.HomeServicer):
    """A service that fails, is slow, or answers much."""

    def __init__(self) -> None:
        self.begun, self.go, self.pool = [], threading.Event(), ThreadPoolExecutor(1)

    async def Recommend(self, request, context):
        raise RuntimeError(f"broken at {request.user}")

    async def AddEvents(self, request, context):
        raise OSError(28, "No space left on device")

    async def Explain(self, request, context):
        await aside(self.pool, self._slow, request.item)
        return pb.Explanation()

    def _slow(self, item: str) -> None:
        self.begun.append(item)
        self.go.wait(20)

    async def About(self, request, context):
        return pb.HomeAbout(domain="x" * 5 * 2**20)

    async def GetItem(self, request, context):
        time.sleep(0.3)  # the whole loop: those behind it wait
        self.begun.append(request.item)
        return pb.Item()


@pytest.fixture
def odd():
    return Odd()


@pytest.fixture
def channel(odd):
    with opened(
        Door("isthmus.v1.Home", lambda server: pb_grpc.add_HomeServicer_to_server(odd, server), free_port())
    ) as it:
        yield it
    odd.pool.shutdown()


@pytest.fixture
def home(channel):
    return pb_grpc.HomeStub(channel)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UnknownError("x"), StatusCode.NOT_FOUND),
        (errors.TakenError("x"), StatusCode.ALREADY_EXISTS),
        (errors.FullError("x"), StatusCode.RESOURCE_EXHAUSTED),
        (errors.DataError("x"), StatusCode.FAILED_PRECONDITION),
        (errors.BudgetError("x"), StatusCode.FAILED_PRECONDITION),
        (errors.ConfigError("x"), StatusCode.INVALID_ARGUMENT),
        (errors.PayloadError("x"), StatusCode.INVALID_ARGUMENT),
    ],
)
def test_each_error_of_the_tree_has_its_code(error, code):
    assert status_of(error) == (code, "x")


def test_what_is_broken_tells_the_caller_nothing_and_the_log_the_place_alone(home, caplog):
    with caplog.at_level(logging.ERROR):
        told = refused(home.Recommend, pb.HomeAsk(user=SECRET), StatusCode.INTERNAL)
    assert SECRET not in told + caplog.text
    assert "RuntimeError" in caplog.text
    assert "in Recommend" in caplog.text


def test_a_disk_that_will_not_write_is_told(home):
    told = refused(home.AddEvents, pb.Events(), StatusCode.RESOURCE_EXHAUSTED)
    assert told == "a file cannot be written: No space left on device; nothing was kept"


@pytest.mark.parametrize("raw", [b"\xff" * 20, b"\x0a\x05ab", b"\x0a\x02\xff\xfe"])
def test_bytes_that_are_no_message_are_refused(channel, raw):
    call = channel.unary_unary("/isthmus.v1.Home/Recommend")
    assert "recommender.proto" in refused(call, raw, StatusCode.INVALID_ARGUMENT)


def test_calls_that_are_not_there(channel):
    refused(channel.unary_unary("/isthmus.v1.Home/Nothing"), b"", StatusCode.UNIMPLEMENTED)
    refused(channel.unary_unary("/isthmus.v1.Crossing/About"), b"", StatusCode.UNIMPLEMENTED)


def test_limits_of_size(home):
    assert "larger than max" in refused(home.Recommend, pb.HomeAsk(user="x" * 2**20), StatusCode.RESOURCE_EXHAUSTED)
    assert "larger than max" in refused(home.About, pb.AboutAsk(), StatusCode.RESOURCE_EXHAUSTED)


def test_a_deadline_ends_a_call_and_one_that_waited_is_never_begun(home, odd):
    first = home.Explain.future(pb.HomeWhy(item="first"), timeout=20)
    while not odd.begun:
        time.sleep(0.01)
    refused(home.Explain, pb.HomeWhy(item="second"), StatusCode.DEADLINE_EXCEEDED, timeout=0.2)
    time.sleep(0.5)  # the server's own clock of that deadline began when the call came in
    odd.go.set()
    assert first.result(20) == pb.Explanation()
    assert home.Explain(pb.HomeWhy(item="third"), timeout=20) == pb.Explanation()
    assert odd.begun == ["first", "third"]


def test_a_call_whose_deadline_passed_before_its_turn_is_never_begun(home, odd):
    first = home.GetItem.future(pb.ItemName(item="first"), timeout=20)
    time.sleep(0.05)
    refused(home.GetItem, pb.ItemName(item="late"), StatusCode.DEADLINE_EXCEEDED, timeout=0.1)
    first.result(20)
    home.GetItem(pb.ItemName(item="last"), timeout=20)
    assert odd.begun == ["first", "last"]


def test_health_is_told_until_the_end(channel):
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", "isthmus.v1.Home"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    refused(health.Check, health_pb2.HealthCheckRequest(service="other"), StatusCode.NOT_FOUND)


def test_reflection_describes_the_service(channel):
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    asks = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="isthmus.v1.Home"),
    ]
    listed, file = stub.ServerReflectionInfo(iter(asks))
    names = {one.name for one in listed.list_services_response.service}
    assert names == {"isthmus.v1.Home", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    described = FileDescriptorProto.FromString(file.file_descriptor_response.file_descriptor_proto[0])
    assert described.package == "isthmus.v1"


def test_a_taken_port_is_told_and_never_shared():
    async def twice() -> None:
        one, other = (Door("x", lambda server: None, port) for port in [free_port()] * 2)
        await one.open("127.0.0.1")
        try:
            with pytest.raises(errors.ConfigError, match=r"cannot listen on 127.0.0.1:\d+; .* --grpc-port"):
                await other.open("127.0.0.1")
        finally:
            await one.close()

    asyncio.run(twice())


def test_the_committed_modules_are_what_the_proto_says(tmp_path):
    place = "shared/proto/recommender.proto"
    words = ["protoc", f"-I{ROOT}", f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}", str(ROOT / place)]
    assert protoc.main(words) == 0
    for ending in ("_pb2.py", "_pb2_grpc.py"):
        module = place.replace(".proto", ending)
        assert (ROOT / module).read_text() == (tmp_path / module).read_text(), "run make proto and commit it"
