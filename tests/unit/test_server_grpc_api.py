"""The server's gRPC door: it says what the REST door says, in its own form."""

import pytest
from fastapi.testclient import TestClient
from google.protobuf.json_format import MessageToDict
from grpc import StatusCode
from support.open_door import opened, refused, same
from support.tiny_federation import begin_run, published
from support.tiny_members import tiny_plan

from server import bodies
from server.grpc_api import door
from server.http_api import application
from server.service import CrossDomain
from shared.processes import free_port
from shared.proto import recommender_pb2 as pb
from shared.proto.recommender_pb2_grpc import CrossingStub


@pytest.fixture(scope="module")
def service(tiny_world, tiny_base, cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("door")
    begin_run(folder / "run", tiny_plan(tiny_base))
    two = {name: tiny_world[name] for name in ("video", "shop")}
    return CrossDomain(folder / "run", published(two, folder / "out"), cache)


@pytest.fixture(scope="module")
def crossing(service):
    with opened(door(service, free_port())) as channel:
        yield CrossingStub(channel)


@pytest.fixture(scope="module")
def rest(service):
    return TestClient(application(service, "1"))


def spelt(message):
    """As REST spells it, every field there."""
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


HISTORY = [{"domain": "video", "item": "video-0001"}, {"text": "a tale of two cities"}]


@pytest.mark.parametrize("more", [{}, {"domains": ["shop"]}])
def test_both_doors_give_the_same_answer(crossing, rest, more):
    wish = {"k": 3, "reasons": 2, "diversity": 0.2}
    found = spelt(crossing.Recommend(pb.CrossAsk(history=HISTORY, wish=wish, **more)))
    assert found == rest.post("/api/recommend", json={"history": HISTORY, **wish, **more}).json()
    assert found["blend"]


def test_the_other_calls_say_the_same_too(crossing, rest):
    why = {"history": HISTORY, "domain": "shop", "item": "shop-0004", "most": 2}
    same(crossing.Explain(pb.CrossWhy(**why)), rest.post("/api/explain", json=why).json())
    item = spelt(crossing.GetItem(pb.CrossItemName(domain="shop", item="shop-0004")))
    for one in item["alike"]:
        assert one.pop("domain") == ""
    assert item == rest.get("/api/items/shop/shop-0004").json()
    for page in ({"k": 2}, {"domain": "shop", "query": "the", "skip": 1, "k": 2}):
        assert spelt(crossing.SearchItems(pb.CrossSearch(**page))) == rest.get("/api/items", params=page).json()
    about = spelt(crossing.About(pb.AboutAsk()))
    for domain in about["domains"]:
        domain["items"] = int(domain["items"])  # 64 bits are a string in protobuf's JSON
    assert about == rest.get("/api/about").json()


def test_a_new_item_is_served_at_once(crossing):
    new = pb.NewCrossItems(domain="shop", items=[{"item_id": "new", "title": "A Brand New Thing"}])
    assert crossing.AddItems(new).kept == 1
    assert crossing.GetItem(pb.CrossItemName(domain="shop", item="new")).title == "A Brand New Thing"
    assert "already" in refused(crossing.AddItems, new, StatusCode.ALREADY_EXISTS)


@pytest.mark.parametrize(
    ("call", "request_", "code", "words"),
    [
        ("Recommend", pb.CrossAsk(history=[{}]), StatusCode.INVALID_ARGUMENT, "an item or a text"),
        ("Recommend", pb.CrossAsk(domains=["none"]), StatusCode.NOT_FOUND, "it has video, shop"),
        ("Recommend", pb.CrossAsk(wish={"k": 1001}), StatusCode.INVALID_ARGUMENT, "k: "),
        ("Recommend", pb.CrossAsk(wish={"popularity": 1}), StatusCode.INVALID_ARGUMENT, "publish --popularity"),
        ("Explain", pb.CrossWhy(domain="shop"), StatusCode.INVALID_ARGUMENT, "item: Field required"),
        ("GetItem", pb.CrossItemName(domain="shop", item="ghost"), StatusCode.NOT_FOUND, "no item"),
        ("SearchItems", pb.CrossSearch(k=0), StatusCode.INVALID_ARGUMENT, "k: "),
    ],
)
def test_what_cannot_be_has_its_code(crossing, call, request_, code, words):
    assert words in refused(getattr(crossing, call), request_, code)


def test_an_event_that_nobody_knows_is_not_repeated(crossing):
    secret = "something only ann would look for"
    told = refused(crossing.Recommend, pb.CrossAsk(history=[{"item": secret}]), StatusCode.NOT_FOUND)
    assert secret not in told
    assert "event 1" in told


@pytest.mark.parametrize(
    ("message", "body"),
    [
        (pb.CrossAsk, bodies.AskBody),
        (pb.CrossWhy, bodies.WhyBody),
        (pb.CrossEvent, bodies.EventBody),
        (pb.NewCrossItems, bodies.ItemsBody),
        (pb.NewItem, bodies.ItemBody),
        (pb.CrossSearch, bodies.CatalogSearchBody),
    ],
)
def test_messages_have_the_fields_of_the_bodies(message, body):
    names = {one.name for one in message.DESCRIPTOR.fields}
    if "wish" in names:
        names = names - {"wish"} | {one.name for one in pb.Wish.DESCRIPTOR.fields}
    assert names == set(body.model_fields)
