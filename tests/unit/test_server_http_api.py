"""The server's REST door: what goes in and comes out, and that it tells nothing of what was asked."""

import json

import pytest
from fastapi.testclient import TestClient
from support.fake_member import NAMES, FakeMember, carry_for, fake_plan, fake_start
from support.tiny_federation import begin_run, published
from support.tiny_members import tiny_plan

from server import registry
from server.aggregate import weighted_mean
from server.http_api import application
from server.rounds import ServerState, step
from server.service import CrossDomain


@pytest.fixture(scope="module")
def service(tiny_world, tiny_base, cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("door")
    begin_run(folder / "run", tiny_plan(tiny_base))
    two = {name: tiny_world[name] for name in ("video", "shop")}
    return CrossDomain(folder / "run", published(two, folder / "out"), cache)


@pytest.fixture
def door(service):
    with TestClient(application(service, "test"), raise_server_exceptions=False) as client:
        yield client


HISTORY = [{"domain": "video", "item": "video-0001"}, {"text": "a tale of two cities"}]


def test_answers_of_each_domain_and_a_blend(door, service):
    found = door.post("/api/recommend", json={"history": HISTORY, "k": 3, "reasons": 2}).json()
    assert found["model"] == service.state.version
    assert [(one["domain"], len(one["items"])) for one in found["answers"]] == [("video", 3), ("shop", 3)]
    assert [one["domain"] for one in found["blend"]] == ["video", "shop", "video"]
    assert found["blend"][0]["item"] == found["answers"][0]["items"][0]
    ids = [item["item_id"] for item in found["answers"][0]["items"]]
    assert "video-0001" not in ids
    page = door.post("/api/recommend", json={"history": HISTORY, "k": 2, "skip": 1, "domains": ["video"]}).json()
    assert [item["item_id"] for item in page["answers"][0]["items"]] == ids[1:]
    batch = door.post("/api/recommend/batch", json={"asks": [{"history": HISTORY, "k": 3, "reasons": 2}] * 2}).json()
    assert batch["answers"] == [found, found]


def test_an_answer_that_one_has_already_is_not_sent_again(door):
    first = door.post("/api/recommend", json={"history": HISTORY})
    again = door.post("/api/recommend", json={"history": HISTORY}, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_other_calls(door, service):
    assert door.get("/healthz").json() == {"status": "ok", "model": service.state.version, "round": 0}
    about = door.get("/api/about").json()
    assert [(one["name"], one["items"]) for one in about["domains"]] == [("video", 60), ("shop", 60)]
    assert "genre" in about["domains"][0]["attributes"]
    why = door.post("/api/explain", json={"history": HISTORY, "domain": "shop", "item": "shop-0004"}).json()
    assert why["item_id"] == "shop-0004"
    assert {one["title"] for one in why["because"]} <= {service.state.engines["video"].title(1), HISTORY[1]["text"]}
    page = door.get("/api/items", params={"domain": "shop", "k": 2}).json()
    assert (page["total"], [one["item_id"] for one in page["items"]]) == (60, ["shop-0000", "shop-0001"])
    assert door.get("/api/items/shop/shop-0003").json()["domain"] == "shop"
    assert door.get("/api/exposure").json()["answers"] >= 0
    assert "/api/recommend" in door.get("/openapi.json").json()["paths"]


def test_a_new_item_is_served_at_once(door):
    new = {"item_id": "new/1?", "title": "A Brand New Thing"}
    assert door.post("/api/items", json={"domain": "shop", "items": [new]}).json() == {"kept": 1}
    assert door.get("/api/items/shop/new%2F1%3F").json()["title"] == "A Brand New Thing"
    ask = {"history": [{"text": "A Brand New Thing"}], "domains": ["shop"], "seen": True, "k": 100}
    assert "new/1?" in [item["item_id"] for item in door.post("/api/recommend", json=ask).json()["answers"][0]["items"]]
    assert door.post("/api/items", json={"domain": "shop", "items": [new]}).status_code == 409


@pytest.mark.parametrize(
    ("call", "body", "status"),
    [
        ("recommend", {"history": [{"domain": "shoes", "item": "x"}]}, 404),
        ("recommend", {"history": [{"domain": "video", "item": "x"}]}, 404),
        ("recommend", {"history": [{}]}, 400),
        ("recommend", {"history": [{"text": "   "}]}, 400),
        ("recommend", {"history": [], "domains": ["shoes"]}, 404),
        ("recommend", {"history": [], "domains": []}, 422),
        ("recommend", {"history": [], "where": {"colour": "red"}}, 400),
        ("recommend", {"history": [], "popularity": 1}, 400),
        ("recommend", {"history": [], "k": 0}, 422),
        ("recommend", {"history": [{"text": "x", "user": "u1"}]}, 422),
        ("recommend", {"history": [{"text": "x"}] * 1001}, 422),
        ("recommend", {"history": [{"text": "x" * 2001}]}, 422),
        ("recommend/batch", {"asks": []}, 422),
        ("explain", {"history": [], "domain": "video", "item": "nothing"}, 404),
        ("items", {"domain": "shoes", "items": [{"item_id": "1", "title": "x"}]}, 404),
        ("items", {"domain": "shop", "items": []}, 422),
    ],
)
def test_what_cannot_be_is_a_problem_with_its_reason(door, call, body, status):
    found = door.post(f"/api/{call}", json=body)
    assert found.status_code == status
    assert found.headers["content-type"] == "application/problem+json"
    assert found.json()["status"] == status


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"\xff\xff", b"[1, 2]", b'{"history": [{"text": "\\ud800"}]}', b'{"k": 1e999}', b"[" * 5000]
)
def test_malformed_bytes_are_no_failure_of_ours(door, raw):
    found = door.post("/api/recommend", content=raw, headers={"content-type": "application/json"})
    assert 400 <= found.status_code < 500


def test_a_refusal_repeats_nothing_of_a_history(door):
    found = door.post("/api/recommend", json={"history": [{"text": ["zebra-taste"]}], "k": "zebra-taste"})
    assert found.status_code == 422
    assert "zebra" not in found.text


def test_another_sites_page_may_not_ask(door):
    for headers in ({"origin": "https://evil.example"}, {"host": "evil.example"}):
        assert door.post("/api/recommend", json={"history": []}, headers=headers).status_code == 403


def test_the_federation_at_a_glance_without_a_catalogue(tmp_path, cache):
    state = ServerState(1, fake_plan(3), *fake_start(fake_plan()))
    registry.begin(tmp_path, state)
    state = step(state, carry_for({name: FakeMember(name) for name in NAMES}), weighted_mean(4096))
    registry.save_state(tmp_path, registry.with_report(state, failed={"slow": "no answer within 60 s"}))
    registry.append_round(tmp_path, registry.with_report(state, failed={"slow": "no answer within 60 s"}).report)
    with TestClient(application(CrossDomain(tmp_path, [], cache), "test")) as door:
        found = door.get("/api/federation").json()
        assert door.post("/api/recommend", json={"history": []}).status_code == 404
    assert (found["state"], found["rounds_done"], found["plan"]["family"]) == ("stopped", 1, "ffa")
    assert [one["name"] for one in found["domains"]] == sorted([*NAMES, "slow"])
    assert found["domains"][2]["refused"] == [{"round": 1, "reason": "no answer within 60 s"}]
    assert json.dumps(found["rounds"][0]["domains"]) == '["book", "music", "video"]'
    assert found["affinity"] is None
