"""What a domain that serves keeps from whom: rules, their file while it serves, complaints and what becomes of them."""

import json
import shutil
import threading
import time

import pytest
from starlette.testclient import TestClient
from support.tiny_home import make_home

from client.http_api import application
from client.journal import HARMFUL, HIDE, Event, Feedback, Journal
from client.review import queue
from client.service import HomeService, Who
from client.store import Home
from shared.catalog import NewItem
from shared.errors import ConfigError, UnknownError
from shared.policy import Wish


@pytest.fixture(scope="module")
def made(tiny_base, tiny_world, cache, tmp_path_factory):
    return make_home(tiny_base, tiny_world["video"], tmp_path_factory.mktemp("made") / "home", cache)


@pytest.fixture
def home(made, tmp_path):
    shutil.copytree(made.folder, tmp_path / "home")
    return Home(tmp_path / "home")


def serve(home, cache) -> HomeService:
    return HomeService(home, cache)


def ids(answer) -> list[str]:
    return [item.item_id for item in answer.items]


def test_what_rules_strike_stays_away_and_the_list_is_refilled(home, cache):
    plain = serve(home, cache)
    user = plain.serving.domain.interactions.user_ids[0]
    before = ids(plain.recommend(Who(user), Wish(10)))
    home.rules.write_text(f"[block]\nitems = {json.dumps(before[:3])}\n[age.16]\nitems = {json.dumps(before[3:5])}")
    service = serve(home, cache)
    for age, gone, by in ((None, 5, 2), (15, 5, 2), (16, 3, 0)):
        answer = service.recommend(Who(user), Wish(10, age=age))
        assert ids(answer)[: 10 - gone] == before[gone:]
        assert len(answer.items) == 10
        assert answer.struck == gone
        assert answer.struck_by == {"block.items": 3, **({"age.16.items": by} if by else {})}
    assert before[0] not in ids(service.recommend(Who(history=("a film",)), Wish(50)))


def test_a_new_item_is_judged_too(home, cache):
    home.rules.write_text('[block]\nwords = ["wombat"]')
    service = serve(home, cache)
    service.add_items([NewItem("n1", "All about the wombat", "All about the wombat"), NewItem("n2", "Wombats", "x")])
    shown = ids(service.recommend(Who(history=("wombat",)), Wish(1000)))
    assert "n2" in shown
    assert "n1" not in shown
    assert service.rules()["rules"] == [{"rule": "block.words", "items": 1}]
    assert "n1" not in ids(serve(home, cache).recommend(Who(history=("wombat",)), Wish(1000)))  # nor after a restart


def test_what_is_struck_is_not_found_by_words_nor_beside_what_it_is_like(home, cache):
    service = serve(home, cache)
    item = service.serving.engine.catalog.ids[4]
    beside = [one["item_id"] for one in service.item(item)["alike"]]
    total = service.search("", 0, 1)["total"]
    home.rules.write_text(f'[block]\nitems = ["{beside[0]}"]\n[age.12]\nitems = ["{beside[1]}"]')
    service.refresh_rules()
    after = [one["item_id"] for one in service.item(item)["alike"]]
    assert not {*beside[:2]} & {*after}
    assert after[: len(beside) - 2] == beside[2:]  # filled up from behind
    assert service.search("", 0, 1)["total"] == total - 2
    assert not {*beside[:2]} & {point.item_id for point in service.map().points}
    assert service.item(beside[0])["item_id"] == beside[0]  # who reviews it may look it up


