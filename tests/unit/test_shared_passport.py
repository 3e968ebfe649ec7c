"""Code books, mechanisms by hand, and passports that are not what they say."""

import json
import math
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.errors import ConfigError, PayloadError
from shared.passport import (
    MAX_BYTES,
    MAX_EPSILON,
    MECHANISMS,
    CodeBook,
    Passport,
    book_from_bytes,
    draw_codes,
    make_book,
    passport_from_bytes,
    probabilities,
    read_passport,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
TOKEN = Passport("shop", "a" * 64, (1,), 4.0, "near-set", "2026-11-24").sign(KEY)


def test_exponential_by_hand():
    # weights exp(2 * ln 2 * u / 2) = 2^u: 2, sqrt 2, 1
    weights = np.array([2, math.sqrt(2), 1])
    found = probabilities(np.array([1.0, 0.5, 0.0]), 2 * math.log(2), "exponential")
    np.testing.assert_allclose(found, weights / weights.sum())
    assert found.dtype == np.float64


def test_randomised_response_by_hand():
    # e^(ln 3) = 3 for the best of three codes, 1 for the others
    found = probabilities(np.array([0.2, 0.9, 0.9]), math.log(3), "randomised-response")
    np.testing.assert_allclose(found, [0.2, 0.6, 0.2])


def test_near_set_by_hand():
    # 6 codes, e^epsilon = 2: the best ceil(6 / 3) = 2 weigh 2 each, the other four 1
    found = probabilities(np.array([0.9, 0, 0, 0.8, 0, 0]), math.log(2), "near-set")
    np.testing.assert_allclose(found, np.array([2, 1, 1, 2, 1, 1]) / 8)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("wanted", [1.0, MAX_EPSILON])
def test_draws_keep_their_epsilon_though_they_lie_on_a_grid(mechanism, wanted):
    """A draw is a multiple of 2^-53, so a chance is a number of them: counted, for two histories that disagree."""

    def counts(best):
        ends = np.cumsum(probabilities(np.eye(8)[best], wanted, mechanism))[:-1]
        first = [0, *(math.ceil(Fraction(float(end)) * 2**53) for end in ends), 2**53]
        return [after - before for before, after in pairwise(first)]

    ratios = [math.log(one / other) for one, other in zip(counts(0), counts(7), strict=True)]
    assert max(map(abs, ratios)) < wanted + 1e-8


def test_utilities_are_clipped_and_settings_checked():
    np.testing.assert_allclose(
        probabilities(np.array([9.0, -9]), 1.0, "exponential"), probabilities(np.array([1.0, 0]), 1.0, "exponential")
    )
    for epsilon in (0.0, -1.0, math.nan, math.inf, 65.0):
        with pytest.raises(ConfigError, match="epsilon"):
            probabilities(np.zeros(3), epsilon, "exponential")
    with pytest.raises(ConfigError, match="mechanism"):
        probabilities(np.zeros(3), 1.0, "plain")


def test_codes_are_drawn_by_their_chances_and_share_epsilon():
    draw = np.random.default_rng(5)
    utilities = np.eye(3)[[1, 2]]
    codes = np.array([draw_codes(utilities, 2 * math.log(3), "randomised-response", draw.random) for _ in range(4000)])
    shares = np.stack([np.bincount(column, minlength=3) for column in codes.T]) / 4000
    np.testing.assert_allclose(shares, [[0.2, 0.6, 0.2], [0.2, 0.2, 0.6]], atol=0.03)
    assert draw_codes(utilities, 1.0, "exponential", lambda: 1 - 1e-17) == (2, 2)


def test_a_book_holds_the_middles_of_its_clusters():
    raw = torch.tensor([[5.0, 0], [5, 0.2], [0, 5], [0.2, 5]])
    book = make_book(raw, 2, "base", np.random.default_rng(1))
    found = sorted(map(tuple, book.vectors.tolist()))
    np.testing.assert_allclose(found, [(0.1, 5), (5, 0.1)], rtol=1e-6)
    assert book_from_bytes(book.to_bytes()).fingerprint == book.fingerprint
    assert replace(book, base="other").fingerprint != book.fingerprint
    with pytest.raises(ConfigError, match="2 to 4 codes"):
        make_book(raw, 5, "base", np.random.default_rng(1))
    with pytest.raises(PayloadError, match="not finite"):
        book_from_bytes(CodeBook(np.full((2, 2), np.nan, np.float32), "base").to_bytes())


@pytest.mark.parametrize(
    "change",
    [
        {"domain": "shoq"},
        {"book": "b" * 64},
        {"codes": (2,)},
        {"epsilon": 4.000001},
        {"mechanism": "exponential"},
        {"issued": "2026-11-25"},
        {"signature": "0" * 128},
        {"signature": "xyz"},
    ],
)
def test_an_altered_passport_is_refused(change):
    TOKEN.verify(KEY.public_key())
    with pytest.raises(PayloadError, match="not signed by"):
        replace(TOKEN, **change).verify(KEY.public_key())


def test_another_key_is_refused():
    with pytest.raises(PayloadError, match="not signed by"):
        TOKEN.verify(Ed25519PrivateKey.generate().public_key())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("domain", ""),
        ("domain", "a\nb"),
        ("codes", []),
        ("codes", [True]),
        ("codes", [1.0]),
        ("codes", [-1]),
        ("codes", [4096]),
        ("codes", [0] * 17),
        ("epsilon", 0),
        ("epsilon", True),
        ("epsilon", "4"),
        ("epsilon", 10**400),
        ("mechanism", ["near-set"]),
        ("issued", "20261124"),
        ("signature", "A" * 128),
        ("user", "u1"),
    ],
)
def test_a_passport_of_the_wrong_form_is_refused(key, value):
    with pytest.raises(PayloadError):
        passport_from_bytes(json.dumps({**json.loads(TOKEN.to_bytes()), key: value}).encode())


@pytest.mark.parametrize("raw", [b"", b"[]", b"[" * 4000, b"\xff", b" " * (MAX_BYTES + 1), b'{"codes": NaN}'])
def test_what_is_no_passport_is_refused(raw):
    with pytest.raises(PayloadError):
        passport_from_bytes(raw)
    doubled = TOKEN.to_bytes().replace(b'"codes": [1]', b'"codes": [2], "codes": [1]')
    with pytest.raises(PayloadError):
        passport_from_bytes(doubled)


def test_no_more_of_a_file_is_read_than_a_passport_may_hold(tmp_path):
    place = tmp_path / "p.json"
    place.write_bytes(b" " * (10 * MAX_BYTES))
    with pytest.raises(PayloadError, match=f"found {MAX_BYTES + 1}"):
        read_passport(place)
