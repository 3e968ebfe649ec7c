"""The domain's REST door: its own users, by id; what comes in; nothing that decides what is recommended."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import Field

from client.budget import spending
from client.http_safety import add_safety
from client.journal import FEEDBACK, Event, Feedback
from client.service import HomeService, Who
from shared.catalog import BEHAVIOURS, NewItem
from shared.errors import ConfigError
from shared.explanation import PARTS
from shared.http import MOST_BATCH, MOST_HISTORY, Live, Name, Strict, WishBody, Words, new_app, told

PAGES = Path(__file__).parent / "web"


class WhoBody(WishBody):
    """For whom, and how."""

    user: Name | None = None
    history: list[Words] = Field(default_factory=list, max_length=MOST_HISTORY)
    passport: dict[Name, Any] | None = Field(None, max_length=20, description="a taste passport, as it was issued")

    def who(self) -> Who:
        token = b"" if self.passport is None else json.dumps(self.passport).encode()
        return Who(self.user, tuple(self.history), token)


class BatchBody(Strict):
    asks: list[WhoBody] = Field(min_length=1, max_length=MOST_BATCH)


class WhyBody(Strict):
    item: Words
    user: Name | None = None
    history: list[Words] = Field(default_factory=list, max_length=MOST_HISTORY)
    most: int = Field(3, ge=1, le=20)  # of each part
    parts: list[Name] = Field(list(PARTS), max_length=len(PARTS), description=", ".join(PARTS))


class PlaceBody(Strict):
    """The body of a POST, not an address: addresses end up in the logs of whatever stands before the door."""

    user: Name | None = None
    history: list[Words] = Field(default_factory=list, max_length=MOST_HISTORY)


class HistoryBody(Strict):
    """The body of a POST, not an address: addresses end up in the logs of whatever stands before the door."""

    user: Name
    skip: int = Field(0, ge=0, le=1_000_000)
    k: int = Field(50, ge=1, le=1000)


class EventBody(Strict):
    user: Name
    item: Name
    behavior: Name = "view"
    timestamp: float | None = Field(None, ge=0, le=1e11)  # unix seconds; none: now


class EventsBody(Strict):
    events: list[EventBody] = Field(min_length=1, max_length=MOST_HISTORY)


class ItemBody(Strict):
    item_id: Name
    title: Words
    text: Words | None = None  # none: the title


class ItemsBody(Strict):
    items: list[ItemBody] = Field(min_length=1, max_length=MOST_BATCH)


class FeedbackBody(Strict):
    user: Name
    item: Name
    what: str = Field(description=" or ".join(FEEDBACK))
    note: str = Field("", max_length=500)


def application(service: HomeService, version: str, limit: float | None = None) -> FastAPI:
    """All paths under /api, /healthz, and the pages. ``limit``: the epsilon beyond which the owner releases nothing."""
    app = new_app(f"Isthmus at {service.serving.domain.name}", version, PAGES if PAGES.is_dir() else None)
    live = Live()
    service.listeners.append(live.tell)

    @app.get("/", include_in_schema=False)
    async def start() -> Response:
        return RedirectResponse("/page/")

    @app.get("/healthz")
    async def health() -> dict[str, str]:
        return {"status": "ok", "model": service.serving.engine.version}

    @app.get("/api/about")
    async def about(request: Request) -> Response:
        return told(request, _about(service))

    # These two take a few milliseconds and run where they arrive: a thread for each would cost as much again.
    @app.post("/api/recommend")
    async def recommend(body: WhoBody, request: Request) -> Response:
        return told(request, service.recommend(body.who(), body.wish()))

    @app.post("/api/recommend/batch")
    async def batch(body: BatchBody, request: Request) -> Response:
        answers = [await asyncio.to_thread(service.recommend, one.who(), one.wish()) for one in body.asks]
        return told(request, {"answers": answers})

    @app.post("/api/explain")
    def explain(body: WhyBody, request: Request) -> Response:
        who = Who(body.user, tuple(body.history))
        return told(request, service.explanation(who, body.item, body.most, body.parts))

    @app.get("/api/map")
    def items_map(request: Request) -> Response:
        return told(request, service.map())

    @app.post("/api/map")
    def place(body: PlaceBody, request: Request) -> Response:
        x, y = service.place(Who(body.user, tuple(body.history)))
        return told(request, {"x": x, "y": y})

    @app.post("/api/events", status_code=201)
    def events(body: EventsBody) -> dict[str, int]:
        now = time.time()
        found = [
            Event(one.user, one.item, one.behavior, now if one.timestamp is None else one.timestamp)
            for one in body.events
        ]
        service.add_events(found)
        return {"kept": len(found)}

    @app.post("/api/items", status_code=201)
    def items(body: ItemsBody) -> dict[str, int]:
        service.add_items([NewItem(one.item_id, one.title, one.text or one.title) for one in body.items])
        return {"kept": len(body.items)}

    @app.post("/api/feedback", status_code=201)
    def feedback(body: FeedbackBody) -> dict[str, int]:
        if body.what not in FEEDBACK:
            raise ConfigError(f"expected what to be one of {', '.join(FEEDBACK)}")
        service.add_feedback(Feedback(body.user, body.item, body.what, time.time(), body.note))
        return {"kept": 1}

    @app.get("/api/items")
    async def search(
        request: Request,
        query: str = Query("", max_length=200),
        skip: int = Query(0, ge=0, le=1_000_000),
        k: int = Query(20, ge=1, le=100),
    ) -> Response:
        return told(request, service.search(query, skip, k))

    @app.get("/api/items/{item_id}")
    async def item(item_id: str, request: Request) -> Response:
        return told(request, service.item(item_id))

    @app.get("/api/users/{user}/history")
    async def history(
        user: str, request: Request, skip: int = Query(0, ge=0, le=1_000_000), k: int = Query(50, ge=1, le=1000)
    ) -> Response:
        return told(request, _history(service, user, skip, k))

    @app.post("/api/history")
    async def history_of(body: HistoryBody, request: Request) -> Response:
        return told(request, _history(service, body.user, body.skip, body.k))

    @app.get("/api/attributes")
    def attributes(
        request: Request, column: str = Query(max_length=256), k: int = Query(100, ge=1, le=1000)
    ) -> Response:
        found = service.serving.engine.attributes.common(column, k)
        return told(request, {"values": [{"value": value, "items": items} for value, items in found]})

    @app.get("/api/budget")
    def budget(request: Request) -> Response:
        return told(request, {**spending(service.home), "limit": limit})

    add_safety(app, service)

    @app.get("/api/live")
    async def happening() -> Response:
        return live.response()

    return app


def _history(service: HomeService, user: str, skip: int, k: int) -> dict[str, Any]:
    """A page of it, newest first."""
    found = service.history(user)
    newest = [{"item_id": item, "title": title, "behavior": behaviour} for item, title, behaviour in reversed(found)]
    return {"total": len(found), "events": newest[skip : skip + k]}


def _about(service: HomeService) -> dict[str, Any]:
    serving = service.serving
    engine = serving.engine
    return {
        "domain": serving.domain.name,
        "model": engine.version,
        "items": len(engine),
        "users": len(serving.domain.interactions.user_ids),
        "interactions": len(serving.domain.interactions),
        "protocol": serving.kept.protocol,
        "behaviours": BEHAVIOURS,
        "attributes": engine.attributes.columns,
        "search": "exact" if engine.index.exact else "approximate",
    }
