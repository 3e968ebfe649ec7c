"""The doors of a domain's REST API that are a reviewer's: rules, complaints, audits, what is held of one user."""

from dataclasses import asdict

from fastapi import FastAPI, Request
from fastapi.responses import Response

from client.audits import latest_or_none_there
from client.forget import STAYS
from client.service import HomeService
from shared.http import Name, Strict, told


class DecisionBody(Strict):
    decision: Name


def add_safety(app: FastAPI, service: HomeService) -> None:
    @app.get("/api/rules")
    async def rules(request: Request) -> Response:
        return told(request, service.rules())

    @app.get("/api/queue")
    def queue(request: Request) -> Response:
        return told(request, {"waiting": service.queue()})

    @app.post("/api/queue/{item_id:path}")
    def decide(item_id: str, body: DecisionBody) -> dict[str, str]:
        service.decide(item_id, body.decision)
        return {"item_id": item_id, "decision": body.decision}

    @app.get("/api/audit")
    def audit(request: Request) -> Response:
        return told(request, latest_or_none_there(service.home))

    @app.get("/api/users/{user:path}/export")
    def export(user: str, request: Request) -> Response:
        return told(request, service.export(user))

    @app.delete("/api/users/{user:path}")
    def forget(user: str, request: Request) -> Response:
        return told(request, {**asdict(service.forget(user)), "stays": STAYS})
