import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from shared import secure_payload as payload
from shared.errors import PayloadError
from shared.payload import MAX_HEADER
from shared.secure_sum import (
    MOST,
    MOST_MEMBERS,
    STEP,
    Announcement,
    agree,
    circle,
    digest_of,
    from_ring,
    mask,
    opened_key,
    opened_seed,
    pair_mask,
    seal,
    shares_of,
    to_ring,
    unseal,
)

SEED = b"s" * 32


def members(count):
    """(circle, masking keys by name) of so many."""
    keys = {f"d{row:03d}": X25519PrivateKey.generate() for row in range(count)}
    public = {name: key.public_key().public_bytes_raw() for name, key in keys.items()}
    return circle([Announcement(name, "0" * 64, raw, raw, digest_of(SEED)) for name, raw in public.items()]), keys


@given(st.lists(st.floats(-MOST / 2, MOST / 2), min_size=1, max_size=6))
def test_sums_in_the_ring_are_sums(values):
    total = to_ring(np.array(values[:1]))
    for value in values[1:]:
        total = total + to_ring(np.array([value]))
    assert abs(float(from_ring(total)[0]) - sum(values)) <= len(values) * STEP


@pytest.mark.parametrize(
    ("value", "kept"), [(2 * MOST, MOST), (-2 * MOST, -MOST), (np.nan, 0), (np.inf, MOST), (-np.inf, -MOST), (1.5, 1.5)]
)
def test_what_does_not_fit_is_cut_and_tells_nobody(value, kept):
    assert from_ring(to_ring(np.array([value])))[0] == kept


def test_a_mask_is_aes_in_counter_mode():
    # SP 800-38A has its vectors under another counter; this is AES-256 of sixteen zero bytes under a key of zeros.
    assert mask(bytes(32), 2).astype("<u8").tobytes().hex() == "dc95c078a2408989ad48a21492842087"


def test_a_mask_looks_like_chance_and_no_key_gives_anothers():
    one, two = mask(bytes(32), 4096), mask(b"\1" + bytes(31), 4096)
    assert abs(np.unpackbits(one.view(np.uint8)).mean() - 0.5) < 0.005
    assert not (one == two).any()


def test_pair_masks_cancel():
    within, keys = members(3)
    one = pair_mask(keys["d000"], "d000", within.members["d001"], within, 50)
    two = pair_mask(keys["d001"], "d001", within.members["d000"], within, 50)
    assert not (one + two).any()
    assert one.any()
    other, _ = members(3)  # the same key in another circle makes another mask
    assert not (pair_mask(keys["d000"], "d000", within.members["d001"], other, 50) == one).any()


def test_a_seal_holds_for_its_use_its_ends_and_its_circle():
    within, keys = members(3)
    key = agree(keys["d000"], within.members["d001"].sealing, "pair", "d000", "d001", within)
    sealed = seal(key, b"share")
    assert (
        unseal(agree(keys["d001"], within.members["d000"].sealing, "pair", "d000", "d001", within), sealed, "d000")
        == b"share"
    )
    for use, source, target, place in (
        ("mask", "d000", "d001", within),
        ("pair", "d001", "d000", within),
        ("pair", "d000", "d001", members(3)[0]),
    ):
        with pytest.raises(PayloadError, match="'d000''s was not sealed by"):
            unseal(agree(keys["d001"], within.members["d000"].sealing, use, source, target, place), sealed, "d000")


def test_shares_open_a_secret_from_the_threshold_on():
    within, _ = members(5)
    shares = list(shares_of(SEED, "d002", within).values())
    assert (len(shares), within.threshold) == (5, 4)
    assert opened_seed(shares[1:], "d002", within) == SEED
    with pytest.raises(PayloadError, match="3 of the 4 shares"):
        opened_seed(shares[:3], "d002", within)
    for wrong in (shares[3] * 1000, altered(shares[3])):
        with pytest.raises(PayloadError, match="do not fit together"):
            opened_seed([*shares[:3], wrong], "d002", within)


def altered(share, place=-1):
    raw = bytearray(share)
    raw[place] ^= 1
    return bytes(raw)


