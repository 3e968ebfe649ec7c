"""What one member refuses, whoever asks."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from support.secure_party import CAP, Party

from client.secure_sum import NODE_CURVE, ec, read_identity, strangers
from shared import secure_payload as payload
from shared.errors import ConfigError, FederationError, PayloadError


@pytest.fixture
def party():
    return Party(4)


def announcements(party):
    return [payload.announcement_from(party.members[name].announce(party.updates[name], CAP)) for name in party.names]


def to_masking(party):
    """All have dealt; (what each is handed next, by name)."""
    request = payload.deal(announcements(party))
    pairs = {}
    for name in party.names:
        _, head, _ = payload.unpack(party.members[name].answer(request), payload.DEALT)
        pairs[name] = payload.table_from(head, "pairs")
    return {name: {other: pairs[other][name] for other in party.names if other != name} for name in party.names}


def to_opening(party):
    handed = to_masking(party)
    for name in party.names:
        party.members[name].answer(payload.blobs(payload.MASK, pairs=handed[name]))


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
        (lambda shown, party: shown[:2], "3 to 1024 members"),
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


def test_keys_of_another_round_are_refused(party):
    shown = announcements(party)
    party.updates["d002"] = replace(party.updates["d002"], round=2)
    later = payload.announcement_from(party.members["d002"].announce(party.updates["d002"], CAP))
    with pytest.raises(PayloadError, match="another round"):
        party.members["d000"].answer(payload.deal([*shown[:2], later, shown[3]]))


def test_pairs_dealt_in_another_attempt_are_refused(party):
    old = to_masking(party)
    fresh = to_masking(party)
    mixed = {**fresh["d000"], "d001": old["d000"]["d001"]}
    with pytest.raises(PayloadError, match="not sealed by"):
        party.members["d000"].answer(payload.blobs(payload.MASK, pairs=mixed))


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
        ("0", "123", "1 members are there"),  # everybody else's masks with it: its update would lie open
    ],
)
def test_what_is_opened(party, there, gone, message):
    to_opening(party)
    asked = payload.attendance([f"d00{row}" for row in there], [f"d00{row}" for row in gone])
    if message:
        with pytest.raises(PayloadError, match=message):
            party.members["d000"].answer(asked)
        return
    _, head, _ = payload.unpack(party.members["d000"].answer(asked), payload.OPENED)
    seeds, keys = payload.table_from(head, "seeds"), payload.table_from(head, "keys")
    assert (sorted(seeds), sorted(keys)) == ([f"d00{row}" for row in there], [f"d00{row}" for row in gone])


def test_shares_are_given_once(party):
    to_opening(party)
    party.members["d000"].answer(payload.attendance(["d000", "d001", "d002"], ["d003"]))
    with pytest.raises(PayloadError, match="expected a task to train next"):
        party.members["d000"].answer(payload.attendance(["d000", "d001", "d002", "d003"], []))


def test_each_step_is_taken_once_and_in_order(party):
    shown = payload.deal(announcements(party))
    with pytest.raises(PayloadError, match="expected 'deal' next, found 'open'"):
        party.members["d000"].answer(payload.attendance(party.names, []))
    party.members["d000"].answer(shown)
    with pytest.raises(PayloadError, match="expected 'mask' next, found 'deal'"):
        party.members["d000"].answer(shown)


def test_an_update_too_large_for_the_ring_is_refused(party):
    party.updates["d000"].delta["tower"][0] = 1e9
    assert party.run().summed == ("d001", "d002", "d003")
    assert "takes numbers below" in party.told["d000"]


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
    (tmp_path / "music.pub").unlink()
    with pytest.raises(ConfigError, match="of 3 members or more, found 2"):
        read_identity("book", tmp_path / "book", tmp_path)


def test_a_member_that_is_refused_by_all_ends_the_round(party):
    party.identities["d003"] = strangers(["d003"])["d003"]  # a node key that the others do not hold
    party.members["d003"].identity = party.identities["d003"]
    with pytest.raises(FederationError, match="0 of 4 members answered"):
        party.run()
