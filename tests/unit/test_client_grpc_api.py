"""The domain's gRPC door: it says what the REST door says, in its own form."""

import json
import shutil

import grpc
import pytest
from fastapi.testclient import TestClient
from grpc import StatusCode
from support.open_door import opened, refused, same
from support.tiny_home import make_home

from client import bodies
from client.grpc_api import door
from client.http_api import application
from client.journal import Event
from client.service import HomeService
from client.store import Home
from shared.http import SearchBody
from shared.processes import free_port
from shared.proto import recommender_pb2 as pb
from shared.proto.recommender_pb2_grpc import HomeStub


@pytest.fixture(scope="module")
def trained(tiny_base, tiny_world, cache, tmp_path_factory):
    return make_home(tiny_base, tiny_world["video"], tmp_path_factory.mktemp("home"), cache)


@pytest.fixture
def service(trained, tmp_path, cache):
    return HomeService(Home(shutil.copytree(trained.folder, tmp_path / "home")), cache)


@pytest.fixture
def home(service):
    with opened(door(service, free_port())) as channel:
        yield HomeStub(channel)


@pytest.fixture
def rest(service):
    return TestClient(application(service, "1"))


@pytest.fixture
def user(service):
    return service.serving.domain.interactions.user_ids[0]


WISH = {"k": 4, "skip": 1, "diversity": 0.3, "popularity": -0.1, "freshness": 0.2, "age": 30, "reasons": 2}


def test_both_doors_give_the_same_answer(home, rest, user, service):
    item = service.serving.engine.catalog.ids[7]
    for who in ({"user": user}, {"history": ["video-0003", "a quiet drama"]}):
        wish = {
            **WISH,
            "without": [item],
            "seen": True,
            "where": {"genre": service.serving.engine.attributes.of_item[3][0][1]},
        }
        found = home.Recommend(pb.HomeAsk(**who, wish=wish))
        assert found.items
        same(found, rest.post("/api/recommend", json={**who, **wish}).json())
        why = {**who, "item": item, "most": 2}
        same(home.Explain(pb.HomeWhy(**why)), rest.post("/api/explain", json=why).json())
    same(home.Recommend(pb.HomeAsk(user=user)), rest.post("/api/recommend", json={"user": user}).json())
    same(home.GetItem(pb.ItemName(item=item)), rest.get(f"/api/items/{item}").json())
    page = {"query": "the", "skip": 1, "k": 2}
    same(home.SearchItems(pb.Search(**page)), rest.get("/api/items", params=page).json())
    past = {"user": user, "skip": 1, "k": 2}
    same(home.History(pb.HistoryAsk(**past)), rest.post("/api/history", json=past).json())
    same(home.About(pb.AboutAsk()), rest.get("/api/about").json())


def test_an_explanation_has_the_parts_that_are_asked_for(home, user):
    found = home.Explain(pb.HomeWhy(user=user, item="video-0007", parts=["nearest"]))
    assert found.nearest
    assert not found.because
    assert not found.HasField("words")


def test_what_comes_in_is_on_disk_and_in_the_next_answer(home, service, user):
    first = home.Recommend(pb.HomeAsk(user=user)).items[0].item_id
    assert home.AddEvents(pb.Events(events=[{"user": user, "item": first, "timestamp": 4e9}])).kept == 1
    assert home.History(pb.HistoryAsk(user=user, k=1)).events[0].item_id == first
    shown = [one.item_id for one in home.Recommend(pb.HomeAsk(user=user)).items]
    assert first not in shown
    assert home.AddFeedback(pb.Feedback(user=user, item=shown[0], what="hide")).kept == 1
    assert shown[0] not in [one.item_id for one in home.Recommend(pb.HomeAsk(user=user)).items]
    new = {"item_id": "new", "title": "A brand new thing"}
    assert home.AddItems(pb.NewItems(items=[new])).kept == 1
    assert home.GetItem(pb.ItemName(item="new")).text == new["title"]
    kinds = [json.loads(line)["kind"] for line in service.journal.path.read_text().splitlines()]
    assert kinds == ["event", "feedback", "item"]
    assert service.journal.of(Event) == [Event(user, first, "view", 4e9)]


