import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from client.batches import in_order, interleave, met_before, pad, shuffled, windows
from client.splits import Histories


def test_pad_keeps_the_most_recent_events():
    histories = Histories.from_lists([[1, 2, 3], [], [4]], [[5, 6, 7], [], [8]])
    batch = pad(histories, np.array([0, 1, 2]), np.array([10, 11, 12]), longest=2)
    assert batch.items.tolist() == [[2, 3], [0, 0], [4, 0]]
    assert batch.behaviours.tolist() == [[6, 7], [0, 0], [8, 0]]
    assert batch.mask.tolist() == [[True, True], [False, False], [True, False]]
    assert batch.users.tolist() == [10, 11, 12]


def test_what_pad_cuts_off_counts_once_and_not_where_it_comes_again():
    histories = Histories.from_lists([[9, 9], [1, 2, 1, 3, 2, 4], [], [5], [6, 7, 6]])
    place, item = met_before(histories, np.array([1, 4, 2, 3, 0]), longest=2)
    assert list(zip(place.tolist(), item.tolist(), strict=True)) == [(0, 1), (0, 3)]
    place, item = met_before(histories, np.array([2, 4]), longest=1)
    assert list(zip(place.tolist(), item.tolist(), strict=True)) == [(1, 7)]


@given(st.lists(st.lists(st.integers(0, 6), max_size=12), min_size=1, max_size=6), st.integers(1, 8))
def test_what_was_met_is_in_the_batch_or_before_it(lists, longest):
    histories, rows = Histories.from_lists(lists), np.arange(len(lists))
    batch, older = pad(histories, rows, rows, longest), met_before(histories, rows, longest)
    found = list(zip(*(part.tolist() for part in older), strict=True))
    assert found == sorted(set(found))
    for row, items in enumerate(lists):
        read = set(batch.items[row][batch.mask[row]].tolist())
        before = {item for place, item in found if place == row}
        assert not read & before
        assert read | before == set(items)


def test_windows_by_hand():
    rows, users, opening = windows(Histories.from_lists([[1], [1, 2, 3, 4, 5], [], [7, 8]]), longest=2)
    # at most three events a row, neighbours share one, each later event is predicted once
    assert [rows.row(place).tolist() for place in range(len(rows))] == [[3, 4, 5], [1, 2, 3], [7, 8]]
    assert users.tolist() == [1, 1, 3]
    assert opening.tolist() == [False, True, True]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=20), st.integers(1, 8))
def test_windows_predict_every_event_but_the_first_once(lengths, longest):
    histories = Histories.from_lists([list(range(100 * user, 100 * user + n)) for user, n in enumerate(lengths)])
    rows, users, opening = windows(histories, longest)
    targets = sorted(item for place in range(len(rows)) for item in rows.row(place)[1:].tolist())
    assert targets == sorted(item for user, n in enumerate(lengths) for item in range(100 * user + 1, 100 * user + n))
    assert all(2 <= length <= longest + 1 for length in rows.lengths)
    assert all(rows.row(place)[0] // 100 == user for place, user in enumerate(users))
    assert sorted(users[opening]) == [user for user, n in enumerate(lengths) if n >= 2]


@given(st.lists(st.integers(2, 50), min_size=1, max_size=200), st.integers(1, 16), st.integers(1, 300))
def test_an_epoch_has_each_row_once_within_bounds(lengths, size, most):
    lengths = np.array(lengths)
    batches = shuffled(lengths, size, most, np.random.default_rng(0))
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    for rows in batches:
        assert len(rows) <= size
        assert len(rows) == 1 or len(rows) * lengths[rows].max() <= most


def test_blocks_and_turns():
    assert [rows.tolist() for rows in in_order(5, 2)] == [[0, 1], [2, 3], [4]]
    assert sorted(interleave([2, 0, 3], np.random.default_rng(0))) == [0, 0, 2, 2, 2]
