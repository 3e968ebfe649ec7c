"""The cross-domain recommender over catalogues that were given away, on a run of tiny members."""

import json

import pytest
import torch
from support.tiny_federation import begin_run, one_round, published
from support.tiny_members import tiny_plan

from client.dataset import read_domain
from client.rounds import DomainMember
from client.store import Home
from client.workshop import Workshop
from server import registry
from server.aggregate import aggregator_for
from server.history import Event, find, people
from server.rounds import adapter_for
from server.service import CrossDomain
from shared.catalog import NewItem
from shared.engine import read_texts
from shared.errors import ConfigError, DataError, UnknownError
from shared.policy import Wish


@pytest.fixture(scope="module")
def run(tiny_world, tiny_base, cache, tmp_path_factory):
    """(run directory, catalogues, members) after two of three rounds by affinity."""
    folder = tmp_path_factory.mktemp("federation")
    workshop = Workshop(cache)
    world = {name: tiny_world[name] for name in ("video", "news", "shop")}
    members = [
        DomainMember(read_domain(data), Home(folder / "homes" / name), workshop, simulated=True)
        for name, data in world.items()
    ]
    begin_run(folder / "run", tiny_plan(tiny_base, "federation.family=affinity", "federation.rounds=3"))
    for _ in range(2):
        one_round(folder / "run", members)
    return folder / "run", published(world, folder / "out", popularity=True), members


@pytest.fixture
def service(run, cache):
    return CrossDomain(run[0], run[1], cache)


def titled(service, domain: str, row: int = 0) -> str:
    return service.state.engines[domain].title(row)


def test_a_history_of_several_domains_is_answered_in_each(service):
    history = [
        Event(
            "video", "video-1" if "video-1" in service.state.engines["video"].catalog.row else titled(service, "video")
        ),
        Event(None, None, titled(service, "shop", 3)),
        Event(None, None, "a quiet film about the sea"),
    ]
    found = service.recommend(history, None, Wish(5, reasons=2))
    assert [answer.domain for answer in found.answers] == list(service.state.engines)
    for answer in found.answers:
        assert len(answer.items) == 5
        assert answer.model == service.state.engines[answer.domain].version
    everything = service.recommend(history, None, Wish(100))
    assert [len(answer.items) for answer in everything.answers] == [59, 60, 59]  # what was met stays away, at home
    assert [domain for domain, _ in found.blend][:2] == [answer.domain for answer in found.answers][:2]
    assert len(found.blend) == 5
    only = service.recommend(history, ["shop"], Wish(5))
    assert [one.item_id for one in only.answers[0].items] == [
        one.item_id for answer in found.answers if answer.domain == "shop" for one in answer.items
    ]


def test_an_item_of_another_domain_counts_by_its_text(service):
    """As the other domain's encoder would read it, which is the slow truth."""
    engines = service.state.engines
    row = 7
    person = people(engines, [Event("video", engines["video"].catalog.ids[row])], ["news", "video"])
    text = engines["video"].catalog.texts[row]
    plain, tuned = read_texts(engines["news"].scorer.model, [text])
    past = person["news"].past
    assert past.rows.tolist() == [-1]
    torch.testing.assert_close(past.plain, engines["news"].whitening(plain), atol=0.02, rtol=0)
    torch.testing.assert_close(past.tuned, engines["news"].whitening(tuned), atol=0.02, rtol=0)
    assert not torch.allclose(past.tuned, engines["video"].scorer.vectors.x[[row]], atol=0.1)
    assert person["video"].past.rows.tolist() == [row]
    assert person["news"].titles == (engines["video"].title(row),)


def test_a_history_longer_than_a_model_reads_still_strikes_what_was_met(service):
    engine = service.state.engines["video"]
    most = engine.scorer.model.plan.max_history
    history = [Event("video", item) for item in engine.catalog.ids[: most + 8]]
    words = [Event(text="something else")] * most
    person = people(service.state.engines, [*history, *words], ["video", "news"])
    assert set(person["video"].past.listed.tolist()) == set(range(most + 8))
    assert len(person["video"].titles) == len(person["video"].past)
    assert len(person["news"].past) == most


def test_what_cannot_be_is_told(service):
    engine = service.state.engines["video"]
    with pytest.raises(UnknownError, match="no catalogue of 'shoes'"):
        service.recommend([Event("shoes", "x")], None, Wish())
    with pytest.raises(UnknownError, match="event 2: no catalogue of video has that item"):
        service.recommend([Event(text="x"), Event("video", "nothing like it")], None, Wish())
    with pytest.raises(UnknownError, match="no catalogue of 'shoes'"):
        service.recommend([Event("video", engine.catalog.ids[0])], ["shoes"], Wish())
    with pytest.raises(ConfigError, match="item or a text"):
        Event("video", None, "  ")
    with pytest.raises(ConfigError, match="no catalogue has all of the attributes colour"):
        service.recommend([], None, Wish(where={"colour": "red"}))
    # An item with words beside it: the words count where no catalogue has the item.
    assert service.recommend([Event("video", "nothing like it", "a comedy")], ["news"], Wish(3)).answers[0].items


