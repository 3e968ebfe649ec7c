"""What a domain serves from its home: its people, what is known of its items, and what it must not open."""

import gc
import math
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.tiny_home import make_home

from client.dataset import BLANK, Interactions
from client.recommend import PASSPORT, Met, People, open_serving, signals_of
from client.store import Home, Kept, keep, load
from shared.catalog import behaviour_code
from shared.errors import ConfigError, DataError, UnknownError


def events(users, items, times, ids=("ann", "bob", f"{BLANK}1")):
    users = np.array(users, np.int32)
    count = len(users)
    kinds = np.ones(count, np.int8)
    return Interactions(
        ids, users, np.array(items, np.int32), kinds, np.array(times, float), np.ones(count, np.float32)
    )


def test_popularity_is_log_counts_in_standard_deviations():
    found = signals_of(events([0, 0, 0, 1], [0, 0, 0, 1], [1, 2, 3, 4]), 3).popularity
    logs = np.log([4, 2, 1])  # 1 + counts of 3, 1, 0
    np.testing.assert_allclose(found, (logs - logs.mean()) / logs.std(), rtol=1e-6)
    # All alike: nothing to tell them apart, and no division by nothing.
    assert signals_of(events([0, 0], [0, 1], [1, 2]), 2).popularity.tolist() == [0, 0]


def test_freshness_is_the_rank_of_an_items_first_meeting():
    # First met: item 0 at 5, item 1 at 2, item 2 never, item 3 at 5 too; met again later counts for nothing.
    found = signals_of(events([0, 0, 1, 1], [0, 1, 3, 1], [5, 2, 5, 9]), 4).freshness
    assert found.tolist() == [0.5, 0, 1, 0.5]


def test_an_item_first_met_at_an_unknown_time_is_the_oldest():
    assert signals_of(events([0, 0], [1, 0], [np.nan, 7]), 2).freshness.tolist() == [1, 0]
    assert signals_of(events([], [], []), 2).freshness.tolist() == [0, 0]


def test_people_are_found_by_id_with_what_they_did():
    people = People(events([0, 0, 2, 2], [4, 1, 3, 3], [1, 2, 3, 4]))
    assert people.met("ann") == Met((4, 1), (1, 1), (1, 2))
    assert people.met("bob") == Met()
    assert people.row("bob") == 1
    # Rows without a user's id are nobody that can be asked for.
    assert people.met(f"{BLANK}1") is None
    assert people.met("eve") is None


def test_what_is_told_late_takes_its_place_in_time_and_once():
    met = Met((4, 1), (1, 1), (math.nan, 20.0))
    found = met + Met((7, 1, 7), (1, 1, 1), (10.0, 20.0, 10.0)) + Met((9,), (2,), (5.0,))
    assert (found.rows, found.behaviours) == ((4, 9, 7, 1), (1, 2, 1, 1))
    assert met + Met() is met


@pytest.fixture(scope="module")
def home(tiny_base, tiny_world, cache, tmp_path_factory):
    return make_home(tiny_base, tiny_world["video"], tmp_path_factory.mktemp("home"), cache)


@pytest.fixture(scope="module")
def serving(home, cache):
    return open_serving(home, cache)


def test_a_user_is_their_events_and_what_came_later(serving):
    user = serving.domain.interactions.user_ids[3]
    met = serving.people.met(user)
    person = serving.known(user, later=Met((8,), (1,), (9e9,)))
    assert person.past.rows.tolist() == [*met.rows, 8]
    assert person.titles[-1] == serving.engine.title(8)
    assert person.user == 3


def test_who_asked_lately_is_not_read_again_until_something_of_theirs_is_new(serving):
    one, other = serving.domain.interactions.user_ids[3:5]
    before = serving.known(one)
    assert serving.known(one).query is before.query
    assert serving.known(other).query is not before.query
    read = serving.engine.scorer.query(before.past, before.user)
    assert torch.equal(before.query.user, read.user)
    later = serving.known(one, later=Met((8,), (1,), (9e9,)))
    assert not torch.equal(later.query.user, before.query.user)
    with_places = serving.known(one, before=torch.ones(1, serving.model.dim))
    assert with_places.query is None  # made when somebody asks


