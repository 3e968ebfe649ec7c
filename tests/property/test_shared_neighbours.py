import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import shared.neighbours as neighbours_module
from shared.neighbours import from_sketch, met_together, sketch_pairs


def dense(found, count):
    """Cosines as a matrix (count, count)."""
    whole = torch.zeros(count, count)
    return whole.scatter_add(1, found.rows.long(), found.cosines).numpy()


def test_cosines_by_hand():
    # Item 0 was met by users 0, 1, 2; item 1 by users 0, 1 (by user 0 twice); item 2 by user 2; item 3 by nobody.
    found = met_together(np.array([0, 1, 2, 0, 0, 1, 2]), np.array([0, 0, 0, 1, 1, 1, 2]), 4, 3)
    wanted = np.zeros((4, 4))
    wanted[0, 1] = wanted[1, 0] = 2 / np.sqrt(3 * 2)
    wanted[0, 2] = wanted[2, 0] = 1 / np.sqrt(3 * 1)
    np.testing.assert_allclose(dense(found, 4), wanted, rtol=1e-6)


def test_only_the_nearest_are_kept():
    found = met_together(np.array([0, 1, 2, 0, 1, 2]), np.array([0, 0, 0, 1, 1, 2]), 3, 1)
    assert found.rows.tolist() == [[1], [0], [0]]
    assert found.cosines[0].item() == pytest.approx(2 / np.sqrt(6))


def test_without_events_nothing_is_near():
    found = met_together(np.zeros(0, np.int64), np.zeros(0, np.int64), 2, 5)
    assert found.cosines.tolist() == [[0, 0], [0, 0]]


events = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 8)), max_size=40)


@settings(max_examples=60, deadline=None)
@given(events, st.integers(1, 12))
def test_blocks_agree_with_counting_pairs_one_by_one(pairs, block):
    count = 9
    held = neighbours_module.BLOCK
    neighbours_module.BLOCK = block
    try:
        users, items = (np.array([pair[side] for pair in pairs], dtype=np.int64) for side in (0, 1))
        found = dense(met_together(users, items, count, count), count)
    finally:
        neighbours_module.BLOCK = held
    met = [{user for user, item in pairs if item == one} for one in range(count)]
    for one in range(count):
        for other in range(count):
            both = len(met[one] & met[other]) if one != other else 0
            wanted = both / np.sqrt(max(len(met[one]) * len(met[other]), 1))
            assert found[one, other] == pytest.approx(wanted, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(events, st.lists(st.tuples(st.integers(0, 11), st.floats(0, 1)), min_size=1, max_size=6))
def test_likeness_is_the_weighted_sum_over_the_history(pairs, history):
    count = 9
    users, items = (np.array([pair[side] for pair in pairs], dtype=np.int64) for side in (0, 1))
    found = met_together(users, items, count, 4)
    whole = dense(found, count)
    wanted = sum((weight * whole[item] for item, weight in history if item < count), np.zeros(count))
    got = found.likeness(
        torch.tensor([[item for item, _ in history]]), torch.tensor([[weight for _, weight in history]])
    )
    np.testing.assert_allclose(got[0].numpy(), wanted, atol=1e-5)
    known = [(item, weight) for item, weight in history if item < count]
    rows, alike = found.met_with(*(torch.tensor(part) for part in zip(*known, strict=True))) if known else ([], [])
    assert (np.diff(rows) > 0).all()
    sparse = np.zeros(count)
    sparse[rows] = alike
    np.testing.assert_allclose(sparse, wanted, atol=1e-5)


def columns(pairs):
    return tuple(np.array([pair[side] for pair in pairs], dtype=np.int64) for side in (0, 1))


@settings(max_examples=40, deadline=None)
@given(events)
def test_a_sketch_wider_than_the_catalogue_holds_all_neighbours(pairs):
    # Nine items in 128 buckets under four hash functions: no two items share all of their buckets.
    sizes, sketch = sketch_pairs(*columns(pairs), 9)
    exact = dense(met_together(*columns(pairs), 9, 9), 9)
    np.testing.assert_allclose(dense(from_sketch(sizes, sketch, 9), 9), exact, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(events, events, st.floats(0.01, 100))
def test_sketches_of_two_owners_add_up_and_may_be_scaled(one, two, scale):
    shifted = [(user + 100, item) for user, item in two]  # other users
    first, second, both = (sketch_pairs(*columns(part), 9) for part in (one, two, one + shifted))
    for mine, theirs, whole in zip(first, second, both, strict=True):
        np.testing.assert_allclose(mine + theirs, whole)
    scaled = from_sketch(both[0] * np.float32(scale), both[1] * np.float32(scale), 5)
    np.testing.assert_allclose(scaled.cosines, from_sketch(*both, 5).cosines, atol=1e-4)


def test_crowded_buckets_only_ever_count_too_much(monkeypatch):
    monkeypatch.setattr(neighbours_module, "WIDTH", 2)
    draw = np.random.default_rng(0)
    users, items = draw.integers(20, size=120), draw.integers(9, size=120)
    exact = dense(met_together(users, items, 9, 9), 9)
    found = dense(from_sketch(*sketch_pairs(users, items, 9), 9), 9)
    assert (found >= exact - 1e-6).all()
    assert (found > exact + 0.1).any()
    np.testing.assert_allclose(found, found.T, atol=1e-6)  # a pair is read in both items' rows, the lesser counts


def test_a_damaged_sketch_gives_no_numbers_that_are_not_finite():
    _, sketch = sketch_pairs(np.array([0, 0, 1]), np.array([0, 1, 1]), 3)
    found = from_sketch(np.array([1, -2, 0], np.float32), sketch * np.float32(-1e30), 3)
    assert torch.isfinite(found.cosines).all()
