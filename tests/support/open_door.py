"""A gRPC door, open in a thread's event loop while a test runs; and what a call that failed was told."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest

from shared.grpc_door import Door


@contextmanager
def opened(door: Door) -> Iterator[grpc.Channel]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(door.open("127.0.0.1"), loop).result(20)
        with grpc.insecure_channel(f"127.0.0.1:{door.port}") as channel:
            yield channel
        asyncio.run_coroutine_threadsafe(door.close(), loop).result(20)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def refused(call, request, code: grpc.StatusCode, timeout: float = 20.0) -> str:
    """What a call was told that is refused with that code."""
    with pytest.raises(grpc.RpcError) as error:
        call(request, timeout=timeout)
    assert error.value.code() is code, error.value
    assert "Traceback" not in error.value.details()
    return error.value.details()


def same(message, body, path="") -> None:
    """A message has what a body of REST has; a field that is not there counts as its empty value."""
    names = {one.name for one in message.DESCRIPTOR.fields}
    assert set(body) <= names, path
    for name in names:
        told, meant = getattr(message, name), body.get(name)
        if isinstance(meant, dict) and hasattr(told, "DESCRIPTOR"):
            same(told, meant, f"{path}.{name}")
        elif isinstance(meant, list) and meant and isinstance(meant[0], dict):
            assert len(told) == len(meant)
            for place, one in enumerate(meant):
                same(told[place], one, f"{path}.{name}.{place}")
        elif meant is None:
            assert not message.HasField(name) if hasattr(told, "DESCRIPTOR") else not told, f"{path}.{name}"
        else:
            assert (list(told) if isinstance(meant, list) else told) == meant, f"{path}.{name}"
