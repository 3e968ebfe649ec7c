"""Explanations through the domain's service, its REST door and its command."""

import json
import shutil
import sys

import pytest
from starlette.testclient import TestClient
from support.tiny_home import make_home
from typer.testing import CliRunner

from client.__main__ import app
from client.http_api import application
from client.projector import export_projector
from client.service import HomeService, Who
from shared.errors import ConfigError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tiny_world, tiny_base, cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("explained") / "video"
    shutil.copytree(tiny_world["video"], folder)
    users = sorted({row.split("\t")[0] for row in (folder / "video.inter").read_text().splitlines()[1:]})
    pairs = [(one, two) for one in users[:3] for two in users[3:40]]
    (folder / "video.net").write_text(
        "source_id:token\ttarget_id:token\n" + "".join(f"{one}\t{two}\n" for one, two in pairs)
    )
    return make_home(tiny_base, folder, folder.parent / "home", cache)


@pytest.fixture(scope="module")
def service(home, cache):
    return HomeService(home, cache)


def asked(service):
    """A user, and an item recommended to them."""
    from shared.policy import Wish

    user = service.serving.domain.interactions.user_ids[0]
    return user, service.recommend(Who(user), Wish(1)).items[0].item_id


def test_all_parts_of_one_explanation(service):
    user, item = asked(service)
    found = service.explanation(Who(user), item, 3)
    met = {one for one, _, _ in service.history(user)}
    assert found.item_id == item
    assert found.because
    assert [one.drop for one in found.because] == sorted((one.drop for one in found.because), reverse=True)
    assert found.words is not None
    assert found.told is None  # this user told nothing
    assert 1 <= len(found.nearest) <= 3
    assert {near.item_id for near in found.nearest} <= met
    ways = {one: service.explanation(Who(user), one, 3, ("paths",)).paths for one in service.serving.engine.catalog.ids}
    assert found.paths == ways[item]
    assert any(ways.values())
    for one, paths in ways.items():
        assert len(paths) <= 3
        for path in paths:
            assert path.steps[0].item_id in met
            assert path.steps[-1].item_id == one
    told = [service.explanation(Who(user), one, 3, ("friends",)).friends for one in service.serving.engine.catalog.ids]
    assert any(told)  # of some item enough friends tell, of none all
    assert all(one is None or 3 <= one.met < one.of for one in told)
    for rule in found.rules:
        assert rule.confidence >= rule.base


def test_only_the_parts_asked_for(service):
    user, item = asked(service)
    found = service.explanation(Who(user), item, 3, ("nearest",))
    assert found.nearest
    assert (found.because, found.words, found.paths, found.rules, found.friends) == ((), None, (), (), None)
    with pytest.raises(ConfigError, match="expected parts among because"):
        service.explanation(Who(user), item, 3, ("stars",))


def test_a_told_sentence_has_words_too(service):
    sentence = "a guitar song of love and night"
    item = service.serving.engine.catalog.ids[5]
    found = service.explanation(Who(history=(sentence,)), item, 3)
    if found.because:  # the sentence raises the score
        assert found.told.text == sentence
    assert found.nearest[0].title == sentence
    assert found.nearest[0].item_id == ""
    assert found.friends is None


def test_the_rest_door_tells_them(service):
    user, item = asked(service)
    client = TestClient(application(service, "1"))
    found = client.post("/api/explain", json={"user": user, "item": item}).json()
    assert set(found) >= {"item_id", "because", "words", "told", "paths", "rules", "friends", "nearest", "missing"}
    assert set(found["words"]) == {"text", "words", "score", "blank", "gap"}
    few = client.post("/api/explain", json={"user": user, "item": item, "parts": ["because"]}).json()
    assert few["because"] == found["because"]
    assert few["words"] is None
    wrong = client.post("/api/explain", json={"user": user, "item": item, "parts": ["stars"]})
    assert (wrong.status_code, wrong.headers["content-type"]) == (400, "application/problem+json")


def test_without_captum_the_other_parts_stand(service, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    user, item = asked(service)
    found = service.explanation(Who(user), item, 3)
    assert found.words is None
    assert ".[explain]" in found.missing
    assert found.because


def test_the_command_prints_them(home, cache, service):
    user, item = asked(service)
    words = ["--domain", "video", "--home", home.folder, "--cache", cache, "explain", "--user", user, "--item", item]
    printed = CliRunner().invoke(app, [str(word) for word in words])
    assert printed.exit_code == 0, printed.output
    assert "because of " in printed.stdout
    assert "words of its text" in printed.stdout
    assert "cosine" in printed.stdout
    as_json = CliRunner().invoke(app, [str(word) for word in [*words, "--only", "nearest,because", "--json"]])
    found = json.loads(as_json.stdout)
    assert found["item_id"] == item
    assert found["words"] is None
    wrong = CliRunner().invoke(app, [str(word) for word in [*words, "--only", "stars"]])
    assert wrong.exit_code == 2
    assert "expected parts among" in wrong.stderr


def test_the_map_has_all_items_and_a_place_for_who_asks(service):
    client = TestClient(application(service, "1"))
    found = client.get("/api/map").json()
    assert len(found["points"]) == found["items"] == len(service.serving.engine)
    assert {point["group"] for point in found["points"]} <= set(range(len(found["groups"])))
    user, item = asked(service)
    place = client.post("/api/map", json={"user": user}).json()
    told = client.post("/api/map", json={"history": [item]}).json()
    assert set(place) == {"x", "y"}
    assert place != told
    assert client.post("/api/map", json={}).status_code == 400
    assert client.post("/api/map", json={"user": "nobody"}).status_code == 404


def test_vectors_for_the_projector(home, cache, service, tmp_path):
    words = ["--domain", "video", "--home", home.folder, "--cache", cache, "export", "--projector", tmp_path / "out"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["items", "projector_config.pbtxt"]
    vectors = [
        list(map(float, line.split("\t"))) for line in (tmp_path / "out/items/vectors.tsv").read_text().splitlines()
    ]
    metadata = (tmp_path / "out/items/metadata.tsv").read_text().splitlines()
    assert len(vectors) == len(metadata) - 1 == len(service.serving.engine)
    assert vectors[3] == pytest.approx(service.serving.engine.scorer.vectors.v[3].tolist(), rel=1e-4, abs=1e-6)
    assert metadata[4].split("\t")[0] == service.serving.engine.catalog.ids[3]
    assert 'tensor_path: "items/vectors.tsv"' in (tmp_path / "out/projector_config.pbtxt").read_text()
    again = CliRunner().invoke(app, [str(word) for word in words])
    assert again.exit_code == 2
    assert "holds something already" in again.stderr


def test_users_vectors_are_written_only_on_demand(service, tmp_path):
    assert export_projector(service.serving, tmp_path / "out", users=True) == ["items", "users"]
    people = (tmp_path / "out/users/metadata.tsv").read_text().splitlines()
    assert len(people) == len(service.serving.domain.interactions.user_ids) + 1
    assert (tmp_path / "out/users").stat().st_mode & 0o077 == 0
