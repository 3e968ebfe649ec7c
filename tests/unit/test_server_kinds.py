"""Kinds among domains, by how alike they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.kinds import FLOOR, MANY, STRUCTURE, beyond, kinds, silhouette, told


def blocks(sizes, within, across, noise=0.0, seed=0):
    """Likeness of domains of as many kinds as there are sizes; their kinds."""
    truth = np.repeat(np.arange(len(sizes)), sizes)
    alike = np.where(truth[:, None] == truth, within, across) + noise * np.random.default_rng(seed).normal(
        size=(len(truth), len(truth))
    )
    alike = (alike + alike.T) / 2
    np.fill_diagonal(alike, 1.0)
    return alike, truth


def same(labels):
    return labels[:, None] == labels


def test_a_silhouette_by_hand():
    alike = np.array([[1.0, 0.8, 0.2], [0.8, 1.0, 0.4], [0.2, 0.4, 1.0]])
    # (.8 - .2) / .8, (.8 - .4) / .8, and nothing for one that is alone.
    assert silhouette(alike, np.array([1, 1, 2])) == pytest.approx((0.75 + 0.5 + 0) / 3)
    # In the wrong place: (.2 - .8) / .8 and (.2 - .4) / .4.
    assert silhouette(alike, np.array([1, 2, 1])) == pytest.approx((-0.75 + 0 - 0.5) / 3)
    assert silhouette(-alike, np.array([1, 1, 2])) == 0  # nobody is like anybody
    assert silhouette(alike, np.ones(3, int)) == 0


def test_what_two_have_beyond_the_common_by_hand():
    alike = np.array([[9.0, 5, 3, 1], [5, 9, 2, 2], [3, 2, 9, 4], [1, 2, 4, 9]])
    found = beyond(alike)
    # 5 less the means of (3, 1) and of (2, 2), and the 4 that the two others have.
    assert found[0, 1] == pytest.approx(5 - 2 - 2 + 4)
    assert found[2, 0] == pytest.approx(3 - (5 + 1) / 2 - (2 + 4) / 2 + 2)
    assert np.array_equal(found, found.T)
    assert np.diag(found).tolist() == [0] * 4


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=12), st.floats(0, 2))
def test_nothing_is_beyond_what_each_has_with_all(own, common):
    """However much of the common a domain has."""
    own = np.array(own)
    np.testing.assert_allclose(beyond(common + own[:, None] + own[None, :]), 0, atol=1e-9)


def test_in_the_first_round_kinds_of_many_show_through_the_common_and_of_few_do_not():
    """All move one way at first: likeness itself is much the same within kinds and across."""
    alike, truth = blocks([4] * 5, 1.4, 0.95, noise=0.2)
    way = np.random.default_rng(1).normal(0, 0.2, len(truth))  # how far each has gone the common way
    alike = alike + way[:, None] + way[None, :]
    assert silhouette(alike, truth) < STRUCTURE
    assert (same(kinds(alike, first=True)) == same(truth)).all()
    few, truth = blocks([3, 3], 1.4, 0.4)
    assert len(truth) < MANY
    assert len(set(kinds(few, first=True))) == 1
    assert (same(kinds(few)) == same(truth)).all()


def test_kinds_within_kinds():
    """Two groups of two kinds each: what tells the groups apart hides the kinds."""
    alike, truth = blocks([5] * 4, 2.0, 0.0, noise=0.05)
    group = truth // 2
    alike += np.where(same(group) & ~same(truth), 1.3, 0.0)
    best = silhouette(beyond(alike), group, FLOOR)
    assert best > silhouette(beyond(alike), truth, FLOOR)
    assert (same(kinds(alike)) == same(truth)).all()


def test_five_kinds_that_are_all_rather_alike_are_told_apart():
    alike, truth = blocks([4] * 5, 1.3, 0.7, noise=0.15)
    assert alike[~same(truth)].min() > 0.3
    assert (same(kinds(alike)) == same(truth)).all()


@pytest.mark.parametrize("seed", range(5))
def test_one_kind_stays_one(seed):
    assert len(set(kinds(blocks([8], 1.2, 1.2, noise=0.2, seed=seed)[0]))) == 1


def test_strangers_are_no_kinds_and_two_domains_are_left_to_their_likeness():
    assert len(set(kinds(blocks([1, 1, 1], 1.0, 0.12, noise=0.02)[0]))) == 1
    assert kinds(np.array([[1.0, 0.1], [0.1, 1.0]])).tolist() == [1, 1]
    assert kinds(np.ones((1, 1))).tolist() == [1]
    assert len(set(kinds(np.zeros((6, 6))))) == 1


def test_a_small_owner_goes_with_its_kind():
    alike, truth = blocks([5, 4], 1.0, 0.1)
    alike[0, 1:5] = alike[1:5, 0] = 0.4  # its direction is mostly noise
    assert (same(kinds(alike)) == same(truth)).all()


def test_owners_of_few_users_are_placed_and_cut_nothing():
    """Measured: two kinds of four owners, and two small ones of the second, whose likeness strays with their noise."""
    alike = np.array(
        [
            [1.82, 0.76, 0.78, 0.86, 0.32, 0.35, 0.36, 0.34, 0.48, 0.53],
            [0.76, 1.82, 0.74, 0.78, 0.25, 0.30, 0.35, 0.35, 0.48, 0.54],
            [0.78, 0.74, 1.82, 0.75, 0.26, 0.29, 0.29, 0.26, 0.32, 0.49],
            [0.86, 0.78, 0.75, 1.82, 0.29, 0.33, 0.36, 0.35, 0.46, 0.60],
            [0.32, 0.25, 0.26, 0.29, 2.64, 0.67, 0.32, 0.50, 1.33, 1.38],
            [0.35, 0.30, 0.29, 0.33, 0.67, 2.64, 0.36, 0.42, 1.38, 1.21],
            [0.36, 0.35, 0.29, 0.36, 0.32, 0.36, 2.64, 0.77, 0.57, 0.50],
            [0.34, 0.35, 0.26, 0.35, 0.50, 0.42, 0.77, 2.64, 0.73, 0.85],
            [0.48, 0.48, 0.32, 0.46, 1.33, 1.38, 0.57, 0.73, 27.17, 3.06],
            [0.53, 0.54, 0.49, 0.60, 1.38, 1.21, 0.50, 0.85, 3.06, 7.54],
        ]
    )
    truth = np.repeat([0, 1], [4, 6])
    assert (same(kinds(alike)) == same(truth)).all()
    assert (same(kinds(alike, first=True)) == same(truth)).all()
    equal = alike.copy()
    np.fill_diagonal(equal, 1.0)
    assert len(set(kinds(equal))) == 3  # all asked: cut around the small ones


def test_who_is_not_known_yet_is_placed_anywhere_and_asked_nothing():
    alike, truth = blocks([4, 4], 1.0, 0.1)
    alike = np.pad(alike, (0, 1))  # under a promise, before its third round
    assert (same(kinds(alike)[:8]) == same(truth)).all()


@pytest.mark.parametrize("newcomers", [1, 4, 6])
def test_newcomers_are_nobodys_kin_however_many_come_at_once(newcomers):
    alike, _ = blocks([4], 0.8, 0.0)
    alike = np.pad(alike, (0, newcomers))
    assert not told(alike, kinds(alike))[4:].any()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sizes", [[4, 4, 1], [4, 4, 1, 1], [8, 8, 1]])
def test_who_has_no_kin_is_told_none_wherever_it_was_put(sizes, seed):
    alike, truth = blocks(sizes, 1.0, 0.2, noise=0.06, seed=seed)
    found = kinds(alike)
    assert (same(found) != same(truth)).any()  # put with others, whom it would spoil
    sure = told(alike, found)
    assert not (sure & ~same(truth)).any()
    large = truth < 2
    assert (sure == (same(truth) & ~np.eye(len(truth), dtype=np.bool_)))[np.ix_(large, large)].all()


def test_of_two_alone_nothing_is_told():
    alike, truth = blocks([4, 4, 2], 1.0, 0.1, noise=0.02)
    assert (same(kinds(alike)) == same(truth)).all()
    assert told(alike, truth).sum() == 2 * 4 * 3


@given(st.permutations(range(9)))
def test_the_order_of_domains_does_not_matter(order):
    alike, truth = blocks([3, 4, 2], 1.0, 0.3, noise=0.05)
    found = kinds(alike[np.ix_(order, order)])
    assert (same(found) == same(truth[list(order)])).all()


def test_a_hundred_domains():
    alike, truth = blocks([10] * 10, 0.9, 0.4, noise=0.05)
    assert (same(kinds(alike)) == same(truth)).all()
    assert silhouette(alike, truth) > STRUCTURE
