"""The domain's REST door: its own users, by id; what comes in; nothing that decides what is recommended."""

import asyncio
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.responses import RedirectResponse, Response

from client.bodies import (
    BatchBody,
    EventsBody,
    FeedbackBody,
    HistoryBody,
    ItemsBody,
    PlaceBody,
    WhoBody,
    WhyBody,
)
from client.budget import spending
from client.http_safety import add_safety
from client.service import HomeService
from shared.http import Live, SearchBody, new_app, told

PAGES = Path(__file__).parent / "web"


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
        texts = "ready" if service.serving.model.loaded else "loading"  # the encoder comes seconds after the rest
        return {"status": "ok", "model": service.serving.engine.version, "texts": texts}

    @app.get("/api/about")
    async def about(request: Request) -> Response:
        return told(request, service.about())

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
        return told(request, service.explanation(body.who(), body.item, body.most, body.parts))

    @app.get("/api/map")
    def items_map(request: Request) -> Response:
        return told(request, service.map())

    @app.post("/api/map")
    def place(body: PlaceBody, request: Request) -> Response:
        x, y = service.place(body.who())
        return told(request, {"x": x, "y": y})

    @app.post("/api/events", status_code=201)
    def events(body: EventsBody) -> dict[str, int]:
        found = body.found()
        service.add_events(found)
        return {"kept": len(found)}

    @app.post("/api/items", status_code=201)
    def items(body: ItemsBody) -> dict[str, int]:
        service.add_items(body.found())
        return {"kept": len(body.items)}

    @app.post("/api/feedback", status_code=201)
    def feedback(body: FeedbackBody) -> dict[str, int]:
        service.add_feedback(body.found())
        return {"kept": 1}

    @app.get("/api/items")
    async def search(request: Request, ask: Annotated[SearchBody, Query()]) -> Response:
        return told(request, service.search(ask.query, ask.skip, ask.k))

    @app.get("/api/items/{item_id:path}")
    async def item(item_id: str, request: Request) -> Response:
        return told(request, service.item(item_id))

    @app.get("/api/users/{user:path}/history")
    async def history(
        user: str, request: Request, skip: int = Query(0, ge=0, le=1_000_000), k: int = Query(50, ge=1, le=1000)
    ) -> Response:
        return told(request, service.page(user, skip, k))

    @app.post("/api/history")
    async def history_of(body: HistoryBody, request: Request) -> Response:
        return told(request, service.page(body.user, body.skip, body.k))

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
