"""The REST door: form, limits, errors; what is recommended is not its business."""

import json
import shutil

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi.testclient import TestClient
from support.tiny_home import make_home

from client.http_api import application
from client.journal import Event
from client.passport import Border, public_book
from client.service import HomeService
from client.store import Home
from shared.errors import ConfigError
from shared.http import MOST_BYTES, listen, new_app
from shared.passport import Passport


@pytest.fixture(scope="module")
def trained(tiny_base, tiny_world, cache, tmp_path_factory):
    return make_home(tiny_base, tiny_world["video"], tmp_path_factory.mktemp("home"), cache)


@pytest.fixture
def service(trained, tmp_path, cache):
    return HomeService(Home(shutil.copytree(trained.folder, tmp_path / "home")), cache)


@pytest.fixture
def door(service):
    with TestClient(application(service, "1"), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def user(service):
    return service.serving.domain.interactions.user_ids[0]


def told(answer, status):
    """The body of a problem+json."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    return body


def test_recommendations_come_with_their_model_and_pages(door, user):
    whole = door.post("/api/recommend", json={"user": user, "k": 6}).json()
    first = door.post("/api/recommend", json={"user": user, "k": 3}).json()
    second = door.post("/api/recommend", json={"user": user, "k": 3, "skip": 3}).json()
    assert first["items"] + second["items"] == whole["items"]
    assert whole["model"] == door.get("/healthz").json()["model"]
    assert first["more"] is True


def test_a_passport_alone_or_before_a_history_changes_what_comes(door, service):
    told(door.post("/api/recommend", json={"passport": {"domain": "shop"}}), 400)  # nobody said whose count
    serving, key = service.serving, Ed25519PrivateKey.generate()
    book = public_book(serving.engine.scorer.vectors.base, 6, serving.kept.base)
    service.border = Border((key.public_key(),), book)

    def token(*codes):
        made = Passport("shop", book.fingerprint, codes, 4.0, "near-set", "2026-11-24").sign(key)
        return json.loads(made.to_bytes())

    def asked(**body):
        return door.post("/api/recommend", json={"k": 8, **body})

    one, other = (asked(passport=token(code)).json()["items"] for code in (0, 3))
    assert one != other
    mixed = asked(passport=token(0), history=["a quiet drama"]).json()["items"]
    assert mixed not in (one, asked(history=["a quiet drama"]).json()["items"])
    told(asked(passport={**token(0), "codes": [1]}), 400)
    told(asked(passport={"codes": "?"}), 400)


def test_a_batch_is_its_parts(door, user):
    asks = [{"user": user, "k": 2}, {"history": ["a quiet drama"], "k": 3}]
    found = door.post("/api/recommend/batch", json={"asks": asks}).json()["answers"]
    assert found == [door.post("/api/recommend", json=one).json() for one in asks]


def test_what_the_caller_has_is_not_sent_again(door, user, service):
    body = {"user": user, "k": 3}
    first = door.post("/api/recommend", json=body)
    again = door.post("/api/recommend", json=body, headers={"if-none-match": f'"x", {first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    service.add_events([Event(user, first.json()["items"][0]["item_id"], "view", 9.0)])
    assert door.post("/api/recommend", json=body, headers={"if-none-match": first.headers["etag"]}).status_code == 200


def test_events_items_and_feedback_are_kept_and_answered_with_201(door, user, service):
    item = service.serving.engine.catalog.ids[0]
    assert door.post("/api/items", json={"items": [{"item_id": "n", "title": "New"}]}).status_code == 201
    assert door.post("/api/events", json={"events": [{"user": user, "item": "n"}]}).json() == {"kept": 1}
    assert door.post("/api/feedback", json={"user": user, "item": item, "what": "hide"}).status_code == 201
    history = door.get(f"/api/users/{user}/history", params={"k": 1}).json()
    assert history["events"] == [{"item_id": "n", "title": "New", "behavior": "view"}]
    assert len(service.journal.entries) == 3


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/recommend", {"user": "nobody-of-that-name"}, 404),
        ("/api/recommend", {}, 400),
        ("/api/recommend", {"user": "x", "k": 0}, 422),
        ("/api/recommend", {"user": "x", "k": "ten"}, 422),
        ("/api/recommend", {"user": "x", "surprise": 1}, 422),
        ("/api/recommend", {"history": ["x"], "where": {"no such": "column"}}, 400),
        ("/api/recommend/batch", {"asks": []}, 422),
        ("/api/events", {"events": [{"user": "x", "item": "ghost"}]}, 404),
        ("/api/events", {"events": [{"user": "x", "item": "video-0001", "behavior": "stare"}]}, 400),
        ("/api/events", {"events": [{"user": "x", "item": "video-0001", "timestamp": -1}]}, 422),
        ("/api/items", {"items": [{"item_id": "video-0001", "title": "again"}]}, 409),
        ("/api/feedback", {"user": "x", "item": "video-0001", "what": "love"}, 400),
        ("/api/explain", {"item": "ghost", "history": ["x"]}, 404),
    ],
)
def test_what_cannot_be_is_told_as_a_problem_and_changes_nothing(door, service, path, body, status):
    told(door.post(path, json=body), status)
    assert not service.journal.entries


def test_no_error_repeats_who_was_asked_for_or_what_they_met(door):
    secret = "ann-of-the-secret-histories"
    answers = [
        door.post("/api/recommend", json={"user": secret}),
        door.post("/api/recommend", json={"user": secret, "k": -1}),
        door.post("/api/recommend", json={"user": 5, "history": [secret, 7]}),
        door.get(f"/api/users/{secret}/history"),
        door.post("/api/events", json={"events": [{"user": secret, "item": "ghost"}]}),
        door.post("/api/recommend", content=b'{"user": "' + secret.encode()),
    ]
    for answer in answers:
        assert 400 <= answer.status_code < 500
        assert secret not in answer.text


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"user": NaN}', b"[" * 5000, b'{"k": 1e999}']
)
def test_bytes_that_are_no_request_are_no_surprise(door, raw):
    answer = door.post("/api/recommend", content=raw, headers={"content-type": "application/json"})
    told(answer, 400 if raw.startswith(b"[[") else 422)  # too deep for the parser itself


def test_paths_and_methods_that_are_not_there(door):
    told(door.get("/api/nothing"), 404)
    told(door.get("/api/recommend"), 405)
    told(door.get("/api/items/ghost"), 404)


def test_too_large_a_request_is_refused_whether_it_says_its_length_or_not(door):
    raw = json.dumps({"history": ["x" * 1900] * 900}).encode()
    assert len(raw) > MOST_BYTES
    told(door.post("/api/recommend", content=raw), 413)
    told(door.post("/api/recommend", content=iter([raw[: len(raw) // 2], raw[len(raw) // 2 :]])), 413)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://elsewhere.example"},
        {"origin": "null"},
        {"host": "elsewhere.example"},
        {"host": "127.0.0.1.elsewhere.example"},
        {"host": "[::1"},
        {"origin": "http://["},
    ],
)
def test_another_sites_page_may_not_ask(door, user, headers):
    told(door.post("/api/recommend", json={"user": user}, headers=headers), 403)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8100", "[::1]:8100", "127.3.2.1"])
def test_names_of_this_machine_may(door, user, host):
    assert door.post("/api/recommend", json={"user": user}, headers={"host": host}).status_code == 200


def test_a_page_may_load_from_here_alone(door):
    headers = door.get("/healthz").headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_the_description_names_every_path_and_loads_nothing_from_outside(door):
    paths = door.get("/openapi.json").json()["paths"]
    assert {"/api/recommend", "/api/events", "/api/items", "/api/feedback", "/api/explain"} <= set(paths)
    assert door.get("/docs").status_code == 404


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "example.org", "127.0.0.1.example.org"])
def test_it_listens_on_this_machine_alone(host):
    with pytest.raises(ConfigError, match="is open to a network"):
        listen(new_app("x", "1", None), host, 0)


def test_ids_may_hold_a_slash(door):
    assert door.post("/api/items", json={"items": [{"item_id": "a/b", "title": "New"}]}).status_code == 201
    assert door.get("/api/items/a%2Fb").json()["item_id"] == "a/b"
    assert door.post("/api/queue/a%2Fb", json={"decision": "keep"}).json()["item_id"] == "a/b"
    assert door.post("/api/events", json={"events": [{"user": "u/1/history", "item": "a/b"}]}).status_code == 201
    assert len(door.get("/api/users/u%2F1%2Fhistory/history").json()["events"]) == 1
    assert "u/1/history" in json.dumps(door.get("/api/users/u%2F1%2Fhistory/export").json())
    assert door.delete("/api/users/u%2F1%2Fhistory").json()["journal"] == 1


def test_a_bug_is_a_problem_that_tells_nothing_of_the_request(door, service, monkeypatch):
    monkeypatch.setattr(service, "search", lambda *_: 1 / 0)
    answer = door.get("/api/items?query=secret")
    assert "secret" not in json.dumps(told(answer, 500))
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_no_id_is_nobody(door):
    for answer in (door.delete("/api/users/"), door.get("/api/users//export"), door.get("/api/items/")):
        told(answer, 404)
