"""What the gRPC doors of both sides have in common: status codes, deadlines, limits, health, reflection, listening.

A door runs in the event loop of the REST door beside it and, like it, listens on loopback alone.
"""

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from pydantic import ValidationError

from shared.errors import (
    BudgetError,
    ConfigError,
    DataError,
    FullError,
    IsthmusError,
    PayloadError,
    TakenError,
    UnknownError,
)
from shared.http import MOST_BYTES, plain

MOST_CALLS = 1000  # at once; more are told RESOURCE_EXHAUSTED
MOST_ANSWER = 4 * 2**20  # bytes: what a client takes by default
MOST_DETAIL = 1000  # characters of a status: it travels as a header
GRACE_S = 3.0
STATUS = (
    (UnknownError, grpc.StatusCode.NOT_FOUND),
    (TakenError, grpc.StatusCode.ALREADY_EXISTS),
    (FullError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (DataError, grpc.StatusCode.FAILED_PRECONDITION),
    (BudgetError, grpc.StatusCode.FAILED_PRECONDITION),
    (ConfigError, grpc.StatusCode.INVALID_ARGUMENT),
    (PayloadError, grpc.StatusCode.INVALID_ARGUMENT),
    (ValidationError, grpc.StatusCode.INVALID_ARGUMENT),
    (OSError, grpc.StatusCode.RESOURCE_EXHAUSTED),
)
OPTIONS = (
    ("grpc.max_receive_message_length", MOST_BYTES),
    ("grpc.max_send_message_length", MOST_ANSWER),
    ("grpc.so_reuseport", 0),  # else a second server would share the port in silence
)

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")
Call = Callable[[Any, Any], Awaitable[Any]]


def values(message: Message) -> dict[str, Any]:
    """The fields that are set, as the bodies of REST have them; those of a field named wish beside the others."""
    found = {one.name: _value(one, value) for one, value in message.ListFields()}
    wish: dict[str, Any] = found.pop("wish", {})
    return found | wish


def _value(one: FieldDescriptor, value: Any) -> Any:
    if one.message_type is not None and one.message_type.GetOptions().map_entry:
        return dict(value)
    if one.is_repeated:
        return [values(part) for part in value] if one.message_type is not None else list(value)
    return values(value) if one.message_type is not None else value


def reply(kind: type[Answer], value: Any) -> Answer:
    """A message with the fields of a dataclass or a mapping; None leaves one out."""
    return kind(**plain(value))


async def aside(pool: ThreadPoolExecutor, call: Callable[..., Answer], *words: Any) -> Answer:
    """What a call that takes long answers, from a thread; one whose deadline passes while it waits is never begun."""
    return await asyncio.get_running_loop().run_in_executor(pool, call, *words)


def status_of(error: Exception) -> tuple[Any, str]:
    """(code, details): never what was sent, nor where in the program it broke."""
    code = next((code for kind, code in STATUS if isinstance(error, kind)), grpc.StatusCode.INTERNAL)
    if isinstance(error, ValidationError):
        found = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:20]]
        return code, "; ".join(found)[:MOST_DETAIL]
    if isinstance(error, OSError):
        return code, f"a file cannot be written: {error.strerror}; nothing was kept"
    if isinstance(error, IsthmusError):
        return code, str(error)[:MOST_DETAIL]
    return code, "the program failed on this request; its log says where"


class Threshold(grpc.aio.ServerInterceptor):
    """Every call of one request and one answer passes here: bytes that are no message, deadlines, errors."""

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        handler = await continuation(details)
        if handler is None or handler.request_streaming or handler.response_streaming:
            return handler
        return grpc.unary_unary_rpc_method_handler(
            _guarded(handler.unary_unary), _reading(handler.request_deserializer), handler.response_serializer
        )


def _reading(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(raw: bytes) -> Any:
        try:
            return parse(raw)
        except DecodeError:  # gRPC itself would answer with what Python said, and UNKNOWN
            return PayloadError("expected the message of this call, found bytes that are none; see recommender.proto")

    return read


def _guarded(call: Call) -> Call:
    async def answer(request: Any, context: Any) -> Any:
        left = context.time_remaining()
        if left is not None and left <= 0:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed before the call began")
        try:
            if isinstance(request, PayloadError):
                raise request
            return await call(request, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            code, words = status_of(error)
            if code is grpc.StatusCode.INTERNAL:  # the place alone: the words of an error may hold what was sent
                log.error("%s at\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
        return await context.abort(code, words)

    return answer


@dataclass
class Door:
    """A gRPC server for one service, its health and its description; not yet open."""

    name: str  # full name of the service
    add: Callable[[Any], None]  # gives the service to a server
    port: int
    health: Any = field(default_factory=health.aio.HealthServicer)
    _server: Any = None

    async def open(self, host: str) -> None:
        """Listen, within the running loop. Raises ConfigError."""
        server = grpc.aio.server(interceptors=[Threshold()], options=OPTIONS, maximum_concurrent_rpcs=MOST_CALLS)
        self.add(server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        reflection.enable_server_reflection((self.name, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        place = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        try:
            server.add_insecure_port(place)
        except RuntimeError:
            raise ConfigError(f"cannot listen on {place}; stop what does, or choose --grpc-port") from None
        await server.start()
        for name in ("", self.name):
            await self.health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._server = server

    async def close(self) -> None:
        """Say so, let the calls that run end, take no new ones."""
        if self._server is not None:
            await self.health.enter_graceful_shutdown()
            await self._server.stop(GRACE_S)
