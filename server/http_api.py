"""The server's REST door: recommendations for histories that it does not keep, and the federation at a glance."""

import threading
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import RedirectResponse, Response

from server.bodies import AskBody, BatchBody, CatalogSearchBody, ItemsBody, WhyBody
from server.glance import glance
from server.registry import current_round
from server.service import Answers, CrossDomain
from shared.http import Live, new_app, plain, told
from shared.takeover import mark_of

PAGES = Path(__file__).parent / "web"
LOOK_S = 0.5  # how often the run directory is looked at for what is told to pages


def application(service: CrossDomain, version: str) -> FastAPI:
    """All paths under /api, /healthz, and the pages."""
    app = new_app("Isthmus, across domains", version, PAGES if PAGES.is_dir() else None)
    live, stopped = Live(), threading.Event()
    service.listeners.append(live.tell)

    def begin() -> None:
        threading.Thread(target=follow, args=(service, live, stopped), name="follow", daemon=True).start()

    app.router.on_startup.append(begin)
    app.router.on_shutdown.append(stopped.set)

    @app.get("/", include_in_schema=False)
    async def start() -> Response:
        return RedirectResponse("/page/")

    @app.get("/healthz")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "model": service.state.version, "round": service.state.round}

    @app.get("/api/about")
    async def about(request: Request) -> Response:
        return told(request, service.about())

    # In a thread: plain words pass through the encoder, tens of milliseconds each.
    @app.post("/api/recommend")
    def recommend(body: AskBody, request: Request) -> Response:
        return told(request, spelled(service.recommend(*body.wanted())))

    @app.post("/api/recommend/batch")
    def batch(body: BatchBody, request: Request) -> Response:
        return told(request, {"answers": [spelled(service.recommend(*one.wanted())) for one in body.asks]})

    @app.post("/api/explain")
    def explain(body: WhyBody, request: Request) -> Response:
        found = service.explain(body.events(), body.domain, body.item, body.most, body.parts)
        return told(request, {"domain": body.domain, **plain(found)})

    @app.get("/api/items")
    def search(request: Request, ask: Annotated[CatalogSearchBody, Query()]) -> Response:
        return told(request, service.search(ask.domain, ask.query, ask.skip, ask.k))

    @app.get("/api/items/{domain}/{item_id:path}")
    def item(domain: str, item_id: str, request: Request) -> Response:
        return told(request, service.item(domain, item_id))

    @app.post("/api/items", status_code=201)
    def items(body: ItemsBody) -> dict[str, int]:
        service.add_items(body.domain, body.found())
        return {"kept": len(body.items)}

    @app.get("/api/federation")
    def federation(request: Request) -> Response:
        return told(request, glance(service.run_dir))

    @app.get("/api/exposure")
    def exposure(request: Request) -> Response:
        return told(request, service.shown())

    @app.get("/api/live")
    async def happening() -> Response:
        return live.response(stopped.is_set)

    return app


def spelled(found: Answers) -> dict[str, Any]:
    """As JSON has it: the blend's items with their domain beside them."""
    mixed = [{"domain": domain, "item": item} for domain, item in found.blend]
    return {"model": found.model, "answers": found.answers, "blend": mixed}


def follow(service: CrossDomain, live: Live, stopped: threading.Event) -> None:
    """Tell pages, until told to stop, that a round is done, that members came or went, that more has been shown."""
    kinds = {"current": "round", "members.json": "members", "done.json": "done", "error.json": "failed"}
    seen = {name: mark_of(service.run_dir / name) for name in kinds}
    answers = service.exposure.answers
    while not stopped.wait(LOOK_S):
        for name, kind in kinds.items():
            mark = mark_of(service.run_dir / name)
            if mark not in (None, seen[name]):
                live.tell(kind, {"round": current_round(service.run_dir)})
            seen[name] = mark
        if service.exposure.answers != answers:
            answers = service.exposure.answers
            live.tell("exposure", {"answers": answers})