def test_the_same_id_in_two_catalogues_needs_its_domain(service):
    engines = dict(service.state.engines)
    for name in ("video", "news"):
        engines[name] = engines[name].with_items([NewItem("42", f"Answer {name}", "the answer")])
    with pytest.raises(ConfigError, match="each have an item of that id"):
        find(engines, Event(item="42"))
    assert list(find(engines, Event("news", "42")).rows) == ["news"]
    assert find(engines, Event(text="42")).rows == {}
    assert list(find(engines, Event(text="answer  VIDEO")).rows) == ["video"]
    assert list(find(engines, Event(text=engines["shop"].catalog.ids[5])).rows) == ["shop"]


def test_explain_search_and_item(service):
    engine = service.state.engines["video"]
    found = service.explain([Event("video", engine.catalog.ids[3])], "video", engine.title(9), 3, ["because"])
    assert found.item_id == engine.catalog.ids[engine.find(engine.title(9))]
    assert all(one.title == engine.title(3) for one in found.because)
    total = sum(len(one) for one in service.state.engines.values())
    page = service.search(None, "", 58, 4)
    assert page["total"] == total
    first, second = list(service.state.engines)[:2]
    assert [one["domain"] for one in page["items"]] == [first, first, second, second]
    assert service.search("shop", "", 0, 100)["total"] == 60
    assert service.item("video", engine.catalog.ids[2])["text"] == engine.catalog.texts[2]


def test_words_are_told_of_what_was_said_and_not_of_another_domains_item(service):
    pytest.importorskip("captum")
    said = [Event(text="a stern letter")]
    for item in service.state.engines["shop"].catalog.ids:
        found = service.explain(said, "shop", item, 2, ["words"])
        if found.told is not None:  # the sentence raises the score
            break
    assert found.told.text == "a stern letter"
    assert found.words.text == service.state.engines["shop"].catalog.texts[service.state.engines["shop"].item(item)]
    assert service.explain([Event("video", "video-0003")], "shop", item, 2, ["words"]).told is None
    with pytest.raises(ConfigError, match="expected parts among"):
        service.explain(said, "shop", item, 2, ["stars"])


def test_new_items_come_at_once_and_stay_through_a_new_adapter(run, service):
    before = service.state
    told = []
    service.listeners.append(lambda kind, data: told.append(kind))
    text = before.engines["video"].catalog.texts[4]
    service.add_items("video", [NewItem("new", "Brand new", text)])
    ask = ([Event(text=text)], ["video"], Wish(60, freshness=5.0))
    assert service.recommend(*ask).answers[0].items[0].item_id == "new"
    with pytest.raises(DataError, match="already"):
        service.add_items("video", [NewItem("new", "Brand new", text)])

    assert service.refresh() is None
    one_round(run[0], run[2])
    version = service.refresh()
    assert version == service.state.version != before.version
    assert service.state.round == before.round + 1
    after = service.recommend(*ask)
    assert after.answers[0].items[0].item_id == "new"
    assert after.model == version
    assert told == ["items", "model"]
    assert before.engines["video"].version != service.state.engines["video"].version


def test_under_affinity_each_domain_has_towers_of_its_own_on_one_encoder(run, tiny_world, cache, tmp_path):
    """A domain that took no part gets them as they were drawn."""
    stranger = published({"social": tiny_world["social"]}, tmp_path)
    engines = CrossDomain(run[0], [run[1][0], *stranger], cache).state.engines
    video, social = engines["video"].scorer.model, engines["social"].scorer.model
    assert video.top is social.top
    state = registry.load_state(run[0])
    own = adapter_for(state, aggregator_for(state.plan), "video")
    for model, adapter in ((video, own), (social, state.adapter)):
        torch.testing.assert_close(model.user.outward.weight.detach().numpy(), adapter["user.outward.weight"])
    assert not torch.equal(video.user.outward.weight, social.user.outward.weight)


def test_exposure_counts_items_alone(service):
    assert service.shown()["answers"] == 0
    service.recommend([Event(text="a secret taste")], ["video"], Wish(6))
    shown = service.shown()
    video = next(one for one in shown["domains"] if one["domain"] == "video")
    assert (shown["answers"], video["shown"], video["coverage"]) == (1, 6, 0.1)
    assert sum(video["groups"].values()) == pytest.approx(1, abs=1e-3)
    assert "secret" not in json.dumps(shown)


def test_nothing_of_a_request_is_written(run, service, tmp_path, caplog, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    marks = {path: path.stat().st_mtime_ns for path in run[0].rglob("*")}
    service.recommend([Event(text="zebra-sentence-nobody-else-says")], None, Wish(3, reasons=1))
    service.explain(
        [Event(text="zebra-sentence-nobody-else-says")], "video", titled(service, "video"), 2, ["because", "nearest"]
    )
    assert {path: path.stat().st_mtime_ns for path in run[0].rglob("*")} == marks
    assert list(tmp_path.iterdir()) == []
    assert "zebra" not in caplog.text + "".join(capfd.readouterr())


def test_what_is_no_run_or_two_of_one_name(run, cache, tmp_path):
    with pytest.raises(ConfigError, match="holds no run"):
        CrossDomain(tmp_path, run[1], cache)
    with pytest.raises(DataError, match="holds no published catalogue"):
        CrossDomain(run[0], [tmp_path], cache)
    with pytest.raises(ConfigError, match="two catalogues are both of 'video'"):
        CrossDomain(run[0], [run[1][0]] * 2, cache)


def test_without_a_catalogue_nothing_can_be_recommended(run, cache):
    service = CrossDomain(run[0], [], cache)
    assert service.about()["domains"] == []
    with pytest.raises(UnknownError, match="start it with --catalogue"):
        service.recommend([], None, Wish())
