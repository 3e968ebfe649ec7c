"""What must not be learnt from: by hand, a few friends and a few listeners."""

from dataclasses import replace

import numpy as np
import pytest

from client.dataset import Domain, Interactions, read_domain
from client.telltale import split_of, untold, without_telltales
from shared.catalog import Catalog
from shared.plan import Plan, PrivacyPlan


def domain(users, items, rows, times):
    """``rows``: (user, item) by name, oldest first for each user."""
    catalog = Catalog("some", tuple(items), tuple(items), tuple(items))
    data = Interactions(
        tuple(users),
        np.array([users.index(user) for user, _ in rows], np.int32),
        np.array([items.index(item) for _, item in rows], np.int32),
        np.zeros(len(rows), np.int8),
        np.array(times, np.float64),
        np.ones(len(rows), np.float32),
    )
    return Domain("some", None, catalog, data, ())


def told(found):
    return untold(found.interactions, found.catalog)


def trained(parts, items):
    return [[items[item] for item in parts.train.row(user)] for user in range(len(parts.train))]


FRIENDS = ["ann", "bob", "cyd", "dan", "eve"]
LINKS = [
    *(("ann", other) for other in ("dan", "eve", "bob", "cyd")),  # asked: bob to choose by, cyd at last
    *(("bob", other) for other in ("ann", "eve", "cyd", "dan")),
    *(("cyd", other) for other in ("ann", "bob", "dan", "eve")),
    *(("dan", other) for other in ("eve", "ann", "bob", "cyd")),
    *(("eve", other) for other in ("cyd", "dan", "ann", "bob")),
]


def test_a_friends_list_does_not_tell_the_friends_of_its_friends():
    found = domain(FRIENDS, FRIENDS, LINKS, [np.nan] * len(LINKS))
    parts = split_of(found, "loo", Plan())
    asked = {(FRIENDS[user], FRIENDS[item]) for part in (parts.valid, parts.test) for user, item in pairs(part)}
    learnt = {(user, item) for user, row in zip(FRIENDS, trained(parts, FRIENDS), strict=True) for item in row}
    histories = {
        (FRIENDS[user], FRIENDS[item])
        for part in (parts.valid, parts.test)
        for place, user in enumerate(part.users)
        for item in part.histories.row(place)
    }
    assert ("ann", "cyd") in asked
    assert not {(item, user) for user, item in asked} & (learnt | (histories - asked))
    assert any("would tell" in note for note in parts.notes)
    assert any(row for row in trained(parts, FRIENDS))


def pairs(cases):
    return [(int(user), int(cases.targets.row(place)[0])) for place, user in enumerate(cases.users)]


def test_films_numbered_as_their_viewers_are_are_no_friends():
    """User 1 and film 1 have nothing to do with each other: their "way back" is there by chance alone."""
    names = [str(number) for number in range(30)]
    rows = [(user, str((int(user) * 7 + step) % 30)) for user in names for step in range(1, 5)]
    held = {row for place, row in enumerate(rows) if place % 4 >= 2}
    assert {(item, user) for user, item in held} & (set(rows) - held)
    assert told(domain(names, names, rows, np.arange(len(rows)))).all()


def test_what_was_heard_some_time_does_not_tell_what_is_tagged_next():
    rows = [("ann", item) for item in ("a", "b", "c", "d", "a", "b", "c")]
    times = [np.nan] * 4 + [10.0, 20.0, 30.0]  # heard a to d, nobody knows when; tagged a, then b, then c
    found = domain(["ann"], list("abcd"), rows, times)
    parts = split_of(found, "loo", Plan())
    assert told(found).tolist() == [True, False, False, True, True, True, True]
    assert trained(parts, "abcd") == [["a", "d", "a"]]
    assert pairs(parts.valid) == [(0, 1)]
    assert pairs(parts.test) == [(0, 2)]


def test_who_has_too_few_events_left_tells_what_others_are_asked():
    """Of bob, whose event would tell ann's answer, two are left: he is asked nothing, and what was held out of him
    would now be learnt from and tell ann's other one."""
    rows = [("ann", other) for other in ("cyd", "dan", "eve", "bob")] + [("bob", o) for o in ("ann", "cyd", "dan")]
    rows += [("cyd", "ann"), ("dan", "ann"), ("eve", "ann"), ("cyd", "bob"), ("dan", "bob")]
    rows.sort(key=lambda row: FRIENDS.index(row[0]))
    found = domain(FRIENDS, FRIENDS, rows, [np.nan] * len(rows))
    kept = told(found)
    left = [row for row, stays in zip(rows, kept, strict=True) if stays]
    asked = {
        (FRIENDS[u], FRIENDS[i])
        for part in (split_of(found, "loo", Plan()).valid, split_of(found, "loo", Plan()).test)
        for u, i in pairs(part)
    }
    assert asked == {("ann", "eve"), ("ann", "bob")}
    assert not {("bob", "ann"), ("eve", "ann")} & set(left)
    assert ("cyd", "ann") in left


