"""What comes in changes the next answer, outlives the process, and never tears an answer in two."""

import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from support.tiny_home import make_home

from client.journal import HARMFUL, HIDE, WHY, Event, Feedback
from client.service import HomeService, Who
from client.store import keep, load
from shared.catalog import NewItem
from shared.errors import ConfigError, DataError, UnknownError
from shared.model import adapter_tensors
from shared.policy import Wish
from shared.takeover import watch


@pytest.fixture(scope="module")
def trained(tiny_base, tiny_world, cache, tmp_path_factory):
    return make_home(tiny_base, tiny_world["video"], tmp_path_factory.mktemp("home"), cache)


@pytest.fixture
def home(trained, tmp_path):
    """A copy that a test may change."""
    import shutil

    return type(trained)(shutil.copytree(trained.folder, tmp_path / "home"))


@pytest.fixture
def service(home, cache):
    return HomeService(home, cache)


@pytest.fixture
def user(service):
    return service.serving.domain.interactions.user_ids[0]


def ids(answer):
    return [item.item_id for item in answer.items]


def test_an_event_strikes_its_item_from_the_next_answer_also_after_a_restart(service, home, cache, user):
    first = ids(service.recommend(Who(user), Wish(1)))[0]
    service.add_events([Event(user, first, "view", time.time())])
    assert first not in ids(service.recommend(Who(user), Wish(50)))
    assert service.history(user)[-1] == (
        first,
        service.serving.engine.title(service.serving.engine.item(first)),
        "view",
    )
    again = HomeService(home, cache)
    assert ids(again.recommend(Who(user), Wish(50))) == ids(service.recommend(Who(user), Wish(50)))
    assert again.history(user)[-1][0] == first


def test_an_event_told_late_counts_at_its_time_now_and_after_a_restart(service, home, cache, user):
    old, new = (service.serving.engine.catalog.ids[row] for row in (2, 5))
    service.add_events([Event(user, new, "view", time.time()), Event(user, old, "view", 5.0)])
    assert service.history(user)[0][0] == old
    again = HomeService(home, cache)
    assert again.history(user) == service.history(user)
    assert ids(again.recommend(Who(user), Wish(50))) == ids(service.recommend(Who(user), Wish(50)))


def test_the_vector_moves_too_not_the_mask_alone(service, user):
    item = ids(service.recommend(Who(user), Wish(1)))[0]
    before = {one.item_id: one.score for one in service.recommend(Who(user), Wish(50)).items}
    service.add_events([Event(user, item, "buy", 5.0)])
    after = {one.item_id: one.score for one in service.recommend(Who(user), Wish(50)).items}
    assert any(before[one] != score for one, score in after.items() if one in before)


def test_a_user_whom_no_file_knows_is_known_from_the_first_event(service, home, cache):
    with pytest.raises(UnknownError, match="knows no such user"):
        service.recommend(Who("somebody new"), Wish())
    item = service.serving.engine.catalog.ids[4]
    service.add_events([Event("somebody new", item, "like", 5.0)])
    assert item not in ids(service.recommend(Who("somebody new"), Wish(50)))
    assert ids(HomeService(home, cache).recommend(Who("somebody new"), Wish(5)))


def test_of_several_events_all_are_kept_or_none(service, user):
    item = service.serving.engine.catalog.ids[0]
    before = service.history(user)
    with pytest.raises(UnknownError, match="send new items first"):
        service.add_events([Event(user, item, "view", 5.0), Event(user, "ghost", "view", 6.0)])
    with pytest.raises(ConfigError, match="expected a behaviour among"):
        service.add_events([Event(user, item, "view", 5.0), Event(user, item, "stare", 6.0)])
    assert service.history(user) == before
    assert not service.journal.entries