def test_a_changed_file_counts_while_serving_and_a_broken_one_does_not(home, cache):
    service, said, stopped = serve(home, cache), [], threading.Event()
    user = service.serving.domain.interactions.user_ids[0]
    first = ids(service.recommend(Who(user), Wish(10)))[0]
    watcher = threading.Thread(target=service.watch, args=(stopped, 0.02, said.append))
    watcher.start()

    def until(words: str) -> None:
        end = time.monotonic() + 20
        while not any(words in line for line in said):
            assert time.monotonic() < end, said
            time.sleep(0.02)

    home.rules.write_text(f'[block]\nitems = ["{first}"]')
    until("block.items strikes 1")
    assert first not in ids(service.recommend(Who(user), Wish(10)))
    home.rules.write_text("[block]\nitem = 3")
    until("cannot serve the new rules, the old ones stay")
    assert first not in ids(service.recommend(Who(user), Wish(10)))
    home.rules.unlink()
    until("is gone; put it back")
    assert first not in ids(service.recommend(Who(user), Wish(10)))
    home.rules.write_text("")
    until(": none")
    assert first in ids(service.recommend(Who(user), Wish(10)))
    stopped.set()
    watcher.join()
    assert not any(first in line or user in line for line in said)
    assert len(said) == 4  # each once


def test_broken_rules_do_not_start(home, cache):
    home.rules.write_text("[block]\nwords = 3")
    with pytest.raises(ConfigError, match=r"block.words: expected a list"):
        serve(home, cache)


def test_reports_wait_for_a_decision_that_lasts(home, cache):
    service = serve(home, cache)
    users = service.serving.domain.interactions.user_ids[:3]
    item = ids(service.recommend(Who(users[0]), Wish(1)))[0]
    other = ids(service.recommend(Who(users[0]), Wish(2)))[1]
    for place, user in enumerate(users):
        service.add_feedback(Feedback(user, item, HARMFUL, 100.0 + place, "scares my child" if place else ""))
    service.add_feedback(Feedback(users[0], other, HARMFUL, 90.0))
    service.add_feedback(Feedback(users[1], other, HIDE, 90.0))
    api = TestClient(application(service, "1"))
    waiting = api.get("/api/queue").json()["waiting"]
    assert [(one["item"], one["reports"], one["people"]) for one in waiting] == [(item, 3, 3), (other, 1, 1)]
    assert waiting[0]["title"] == service.serving.engine.title(service.serving.engine.item(item))
    assert [note["text"] for note in waiting[0]["notes"]] == ["scares my child"] * 2
    assert (waiting[0]["first"], waiting[0]["last"]) == (100.0, 102.0)
    assert not any(user in json.dumps(waiting) for user in users)

    assert api.post(f"/api/queue/{item}", json={"decision": "ban"}).status_code == 400
    assert api.post("/api/queue/nothing", json={"decision": "keep"}).status_code == 404
    assert api.post(f"/api/queue/{item}", json={"decision": "block"}).json()["decision"] == "block"
    assert api.post(f"/api/queue/{other}", json={"decision": "keep"}).status_code == 200
    assert api.get("/api/queue").json() == {"waiting": []}
    assert api.get("/api/rules").json()["rules"] == [{"rule": "review", "items": 1}]
    somebody = service.serving.domain.interactions.user_ids[5]
    everything = Wish(1000, seen=True)
    for now in (service, serve(home, cache)):  # at once, and after a restart
        shown = ids(now.recommend(Who(somebody), everything))
        assert item not in shown
        assert other in shown
    service.add_feedback(Feedback(users[2], item, HARMFUL, 200.0))
    assert [(one["item"], one["reports"], one["decided"]) for one in service.queue()] == [(item, 1, "block")]
    service.decide(item, "keep")
    assert item in ids(service.recommend(Who(somebody), everything))
    with pytest.raises(UnknownError):
        service.decide("nothing", "block")


def test_what_another_process_writes_is_taken_over(home, cache):
    service = serve(home, cache)
    user = service.serving.domain.interactions.user_ids[0]
    item = ids(service.recommend(Who(user), Wish(1)))[0]
    Journal(home.journal).append([Feedback(user, item, HIDE, 1.0)])  # as a command beside the server would
    service.add_events([Event(user, item, "view", time.time())])
    assert service.refresh() == service.serving.engine.version
    assert service.refresh() is None
    assert item not in ids(service.recommend(Who(user), Wish(1000, seen=True)))
    assert service.history(user)[-1][0] == item
    assert len(service.history(user)) == len(serve(home, cache).history(user))


def test_a_queue_of_nothing_is_empty(tmp_path):
    assert queue(Journal(tmp_path / "none.jsonl").entries) == []