def test_nothing_is_left_out_where_times_are_known_and_items_are_nobody(tiny_world):
    for folder in tiny_world.values():
        found = read_domain(folder)
        data, notes = without_telltales(found)
        assert notes == ()
        assert data is found.interactions


def sorted_file(turn=lambda row: row):
    """Thirty users, four undated events each, in the order of the items or another."""
    chosen = [sorted((user * step) % 9 for step in (1, 2, 4, 5)) for user in (1, 2, 4, 5, 7, 8)] * 5
    users, items = [f"u{user:02}" for user in range(30)], [f"i{item}" for item in range(9)]
    rows = [(user, items[item]) for user, row in zip(users, chosen, strict=True) for item in turn(row)]
    return domain(users, items, rows, [np.nan] * len(rows)), chosen


@pytest.mark.parametrize("turn", [list, lambda row: row[::-1]])
def test_the_last_event_of_a_file_sorted_by_item_is_not_known_by_its_number(turn):
    found, chosen = sorted_file(turn)
    data, notes = without_telltales(found)
    drawn = data.items.reshape(30, 4)
    assert [sorted(row) for row in drawn.tolist()] == chosen  # each user's own
    assert 0 < np.mean(drawn[:, -1] == drawn.max(1)) < 0.6  # 1/4 by chance
    assert ["sorted by item" in note for note in notes] == [True]
    np.testing.assert_array_equal(without_telltales(found)[0].items, data.items)


def test_what_is_drawn_for_two_events_stays_whoever_comes_or_goes():
    found, _ = sorted_file()
    whole, data = without_telltales(found)[0], found.interactions
    stay = (data.users != 3) & (data.items != 5)
    columns = (data.users, data.items, data.behaviours, data.times, data.weights)
    fewer = replace(found, interactions=Interactions(data.user_ids, *(column[stay] for column in columns)))
    left = without_telltales(fewer)[0]
    stay = (whole.users != 3) & (whole.items != 5)
    assert 0 < stay.sum() < len(stay)
    np.testing.assert_array_equal(left.users, whole.users[stay])
    np.testing.assert_array_equal(left.items, whole.items[stay])


def test_a_file_in_an_order_of_its_own_keeps_it():
    found, _ = sorted_file(lambda row: [row[2], row[0], row[3], row[1]])
    data, notes = without_telltales(found)
    assert (notes, data.items.tolist()) == ((), found.interactions.items.tolist())


def test_dated_events_stay_in_the_order_of_their_dates():
    """Three of each user's four share a date, sorted by item: those may change places, and no other."""
    found, _ = sorted_file()
    times = np.tile([1.0, 2.0, 2.0, 2.0], 30)
    found = replace(found, interactions=replace(found.interactions, times=times))
    data, _ = without_telltales(found)
    assert data.times.tolist() == times.tolist()
    assert data.items.reshape(30, 4)[:, 0].tolist() == found.interactions.items.reshape(30, 4)[:, 0].tolist()
    assert data.items.tolist() != found.interactions.items.tolist()


def test_under_a_promise_what_is_learnt_of_a_user_hangs_on_nobody_else():
    friends = domain(FRIENDS, FRIENDS, LINKS, [np.nan] * len(LINKS))
    private = Plan(privacy=PrivacyPlan(epsilon=8.0))
    whole = split_of(friends, "loo", private)
    assert any("not to be trusted" in note for note in whole.notes)
    assert not any("left out" in note for note in whole.notes)
    for left in range(len(FRIENDS)):  # without one of them the others' rows are what they were
        stay = friends.interactions.users != left
        data = friends.interactions
        columns = (data.users, data.items, data.behaviours, data.times, data.weights)
        fewer = replace(friends, interactions=Interactions(data.user_ids, *(column[stay] for column in columns)))
        rows = trained(split_of(fewer, "loo", private), FRIENDS)
        assert [row for user, row in enumerate(rows) if user != left] == [
            row for user, row in enumerate(trained(whole, FRIENDS)) if user != left
        ]