def test_a_new_item_is_recommended_from_its_text(service, home, cache):
    like = service.serving.engine.catalog
    text = like.texts[3]
    service.add_items([NewItem("brand-new", "Brand new", text)])
    found = service.recommend(Who(history=(like.ids[3],)), Wish(60))
    assert "brand-new" in ids(found)
    with pytest.raises(DataError, match="brand-new"):
        service.add_items([NewItem("brand-new", "Again", "again")])
    assert "brand-new" in ids(HomeService(home, cache).recommend(Who(history=(like.ids[3],)), Wish(60)))


def test_attributes_of_a_new_item_count_in_filters_and_rules(service, home, cache):
    genre = service.serving.engine.catalog.columns["genre"][3]
    new = NewItem("brand-new", "Brand new", "Brand new", {"genre": genre})
    with pytest.raises(ConfigError, match="has no attribute 'colour'; its items have genre"):
        service.add_items([replace(new, attributes={"colour": "red"})])
    service.add_items([new])
    for serving in (service, HomeService(home, cache)):  # and after a restart
        wish = Wish(60, where={"genre": genre})
        assert "brand-new" in ids(serving.recommend(Who(history=("a quiet film",)), wish))
    home.rules.write_text(f'[block]\ncategories = {{genre = ["{genre}"]}}')
    service.refresh_rules()
    service.add_items([replace(new, item_id="newer")])
    assert not {"brand-new", "newer"} & {*ids(service.recommend(Who(history=("a quiet film",)), Wish(60)))}


@pytest.mark.parametrize(("what", "stays"), [(HIDE, False), (HARMFUL, False), (WHY, True)])
def test_feedback_acts_on_the_next_answer_of_that_user_alone(service, home, cache, what, stays):
    one, two = service.serving.domain.interactions.user_ids[:2]
    item = next(
        i for i in ids(service.recommend(Who(one), Wish(50))) if i in ids(service.recommend(Who(two), Wish(50)))
    )
    service.add_feedback(Feedback(one, item, what, 5.0))
    assert (item in ids(service.recommend(Who(one), Wish(50)))) == stays
    assert item in ids(service.recommend(Who(two), Wish(50)))
    assert (item in ids(HomeService(home, cache).recommend(Who(one), Wish(50)))) == stays


def test_feedback_on_nothing_is_refused(service, user):
    with pytest.raises(UnknownError, match="no item 'ghost'"):
        service.add_feedback(Feedback(user, "ghost", HIDE, 5.0))


def test_either_a_user_or_a_history(service, user):
    with pytest.raises(ConfigError, match="either a user or a history"):
        service.recommend(Who(), Wish())
    with pytest.raises(ConfigError, match="either a user or a history"):
        service.recommend(Who(user, ("x",)), Wish())


def test_a_model_trained_since_is_taken_over_and_no_answer_is_of_two(service, home, user):
    """Readers ask all the time while the home's model changes places; each answer is wholly of the model it names."""
    kept = load(home)
    other = {name: value + 0.05 for name, value in kept.adapter.items()}
    truth: dict[str, list[str]] = {}
    answers, failures, stop = [], [], threading.Event()

    def ask():
        while not stop.is_set():
            try:
                answers.append(service.recommend(Who(user), Wish(8)))
            except Exception as error:
                failures.append(error)

    readers = [threading.Thread(target=ask) for _ in range(2)]
    truth[service.serving.engine.version] = ids(service.recommend(Who(user), Wish(8)))
    for reader in readers:
        reader.start()
    try:
        for adapter in (other, kept.adapter):
            keep(home, replace(kept, adapter=adapter), {})
            assert service.refresh()
            truth.setdefault(service.serving.engine.version, ids(service.recommend(Who(user), Wish(8))))
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert not failures
    assert len(truth) == 2
    assert all(ids(answer) == truth[answer.model] for answer in answers)
    assert not service.refresh()