@pytest.mark.parametrize(
    ("count", "wrong"), [(7, 0), (7, 1), (7, 4), (7, 6), (24, 0), (24, 9), (24, 16), (24, 23), (30, 14)]
)
def test_a_wrong_share_among_enough_spoils_nothing(count, wrong):
    within, keys = members(count)
    public = within.members["d002"].masking  # bits of a private key that count for nothing may come out otherwise
    for secret, right in (
        (SEED, lambda shares: opened_seed(shares, "d002", within) == SEED),
        (
            keys["d002"].private_bytes_raw(),
            lambda shares: opened_key(shares, "d002", within).public_key().public_bytes_raw() == public,
        ),
    ):
        shares = list(shares_of(secret, "d002", within).values())
        # The fifth byte is of the secret itself: what opens then has the right length, and is another.
        for bad in (altered(shares[wrong], 4), altered(shares[wrong]), b"", shares[wrong] * 2, bytes(52)):
            assert right([*shares[:wrong], bad, *shares[wrong + 1 :]])


@pytest.mark.parametrize("count", [3, 4, 5, 50, MOST_MEMBERS])
def test_all_are_each_others_peers(count):
    within, _ = members(count)
    for name in within.members:
        assert {name, *within.peers(name)} == set(within.members)
        assert len(within.peers(name)) == count - 1
    # A third may be gone; and two such groups share more than any third of them.
    assert within.threshold <= count - count // 3 or within.threshold == 3
    assert 2 * within.threshold - count > (count - 1) // 3


def test_as_many_of_the_largest_as_may_take_part_do_not_wrap_around():
    most = to_ring(np.array([MOST, -MOST]))
    total = np.sum([most] * MOST_MEMBERS, axis=0, dtype=np.uint64)
    np.testing.assert_allclose(from_ring(total), [MOST * MOST_MEMBERS, -MOST * MOST_MEMBERS])


def test_a_circle_takes_three_and_no_name_twice():
    within, _ = members(3)
    three = list(within.members.values())
    with pytest.raises(PayloadError, match="3 to 128 members, found 2"):
        circle(three[:2])
    with pytest.raises(PayloadError, match="named twice"):
        circle([*three, three[0]])


def test_messages_come_back_as_they_were():
    within, _ = members(3)
    one = within.members["d001"]
    assert payload.announcement_from(payload.announced(one)) == one
    _, head, _ = payload.unpack(payload.deal([one, one]), payload.DEAL)
    assert payload.members_from(head) == [one, one]
    _, head, _ = payload.unpack(payload.blobs(payload.DEALT, pairs={"x": b"\0\xff"}), payload.DEALT)
    assert payload.table_from(head, "pairs") == {"x": b"\0\xff"}
    numbers = np.array([0, 2**64 - 1, 10], np.uint64)  # the body may hold a line break
    np.testing.assert_array_equal(payload.numbers_from(payload.masked(numbers), 3), numbers)
    with pytest.raises(PayloadError, match="expected 4 masked numbers, found 3"):
        payload.numbers_from(payload.masked(numbers), 4)


@given(st.binary(max_size=200))
def test_foreign_bytes_are_refused_in_words(raw):
    for given_bytes in (raw, payload.MAGIC + raw, payload.MAGIC + b'{"kind": "deal", "members": ' + raw + b"}\n"):
        try:
            _, head, _ = payload.unpack(given_bytes, payload.DEAL, payload.OPEN)
            payload.members_from(head)
        except PayloadError:
            continue
        assert b"[" in raw  # an empty list, perhaps: no member in it


def test_a_task_never_looks_like_a_secure_sum():
    assert int.from_bytes(payload.MAGIC[:8], "little") > MAX_HEADER


def test_a_member_that_lies_costs_the_server_few_openings(monkeypatch):
    within, _ = members(24)
    tried, shares = [], list(shares_of(SEED, "d002", within).values())
    monkeypatch.setattr("shared.secure_sum.combine_shares", lambda some: tried.append(1) or b"")
    for came, most in ((shares, 3), (shares[:17], 8), (shares[:16], 1)):
        tried.clear()
        with pytest.raises(PayloadError, match="do not fit together"):
            opened_seed(came, "d002", within)
        assert 1 <= len(tried) <= most + 1