def test_of_those_who_asked_lately_only_so_many_are_kept(home, cache, monkeypatch):
    monkeypatch.setattr("client.recommend.RECENT", 2)
    serving = open_serving(home, cache)
    users = serving.domain.interactions.user_ids[:3]
    first = [serving.known(user).query for user in users]
    assert serving.known(users[2]).query is first[2]
    assert serving.known(users[0]).query is not first[0]


def test_of_a_long_history_no_more_is_kept_than_the_model_reads(serving):
    most = serving.model.plan.max_history
    later = Met((8,) * (most + 40), (1,) * (most + 40), tuple(map(float, range(most + 40))))
    kept = serving.known("a stranger", later=later).query.past
    assert len(kept) == most
    assert kept.tuned.untyped_storage().nbytes() == most * serving.model.dim * 4


def test_what_no_longer_serves_is_gone_without_a_collection(home, cache):
    """At the start everything is frozen for the collector: in a cycle the first model's vectors would stay for ever."""
    serving = open_serving(home, cache)
    serving.known(serving.domain.interactions.user_ids[0])
    gone = weakref.ref(serving)
    gc.disable()
    try:
        del serving
        assert gone() is None
    finally:
        gc.enable()


def test_somebody_of_later_events_alone_has_no_residual(serving):
    person = serving.known("a stranger", later=Met((8, 2), (1, 1), (5, 6)))
    assert (person.user, person.past.rows.tolist()) == (None, [8, 2])
    with pytest.raises(UnknownError, match="knows no such user") as error:
        serving.known("a stranger")
    assert "stranger" not in str(error.value)


def test_titles_describe_somebody_and_blanks_do_not(serving):
    title = serving.engine.title(5)
    person = serving.described([" ", f" {title} ", "the sea"])
    assert person.titles == (title, "the sea")
    assert person.past.rows.tolist() == [5, -1]
    with pytest.raises(ConfigError, match="found none"):
        serving.described(["", "  "])


def test_a_passport_stands_before_all_events(serving):
    places = torch.randn(2, serving.model.dim, generator=torch.Generator().manual_seed(0))
    user = serving.domain.interactions.user_ids[3]
    led, plain = serving.known(user, places), serving.known(user)
    assert led.titles == (PASSPORT, PASSPORT, *plain.titles)
    assert led.past.behaviours[:2].tolist() == [behaviour_code("other")] * 2
    assert torch.equal(led.past.rows[2:], plain.past.rows)
    assert led.user == plain.user
    alone = serving.bearer(places)
    assert torch.equal(alone.past.tuned, places)
    shown = serving.top(alone, 5)
    assert len(shown) == 5
    assert [one.item_id for one in shown] != [one.item_id for one in serving.top(serving.bearer(-places), 5)]


def changed(home: Home, tmp_path, change) -> Home:
    """Another home with a run that was kept otherwise."""
    kept: Kept = change(load(home))
    other = Home(tmp_path / "other")
    keep(other, kept, {})
    return other


def test_a_run_on_another_base_is_refused(home, cache, tmp_path):
    other = changed(home, tmp_path, lambda kept: replace(kept, base="0" * 64))
    with pytest.raises(DataError, match="trained on another base model"):
        open_serving(other, cache)


@pytest.mark.parametrize("part", ["bias", "user.weight"])
def test_a_run_of_more_items_or_users_than_there_are_is_refused(home, cache, tmp_path, part):
    def grow(kept):
        more = torch.cat([kept.private[part], kept.private[part][:1]])
        return replace(kept, private=kept.private | {part: more})

    with pytest.raises(DataError, match="the data have changed since the run"):
        open_serving(changed(home, tmp_path, grow), cache)


def test_private_parameters_of_another_shape_are_refused(home, cache, tmp_path):
    def narrow(kept):
        return replace(kept, private=kept.private | {"user.weight": kept.private["user.weight"][:, :-1].contiguous()})

    with pytest.raises(DataError, match="the data have changed since the run"):
        open_serving(changed(home, tmp_path, narrow), cache)


def test_a_home_without_a_finished_run_says_what_to_do(cache, tmp_path):
    with pytest.raises(DataError, match=r"no finished run in .*; train or adopt first"):
        open_serving(Home(tmp_path), cache)


def test_a_forgetting_that_was_stopped_comes_first(home, cache, tmp_path):
    other = changed(home, tmp_path, lambda kept: kept)
    other.forgetting.write_text("{}")
    with pytest.raises(DataError, match="run `forget` for that user again"):
        open_serving(other, cache)