def test_what_came_in_while_the_new_model_was_read_is_not_lost(service, home, user, monkeypatch):
    kept, item = load(home), service.serving.engine.catalog.ids[5]
    keep(home, replace(kept, adapter={name: value + 0.05 for name, value in kept.adapter.items()}), {})
    real = service._read

    def slowly(*known):
        state = real(*known)
        service.add_events([Event("late", item, "view", 5.0)])
        return state

    monkeypatch.setattr(service, "_read", slowly)
    assert service.refresh()
    assert service.history("late") == [(item, service.serving.engine.title(5), "view")]


def test_a_new_model_that_cannot_serve_is_said_once_and_the_old_one_stays(service, home, user):
    version, said = service.serving.engine.version, []
    (home.adapter).write_bytes(b"damaged")
    home.about.touch()
    stop = threading.Event()

    refreshed: list[int] = []
    real = service.refresh

    def refresh():
        refreshed.append(1)
        if len(refreshed) == 3:
            stop.set()
        return real()

    watch(refresh, service._mark, stopped=stop, every_s=0.01, say=said.append)
    assert len(refreshed) == 3
    assert len(said) == 1
    assert said[0].startswith("cannot serve the new model, the old one stays")
    assert service.recommend(Who(user), Wish()).model == version


def test_listeners_hear_what_happens_and_nobodys_name(service, user):
    heard = []
    service.listeners.append(lambda kind, data: heard.append((kind, data)))
    item = service.serving.engine.catalog.ids[0]
    service.add_events([Event(user, item, "view", 5.0)])
    service.add_items([NewItem("n1", "New", "new")])
    service.add_feedback(Feedback(user, item, HIDE, 6.0))
    assert [kind for kind, _ in heard] == ["events", "items", "feedback"]
    assert user not in str(heard)
    assert item not in str(heard)


def test_explaining_names_events_of_the_history(service, user):
    best = service.recommend(Who(user), Wish(1, reasons=3)).items[0]
    found = service.explanation(Who(user), best.item_id, 3, ["because"])
    assert found.item_id == best.item_id
    assert found.because == best.because
    assert {one.title for one in found.because} <= {title for _, title, _ in service.history(user)}


def test_what_came_in_since_is_no_part_of_what_the_model_is_tested_on(service, home, cache):
    corpus, cases = service.serving.tested()
    service.add_items([NewItem("late", "Late", "late")])
    service.add_events(
        [Event("somebody late", item, "view", time.time()) for item in (*corpus.domain.catalog.ids[:3], "late")]
    )
    again, same = HomeService(home, cache).serving.tested()
    assert len(again.space) == len(corpus.space)
    assert len(same) == len(cases)
    assert (same.targets.items == cases.targets.items).all()


def test_answers_come_before_the_encoder_and_are_the_same_after_it(home, cache, user):
    HomeService(home, cache).close()  # vectors and index are kept now
    service = HomeService(home, cache)
    engine = service.serving.engine
    early = service.recommend(Who(user), Wish())
    assert not engine.scorer.model.loaded
    service.warm()
    assert engine.scorer.model.loaded
    kept = load(home).adapter
    found = adapter_tensors(engine.scorer.model)
    assert found.keys() == kept.keys()
    assert all((found[name] == kept[name]).all() for name in kept)
    assert service.recommend(Who(user), Wish()) == early
    assert HomeService(home, cache).serving.engine.version == engine.version


def test_an_encoder_that_cannot_be_read_is_said_and_answers_go_on(home, cache, user):
    HomeService(home, cache).close()
    kept = load(home)
    name = next(name for name in kept.adapter if ".lora_B." in name)
    said: list[str] = []
    service = HomeService(home, cache, say=said.append)
    service.serving.model._waiting[name] = kept.adapter[name][:1]
    service.warm()
    assert len(said) == 1
    assert f"{name} has shape" in said[0]
    assert service.recommend(Who(user), Wish()).items


def test_what_serves_does_not_import_the_libraries_of_the_encoder():
    code = (
        "import sys, client.http_api, client.grpc_api; print({'transformers', 'peft', 'opacus'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
