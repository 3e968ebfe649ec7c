"""What the REST doors of both sides have in common: errors as problem+json, limits, ETags, live events, pages.

A door listens on loopback alone: who may ask, and TLS, are a reverse proxy's.
"""

import asyncio
import gc
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, is_dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.catalog import NewItem
from shared.errors import BudgetError, ConfigError, DataError, FullError, IsthmusError, PayloadError, UnknownError
from shared.policy import Wish
from shared.processes import check_places, is_loopback, signals

if TYPE_CHECKING:
    from shared.grpc_door import Door

MOST_BYTES = 2**20  # of one request
MOST_BATCH = 100  # asks in one call
MOST_CONNECTIONS = 500  # open at once, pages that listen among them; whoever comes then is told 503
MOST_HISTORY = 1000
PING_S = 15.0
ASSETS = Path(__file__).parent / "web"  # what the pages of both sides have in common
STATUS = (
    (UnknownError, 404),
    (FullError, 507),
    (DataError, 409),
    (BudgetError, 409),
    (ConfigError, 400),
    (PayloadError, 400),
)
# A page may load what this process serves and nothing else.
SECURITY = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}

Words = Annotated[str, Field(min_length=1, max_length=2000)]
Name = Annotated[str, Field(min_length=1, max_length=256)]


