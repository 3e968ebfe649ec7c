"""What one member refuses, whoever asks."""

from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from support.secure_party import CAP, Party, announcement, announcements, attendance, to_masking, to_opening

from client.secure_sum import NODE_CURVE, ec, read_identity, strangers
from shared import secure_payload as payload
from shared.errors import ConfigError, DataError, FederationError, PayloadError
from shared.secure_sum import MOST, circle, sign


@pytest.fixture
def party():
    return Party(4)


def test_a_server_that_swaps_a_key_is_caught(party):
    mine = strangers(party.names)["d001"].key  # the server's own, in the place of d001's

    def swapped(one):
        plain = replace(one, masking=one.sealing, signature=b"")
        return replace(plain, signature=mine.sign(plain.statement(), ec.ECDSA(hashes.SHA256())))

    shown = [swapped(one) if one.name == "d001" else one for one in announcements(party)]
    with pytest.raises(PayloadError, match=r"'d001'.*not signed by its node key"):
        party.members["d000"].answer(payload.deal(shown))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda shown, party: [replace(one, masking=bytes(32)) for one in shown], "not signed"),
        (lambda shown, party: shown[:2], "3 to 128 members"),
        (lambda shown, party: shown[1:], "our own keys are not among"),
        (lambda shown, party: [*shown, shown[1]], "named twice"),
        (lambda shown, party: [*shown[:1], *announcements(Party(4, party.identities))[1:]], None),
        (lambda shown, party: [*shown, *announcements(Party(5, strangers_too()))[4:]], "'d004'.*not signed"),
    ],
)
def test_whose_keys_are_taken(party, change, message):
    shown = change(announcements(party), party)
    if message is None:  # the same owners' fresh keys, of another of their attempts: it is they who signed
        party.members["d000"].answer(payload.deal(shown))
        return
    with pytest.raises(PayloadError, match=message):
        party.members["d000"].answer(payload.deal(shown))


def strangers_too():
    return strangers([f"d{row:03d}" for row in range(5)])


def test_who_was_handed_another_task_is_not_summed_with(party):
    """Or a server that lets all but one train next to nothing would read the one off the sum."""
    shown = announcements(party)
    other = announcement(party, "d002", "1" * 64)
    with pytest.raises(PayloadError, match="'d002' was handed another task than 'd000'"):
        party.members["d000"].answer(payload.deal([*shown[:2], other, shown[3]]))
    relabelled = replace(other, task="0" * 64)  # by the server
    with pytest.raises(PayloadError, match="not signed"):
        party.members["d000"].answer(payload.deal([*shown[:2], relabelled, shown[3]]))


def test_a_server_cannot_choose_a_few_of_all_that_are_known():
    party = Party(9)
    shown = announcements(party)
    with pytest.raises(PayloadError, match="5 of the 9 domains in --members take part in this sum, 6 are needed"):
        party.members["d000"].answer(payload.deal(shown[:5]))
    party.members["d000"].answer(payload.deal(shown[:6]))


def test_one_round_is_summed_with_one_set_of_members_alone(tmp_path):
    """The difference of two sums of the same numbers would be what somebody sent."""
    party = Party(5, sums=tmp_path)
    party.run()
    assert party.run().summed == tuple(party.names)  # again with the same: nothing new
    party.silent = {"announce": {"d004"}}
    with pytest.raises(FederationError):
        party.run()
    assert "to be summed with other members before" in party.told["d000"]
    party.key = "the next round"
    assert party.run().summed == tuple(party.names[:4])
    party.silent = {}
    (tmp_path / "d000").write_bytes((tmp_path / "d000").read_bytes() + b'{"torn')
    party.key = "the next round but one"
    assert party.run().summed == tuple(party.names)
    (tmp_path / "d000").write_bytes(b"damaged\n")
    with pytest.raises(DataError, match="restore the file from a backup"):
        party.run()


def test_pairs_dealt_in_another_attempt_are_refused(party):
    old = to_masking(party)
    fresh = to_masking(party)
    mixed = {**fresh["d000"], "d001": old["d000"]["d001"]}
    with pytest.raises(PayloadError, match="not sealed by"):
        party.members["d000"].answer(payload.blobs(payload.MASK, pairs=mixed))