@pytest.mark.parametrize(
    ("call", "request_", "code", "words"),
    [
        ("Recommend", pb.HomeAsk(user="nobody"), StatusCode.NOT_FOUND, "knows no such user"),
        ("Recommend", pb.HomeAsk(), StatusCode.INVALID_ARGUMENT, "either a user or a history"),
        ("Recommend", pb.HomeAsk(user=""), StatusCode.INVALID_ARGUMENT, "user: String should have at least 1"),
        ("Recommend", pb.HomeAsk(user="x", wish={"k": 0}), StatusCode.INVALID_ARGUMENT, "k: Input should be"),
        ("Recommend", pb.HomeAsk(user="x", wish={"freshness": float("nan")}), StatusCode.INVALID_ARGUMENT, "freshness"),
        ("Recommend", pb.HomeAsk(history=["x"] * 1001), StatusCode.INVALID_ARGUMENT, "history: List should have"),
        ("Recommend", pb.HomeAsk(history=["x"], wish={"where": {"no": "x"}}), StatusCode.INVALID_ARGUMENT, "attribute"),
        ("Recommend", pb.HomeAsk(history=["x" * 1900] * 900), StatusCode.RESOURCE_EXHAUSTED, "larger than max"),
        ("Recommend", pb.HomeAsk(passport="{"), StatusCode.INVALID_ARGUMENT, "passport: Invalid JSON"),
        ("Recommend", pb.HomeAsk(passport="[" * 9000), StatusCode.INVALID_ARGUMENT, "passport: Invalid JSON"),
        ("Recommend", pb.HomeAsk(passport='{"a": 1}'), StatusCode.INVALID_ARGUMENT, "passports are not taken here"),
        ("Explain", pb.HomeWhy(history=["x"], item="ghost"), StatusCode.NOT_FOUND, "ghost"),
        ("AddEvents", pb.Events(), StatusCode.INVALID_ARGUMENT, "events: Field required"),
        ("AddEvents", pb.Events(events=[{"user": "x", "item": "ghost"}]), StatusCode.NOT_FOUND, "new items first"),
        (
            "AddItems",
            pb.NewItems(items=[{"item_id": "video-0001", "title": "x"}]),
            StatusCode.ALREADY_EXISTS,
            "already",
        ),
        ("AddFeedback", pb.Feedback(user="x", item="video-0001", what="x"), StatusCode.INVALID_ARGUMENT, "hide"),
        ("GetItem", pb.ItemName(), StatusCode.NOT_FOUND, "no item"),
        ("SearchItems", pb.Search(k=101), StatusCode.INVALID_ARGUMENT, "k: "),
        ("History", pb.HistoryAsk(user="nobody"), StatusCode.NOT_FOUND, "no such user"),
    ],
)
def test_what_cannot_be_has_its_code_and_changes_nothing(home, service, call, request_, code, words):
    assert words in refused(getattr(home, call), request_, code)
    assert not service.journal.entries


def test_a_full_disk_keeps_nothing(home, service, monkeypatch):
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("client.journal.os.fsync", full)
    told = refused(
        home.AddEvents, pb.Events(events=[{"user": "x", "item": "video-0001"}]), StatusCode.RESOURCE_EXHAUSTED
    )
    assert "nothing was kept" in told
    assert service.journal.path.read_bytes() == b""


def test_no_status_repeats_who_was_asked_for_or_what_they_met(home):
    secret = "ann-of-the-secret-histories"
    for call, request in (
        (home.Recommend, pb.HomeAsk(user=secret)),
        (home.Recommend, pb.HomeAsk(user=secret, history=[secret])),
        (home.Recommend, pb.HomeAsk(history=[secret, ""])),
        (home.History, pb.HistoryAsk(user=secret)),
        (home.AddEvents, pb.Events(events=[{"user": secret, "item": "ghost"}])),
    ):
        with pytest.raises(grpc.RpcError) as error:
            call(request)
        assert error.value.code() in (StatusCode.NOT_FOUND, StatusCode.INVALID_ARGUMENT)
        assert secret not in str(error.value)


@pytest.mark.parametrize(
    ("message", "body"),
    [
        (pb.HomeAsk, bodies.AskBody),
        (pb.HomeWhy, bodies.WhyBody),
        (pb.Event, bodies.EventBody),
        (pb.Events, bodies.EventsBody),
        (pb.NewItem, bodies.ItemBody),
        (pb.NewItems, bodies.ItemsBody),
        (pb.Feedback, bodies.FeedbackBody),
        (pb.HistoryAsk, bodies.HistoryBody),
        (pb.Search, SearchBody),
    ],
)
def test_messages_have_the_fields_of_the_bodies(message, body):
    names = {one.name for one in message.DESCRIPTOR.fields}
    if "wish" in names:
        names = names - {"wish"} | {one.name for one in pb.Wish.DESCRIPTOR.fields}
    assert names == set(body.model_fields)