class Strict(BaseModel):
    """A body with no unknown fields."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class WishBody(Strict):
    """How an answer shall be; the fields of ``shared.policy.Wish``."""

    k: int = Field(10, ge=1, le=1000)
    skip: int = Field(0, ge=0, le=1000)
    diversity: float = Field(0.0, ge=0, le=1)
    popularity: float = Field(0.0, ge=-10, le=10)
    freshness: float = Field(0.0, ge=-10, le=10)
    where: dict[Name, Name] = Field(default_factory=dict, max_length=10)
    without: list[Name] = Field(default_factory=list, max_length=MOST_HISTORY)
    seen: bool = False
    age: int | None = Field(None, ge=0, le=150)
    reasons: int = Field(0, ge=0, le=10)

    def wish(self) -> Wish:
        return Wish(
            self.k,
            self.skip,
            self.diversity,
            self.popularity,
            self.freshness,
            self.where,
            frozenset(self.without),
            self.seen,
            self.age,
            self.reasons,
        )


class SearchBody(Strict):
    """A page of a catalogue; in REST the words after the question mark."""

    query: str = Field("", max_length=200)
    skip: int = Field(0, ge=0, le=10_000_000)
    k: int = Field(20, ge=1, le=100)


class ItemBody(Strict):
    """One that a catalogue does not have yet."""

    item_id: Name
    title: Words
    text: Words | None = None  # none: the title, then the attributes
    attributes: dict[Name, Words] = Field(default_factory=dict, max_length=50, description="column -> its value")

    def found(self) -> NewItem:
        text = self.text or ". ".join([self.title, *self.attributes.values()])
        return NewItem(self.item_id, self.title, text, self.attributes)


def problem(status: int, detail: str, **more: Any) -> JSONResponse:
    """An error as RFC 9457 has it."""
    titles = {
        400: "Bad request",
        403: "Forbidden",
        404: "Not found",
        409: "Conflict",
        413: "Too large",
        422: "Bad body",
        507: "No room",
    }
    body = {"type": "about:blank", "title": titles.get(status, "Error"), "status": status, "detail": detail, **more}
    return JSONResponse(body, status, media_type="application/problem+json")


def new_app(title: str, version: str, pages: Path | None) -> FastAPI:
    """An application without doors of its own yet; ``pages`` is a folder of static files, its index.html the start."""
    # No /docs: FastAPI's page for it comes from a CDN.
    app = FastAPI(title=title, version=version, docs_url=None, redoc_url=None)
    app.add_middleware(Guard)

    @app.exception_handler(IsthmusError)
    async def told(request: Request, error: IsthmusError) -> JSONResponse:
        status = next((code for kind, code in STATUS if isinstance(error, kind)), 500)
        return problem(status, str(error))

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        # Where and why, never what was sent: it may be somebody's history.
        found = [{"at": ".".join(map(str, one["loc"])), "why": one["msg"]} for one in error.errors()[:20]]
        return problem(422, "the request does not have the form that /openapi.json describes", errors=found)

    @app.exception_handler(StarletteHTTPException)
    async def plain(request: Request, error: StarletteHTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail))

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> JSONResponse:
        answer = problem(500, "this is a bug of the program; nothing of the request is told")
        answer.headers.update(SECURITY)  # it is answered outside of Guard
        return answer

    @app.exception_handler(OSError)
    async def disk(request: Request, error: OSError) -> JSONResponse:
        return problem(507, f"a file cannot be written: {error.strerror}; nothing was kept")

    if pages is not None:
        app.mount("/static", StaticFiles(directory=ASSETS), name="static")
        app.mount("/page", StaticFiles(directory=pages, html=True), name="page")
    return app


class Guard:
    """Bounds a request's size, refuses other sites' pages, sets the headers that keep a page to itself."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        if (refusal := _refusal(headers)) is not None:
            await refusal(scope, receive, send)
            return
        taken = 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MOST_BYTES:
                raise HTTPException(413, f"expected at most {MOST_BYTES} bytes")
            return message

        async def framed(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {key for key, _ in message["headers"]}
                more = [(k.encode(), v.encode()) for k, v in SECURITY.items() if k.encode() not in there]
                message["headers"] = [*message["headers"], *more]
            await send(message)

        await self.app(scope, bounded, framed)


def _refusal(headers: Mapping[str, str]) -> JSONResponse | None:
    """None for a request that may come in. A page of another site may not speak through a visitor's browser: neither
    under its own name (Origin) nor under one that it made to point here (Host)."""
    try:
        host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        origin = urlsplit(headers["origin"]).netloc if "origin" in headers else None
    except ValueError:  # "[::1" is an address of nothing
        return problem(403, "expected addresses in Host and Origin")
    if not is_loopback(host) and host != "testserver":
        return problem(403, "expected the Host of this machine; a proxy in front must send one of loopback")
    if origin is not None and origin != headers.get("host"):
        return problem(403, "another site's page may not ask here")
    length = headers.get("content-length", "0")
    if length.isdigit() and int(length) > MOST_BYTES:
        return problem(413, f"expected at most {MOST_BYTES} bytes")
    return None


def told(request: Request, value: Any, version: str = "") -> Response:
    """JSON with an ETag; 304 where the caller has it already."""
    raw = json.dumps(plain(value), ensure_ascii=False, separators=(",", ":")).encode()
    tag = f'"{hashlib.sha256(version.encode() + raw).hexdigest()[:24]}"'
    if tag in [one.strip() for one in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers={"etag": tag})
    return Response(raw, media_type="application/json", headers={"etag": tag})


def plain(value: Any) -> Any:
    """Dataclasses as objects, sets and tuples as lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in value]
    return value


class Live:
    """Server-sent events: what happens, to every page that listens."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[str]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def tell(self, kind: str, data: Mapping[str, Any]) -> None:
        """From any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._put, f"event: {kind}\ndata: {json.dumps(data)}\n\n")

    def _put(self, text: str) -> None:
        for queue in self._queues:
            if queue.qsize() < 100:  # a page that does not read misses some
                queue.put_nowait(text)

    async def stream(self, stopped: Callable[[], bool]) -> AsyncIterator[str]:
        self._loop = asyncio.get_running_loop()
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._queues.add(queue)
        try:
            yield ": hello\n\n"
            while not stopped():
                try:
                    yield await asyncio.wait_for(queue.get(), PING_S)
                except TimeoutError:
                    yield ": still here\n\n"
        finally:
            self._queues.discard(queue)

    def response(self, stopped: Callable[[], bool] = lambda: False) -> StreamingResponse:
        return StreamingResponse(self.stream(stopped), media_type="text/event-stream")


def listen(
    app: FastAPI, host: str, port: int, ready: Callable[[], None] = lambda: None, beside: "Door | None" = None
) -> None:
    """Serve until SIGINT or SIGTERM; ``beside`` is a gRPC door that opens and closes with this one, in the same loop.

    Raises ConfigError for an address that is open to a network, or taken.
    """
    check_places(host, port, 0 if beside is None else beside.port)
    if beside is not None:
        app.router.on_startup.append(partial(beside.open, host))
        app.router.on_shutdown.append(beside.close)
    # What is there now stays for good: no collection while answers wait needs to walk through it.
    app.router.on_startup += [gc.freeze, ready]
    with signals():  # uvicorn sends itself again the signal that ended it: an end as it should be is status 0
        uvicorn.run(
            app,
            host=host,
            port=port,
            log_level="error",
            access_log=False,
            ws="none",
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=3,
        )