def test_a_masking_that_broke_off_is_not_taken_again(party):
    """Shares would be held of members whose masks are not in the numbers: with those called gone, nothing covers it."""
    handed = to_masking(party)["d000"]
    with pytest.raises(PayloadError, match="not sealed by"):
        party.members["d000"].answer(payload.blobs(payload.MASK, pairs={**handed, "d003": b"spoiled"}))
    with pytest.raises(PayloadError, match="expected a task to train next"):
        party.members["d000"].answer(payload.blobs(payload.MASK, pairs={k: handed[k] for k in ("d001", "d002")}))


def test_a_round_is_remembered_before_it_is_signed(tmp_path):
    """Else two sums with other members could be opened by those who were in one of them alone."""
    party = Party(4, sums=tmp_path)
    to_opening(party)
    party.members["d000"].answer(payload.attend(attendance("0123", "")))  # and that sum never opens
    to_opening(party)
    with pytest.raises(PayloadError, match="to be summed with other members before"):
        party.members["d000"].answer(payload.attend(attendance("012", "3")))
    party.members["d000"].answer(payload.attend(attendance("0123", "")))


def test_a_noised_round_is_summed_once(tmp_path):
    """Each time has fresh noise: many times would have next to none."""
    party = Party(4, sums=tmp_path)
    party.noise = 1.0
    party.run()
    with pytest.raises(FederationError):
        party.run()
    assert "once more, under fresh noise, it would tell more than was promised" in party.told["d000"]


@pytest.mark.parametrize(
    ("at", "says"),
    [("deal", "5 members dealt"), ("mask", "5 members are there, 6 are needed"), ("attend", "5 members signed what")],
)
def test_two_thirds_of_all_that_are_known_and_not_of_those_in_the_sum(at, says):
    nine = strangers([f"d{row:03d}" for row in range(9)])
    party = Party(6, nine)
    assert len(party.run().summed) == 6
    party.silent = {at: {"d004"}}  # five of the six, which were two thirds of these
    with pytest.raises(FederationError):
        party.run()
    assert says in party.told["d000"]


def test_with_too_few_who_dealt_nothing_is_masked(party):
    handed = to_masking(party)["d000"]
    few = {name: handed[name] for name in list(handed)[:1]}  # two with itself, of four; three are needed
    with pytest.raises(PayloadError, match="2 members dealt shares, 3 are needed"):
        party.members["d000"].answer(payload.blobs(payload.MASK, pairs=few))


@pytest.mark.parametrize(
    ("there", "gone", "message"),
    [
        ("012", "3", None),
        ("0123", "", None),
        ("0123", "3", "does not fit"),  # both secrets of d003
        ("01", "23", "2 members are there, 3 are needed"),
        ("123", "0", "does not fit"),  # its own key
        ("012", "", "does not fit"),
        ("0127", "3", "does not fit"),  # somebody who is not in this sum
        ("0", "123", "1 members are there"),  # everybody else's masks with it: its update would lie open
    ],
)
def test_what_is_opened(party, there, gone, message):
    to_opening(party)
    told = attendance(there, gone)
    if message:
        with pytest.raises(PayloadError, match=message):
            party.members["d000"].answer(payload.attend(told))
        return
    _, head, _ = payload.unpack(party.members["d000"].answer(signatures(party, told)), payload.OPENED)
    seeds, keys = payload.table_from(head, "seeds"), payload.table_from(head, "keys")
    assert (sorted(seeds), sorted(keys)) == ([f"d00{row}" for row in there], [f"d00{row}" for row in gone])


def signatures(party, told, names=None):
    """All of these who are there are told the same; what any of them is handed next."""
    answers = {name: party.members[name].answer(payload.attend(told)) for name in names or sorted(told.there)}
    return payload.blobs(payload.OPEN, signatures={name: payload.signature_from(raw) for name, raw in answers.items()})


def test_signatures_that_hold_are_counted_and_no_others(party):
    to_opening(party)
    told = attendance("0123", "")
    handed = signatures(party, told)
    true = payload.table_from(payload.unpack(handed, payload.OPEN)[1], "signatures")
    for change in (
        {"d002": b"", "d003": b""},
        {"d002": true["d001"], "d003": true["d000"]},  # each under the name of another
        {
            "d002": sign(
                party.identities["d002"].key, attendance("012", "3").statement(party.members["d000"].attempt.circle)
            ),
            "d003": b"x",
        },
    ):
        with pytest.raises(PayloadError, match="2 members signed what 'd000' was told of who is there, 3 are needed"):
            party.members["d000"].answer(payload.blobs(payload.OPEN, signatures=true | change))
    party.members["d000"].answer(payload.blobs(payload.OPEN, signatures=true | {"d003": b"spoiled"}))


