import numpy as np
import pytest

from client.dataset import Interactions
from client.splits import Histories, split
from shared.errors import ConfigError, DataError

DAY = 86_400
NOW = 1_700_000_000


def events(*histories, times=None, behaviours=None):
    """Interactions of users 0, 1, ...: each given as a list of item rows, oldest first."""
    users = [user for user, items in enumerate(histories) for _ in items]
    items = [item for history in histories for item in history]
    return Interactions(
        tuple(f"user{n}" for n in range(len(histories))),
        np.array(users, dtype=np.int32),
        np.array(items, dtype=np.int32),
        np.array([1] * len(items) if behaviours is None else behaviours, dtype=np.int8),
        np.array([np.nan] * len(items) if times is None else times, dtype=np.float64),
        np.ones(len(items), dtype=np.float32),
    )


def rows(histories):
    return [histories.row(n).tolist() for n in range(len(histories))]


def test_loo_by_hand():
    parts = split(events([1, 2, 3, 4], [5, 6], [7, 8, 9], [2], times=range(10)), "loo")
    assert rows(parts.train) == [[1, 2], [5, 6], [7], [2]]
    assert parts.valid.users.tolist() == parts.test.users.tolist() == [0, 2]
    assert (rows(parts.valid.histories), rows(parts.valid.targets)) == ([[1, 2], [7]], [[3], [8]])
    assert (rows(parts.test.histories), rows(parts.test.targets)) == ([[1, 2, 3], [7, 8]], [[4], [9]])
    assert parts.valid.seen is None
    assert parts.test.seen is None
    assert len(parts.test) == 2
    assert any("2 users with fewer than 3 events" in note for note in parts.notes)


def test_some_cases_of_all():
    parts = split(events([1, 2, 3, 4], [5, 6, 7], [7, 8, 9], behaviours=range(10)), "loo")
    some = parts.test.take(np.array([2, 0]))
    assert some.users.tolist() == [2, 0]
    assert (rows(some.histories), rows(some.targets)) == ([[7, 8], [1, 2, 3]], [[9], [4]])
    assert some.histories.behaviours.tolist() == [7, 8, 0, 1, 2]
    assert len(parts.test.take(np.zeros(0, np.int64))) == 0


def test_loo_keeps_behaviours_beside_items():
    parts = split(events([1, 2, 3, 4], behaviours=[5, 6, 7, 8]), "loo")
    assert parts.train.behaviour_row(0).tolist() == [5, 6]
    assert parts.test.histories.behaviour_row(0).tolist() == [5, 6, 7]
    assert parts.test.targets.behaviour_row(0).tolist() == [8]


def test_a_history_of_5000_events_is_capped_to_the_most_recent():
    parts = split(events(list(range(5000)), times=np.arange(5000.0)), "loo", max_events=200)
    assert parts.train.row(0).tolist() == list(range(4798, 4998))
    assert parts.valid.histories.row(0).tolist() == list(range(4798, 4998))
    assert parts.test.histories.row(0).tolist() == list(range(4799, 4999))


def test_only_users_with_one_interaction_cannot_be_split():
    with pytest.raises(DataError, match="at least 3 interactions"):
        split(events([1], [2], [3]), "loo")
    with pytest.raises(DataError, match="use --protocol loo"):
        split(events([1], [1], times=[NOW, NOW]), "time")


def test_loo_without_times_says_whose_order_it_takes():
    assert "order: no time is known; what was read later counts as later" in split(events([1, 2, 3]), "loo").notes
    some = split(events([1, 2, 3], times=[np.nan, 1, 2]), "loo").notes
    assert any("1 events of unknown time count as each user's oldest" in note for note in some)


def time_case():
    """100 events of user 0, a day apart on items 0..99; users 1 and 2 come late."""
    times = [NOW + DAY * n for n in range(100)]
    late = [NOW + DAY * 85 + 1, NOW + DAY * 95, NOW + DAY * 96, NOW + DAY * 96 + 1, NOW + DAY * 97]
    return events(list(range(100)), [100, 100, 101, 101, 5], [7], times=[*times, *late, NOW + DAY * 98])


