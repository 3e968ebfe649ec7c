"""The privacy bound over all pairs of histories; bytes of strangers raise PayloadError or are a passport."""

import json

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from shared.errors import PayloadError
from shared.passport import (
    MAX_EPSILON,
    MECHANISMS,
    CodeBook,
    Passport,
    book_from_bytes,
    passport_from_bytes,
    probabilities,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
GOOD = Passport("shop", "a" * 64, (3, 0), 4.0, "near-set", "2026-11-24").sign(KEY)
BOOK = CodeBook(np.ones((3, 4), np.float32), "base").to_bytes()

pairs = st.integers(2, 40).flatmap(
    lambda size: st.tuples(*[npst.arrays(np.float64, size, elements=st.floats(-1, 2))] * 2)
)


@given(pairs, st.floats(0.01, MAX_EPSILON), st.sampled_from(MECHANISMS))
def test_no_history_makes_a_code_more_than_exp_epsilon_times_as_likely(utilities, epsilon, mechanism):
    one, other = (probabilities(utility, epsilon, mechanism) for utility in utilities)
    assert one.sum() == pytest.approx(1)
    assert (one > 0).all()
    assert np.abs(np.log(one) - np.log(other)).max() <= epsilon + 1e-9


def never_more_than_payload_error(raw: bytes) -> None:
    for read in (passport_from_bytes, book_from_bytes):
        try:
            read(raw)
        except PayloadError:
            continue


@given(st.binary(max_size=300))
def test_random_bytes(raw):
    never_more_than_payload_error(raw)


@given(st.sampled_from([GOOD.to_bytes(), BOOK]), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=6))
def test_mutated_bytes(raw, changes):
    damaged = bytearray(raw)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    never_more_than_payload_error(bytes(damaged))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(json.loads(GOOD.to_bytes()))), values)
def test_a_field_of_another_kind_is_refused_or_unsigned(key, value):
    found = json.loads(GOOD.to_bytes())
    if found[key] == value:
        return
    raw = json.dumps({**found, key: value}).encode()
    with pytest.raises(PayloadError):
        passport_from_bytes(raw).verify(KEY.public_key())


@given(st.lists(st.integers(0, 4095), min_size=1, max_size=16), st.floats(0.01, MAX_EPSILON), st.dates())
def test_a_passport_and_back(codes, epsilon, day):
    token = Passport("shop", "b" * 64, tuple(codes), epsilon, "exponential", day.isoformat()).sign(KEY)
    back = passport_from_bytes(token.to_bytes())
    assert back == token
    back.verify(KEY.public_key())