def test_who_is_gone_or_unknown_signs_nothing(party):
    to_opening(party)
    told = attendance("012", "3")
    true = payload.table_from(payload.unpack(signatures(party, told), payload.OPEN)[1], "signatures")
    gone = sign(party.identities["d003"].key, told.statement(party.members["d000"].attempt.circle))
    without = {name: true[name] for name in ("d000", "d001")} | {"d003": gone, "nobody": gone}
    with pytest.raises(PayloadError, match="2 members signed"):
        party.members["d000"].answer(payload.blobs(payload.OPEN, signatures=without))


def test_an_attendance_is_signed_with_all_that_it_says():
    one, other = circle(announcements(Party(4))), circle(announcements(Party(4)))
    told = attendance("012", "3")
    statements = {
        told.statement(one),
        told.statement(other),  # a signature of another sum is worth nothing
        attendance("0123", "").statement(one),
        attendance("012", "").statement(one),
        attendance("01", "3").statement(one),
    }
    assert len(statements) == 5


def test_shares_are_given_once(party):
    to_opening(party)
    handed = signatures(party, attendance("012", "3"))
    party.members["d000"].answer(handed)
    with pytest.raises(PayloadError, match="expected a task to train next"):
        party.members["d000"].answer(handed)


def test_each_step_is_taken_once_and_in_order(party):
    shown = payload.deal(announcements(party))
    with pytest.raises(PayloadError, match="expected 'deal' next, found 'open'"):
        party.members["d000"].answer(payload.blobs(payload.OPEN, signatures={}))
    party.members["d000"].answer(shown)
    with pytest.raises(PayloadError, match="expected 'mask' next, found 'deal'"):
        party.members["d000"].answer(shown)


def test_an_update_too_large_for_the_ring_is_no_reason_to_refuse(party):
    """By tasks made for it a server would read one update off who refuses, number by number."""
    party.updates["d000"].delta["tower"][0] = np.nan
    party.updates["d001"].delta["tower"][0] = 1e9
    update = party.run()
    assert update.summed == tuple(party.names)
    assert party.told == {}
    weights = [min(party.updates[name].weight, CAP) for name in party.names]
    rest = sum(weights[row] * party.updates[party.names[row]].delta["tower"][0] for row in (2, 3))
    assert update.delta["tower"][0] == pytest.approx((MOST + rest) / sum(weights))


def test_identities_from_files(tmp_path):
    names = ("book", "music", "video")
    for name in names:
        key = ec.generate_private_key(NODE_CURVE())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        (tmp_path / name).write_bytes(private)
        (tmp_path / f"{name}.pub").write_bytes(public)
    identities = {name: read_identity(name, tmp_path / name, tmp_path) for name in names}
    party = Party(3, dict(zip(["d000", "d001", "d002"], identities.values(), strict=True)))
    party.updates = {
        name: replace(update, domain=owner) for owner, (name, update) in zip(names, party.updates.items(), strict=True)
    }
    assert party.run().summed == names
    with pytest.raises(ConfigError, match="expected the public half of"):
        read_identity("book", tmp_path / "video", tmp_path)
    with pytest.raises(ConfigError, match="expected node keys"):
        read_identity("book", tmp_path / "book.pub", tmp_path)
    (tmp_path / "twin.pub").write_bytes((tmp_path / "music.pub").read_bytes())
    with pytest.raises(ConfigError, match="two names have one key"):
        read_identity("book", tmp_path / "book", tmp_path)
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    (tmp_path / "twin.pub").write_bytes(
        other.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    )
    with pytest.raises(ConfigError, match="expected keys on secp384r1"):
        read_identity("book", tmp_path / "book", tmp_path)
    (tmp_path / "twin.pub").unlink()
    (tmp_path / "music.pub").unlink()
    with pytest.raises(ConfigError, match="of 3 members or more, found 2"):
        read_identity("book", tmp_path / "book", tmp_path)


def test_a_member_that_is_refused_by_all_ends_the_round(party):
    party.identities["d003"] = strangers(["d003"])["d003"]  # a node key that the others do not hold
    party.members["d003"].identity = party.identities["d003"]
    with pytest.raises(FederationError, match="0 of 4 members answered"):
        party.run()