def test_time_by_hand():
    # 106 events: the 90 % quantile lies at place 94.5 of the sorted times 0..105, between day 93 and day 94.
    # Before it lie days 0..93 and one event of user 1 (day 85), 95 in all; their 90 % quantile, at place 84.6,
    # lies between days 84 and 85.
    parts = split(time_case(), "time", max_events=10)
    assert rows(parts.train) == [list(range(75, 85)), [], []]
    assert rows(parts.valid.seen) == [list(range(85)), [], []]
    assert rows(parts.test.seen) == [list(range(94)), [100], []]
    assert parts.valid.users.tolist() == [0, 1]
    assert rows(parts.valid.histories) == [list(range(75, 85)), []]
    assert rows(parts.valid.targets) == [list(range(85, 94)), [100]]
    assert parts.test.users.tolist() == [0, 1, 2]
    assert rows(parts.test.histories) == [list(range(84, 94)), [100], []]
    assert rows(parts.test.targets) == [list(range(94, 100)), [101, 5], [7]]  # 100 is old, 101 counts once
    assert any("3 users are asked, 1 of them without a history" in note for note in parts.notes)


def test_time_drops_rows_of_unknown_time_and_says_so():
    known = time_case()
    data = events([55, *range(100)], [100, 100, 101, 101, 5], [7], times=[np.nan, *known.times])
    parts = split(data, "time")
    assert "time: 1 events of unknown time dropped" in parts.notes
    assert 55 in parts.valid.seen.row(0)  # once, from its dated row
    assert parts.valid.seen.row(0).tolist().count(55) == 1


@pytest.mark.parametrize(
    ("times", "says"),
    [
        (None, "expected timestamps, found none"),
        ([0, 1, 2, 3], "found positions"),
        ([NOW] * 4, "both sides of the cuts"),
    ],
)
def test_time_refuses_what_has_no_dates_and_names_the_way_out(times, says):
    with pytest.raises(DataError, match=f"{says}.*--protocol loo"):
        split(events([1, 2, 3, 4], times=times), "time")


def test_an_unknown_protocol_is_a_config_error():
    with pytest.raises(ConfigError, match="expected one of loo, time, loo-99, found 'loo-1'"):
        split(events([1, 2, 3]), "loo-1")


def test_the_sampled_protocol_draws_what_a_user_never_met():
    data = events([1, 2, 3], list(range(100, 110)), *([item] for item in range(201) if item % 3))
    parts = split(data, "loo-99")
    assert parts.test.rivals.shape == (2, 99)
    for rivals, met in zip(parts.test.rivals, ({1, 2, 3}, set(range(100, 110))), strict=True):
        assert len(set(rivals)) == 99
        assert not met & set(rivals)
        assert set(rivals) <= set(data.items.tolist())  # and somebody did meet them
    assert np.array_equal(parts.test.rivals, split(data, "loo-99").test.rivals)
    assert parts.valid.rivals is None  # chosen by full ranking
    assert any("NOT comparable" in note for note in parts.notes)
    with pytest.raises(DataError, match="found 1; use loo"):
        split(events([0, 1, 2], [0, 3]), "loo-99")


def test_histories_from_lists():
    made = Histories.from_lists([[3, 1], [], [2]], [[1, 2], [], [3]])
    assert (rows(made), made.lengths.tolist(), len(made)) == ([[3, 1], [], [2]], [2, 0, 1], 3)
    assert made.behaviour_row(0).tolist() == [1, 2]
    assert Histories.from_lists([[3], [1]]).behaviours.tolist() == [0, 0]
    assert len(Histories.from_lists([])) == 0
    with pytest.raises(DataError):
        Histories.from_lists([[1, 2]], [[1]])
