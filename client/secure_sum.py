"""One domain's part in a secure sum: it checks whose keys it is shown, masks its update, and gives each share once.

What may go wrong ends the sum, never the secrecy: every refusal here is one that an honest server does not meet.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from shared import secure_payload as payload
from shared.errors import ConfigError, DataError, PayloadError
from shared.ledger import append_line, reserved
from shared.node_key import NODE_CURVE
from shared.payload import AdapterUpdate
from shared.secure_sum import (
    FEWEST,
    MOST,
    Announcement,
    Attendance,
    Circle,
    Ring,
    agree,
    circle,
    digest_of,
    mask,
    new_secret,
    pair_mask,
    quorum,
    seal,
    shares_of,
    sign,
    signed,
    to_ring,
    unseal,
)
from shared.whole import read_lines

if TYPE_CHECKING:
    from client.chance import Chance


@dataclass(frozen=True)
class Identity:
    """This domain's node key, and the public ones of all who may sum with it, from their owners and not the server."""

    name: str
    key: ec.EllipticCurvePrivateKey
    members: Mapping[str, ec.EllipticCurvePublicKey]


def read_identity(name: str, key: Path, members: Path) -> Identity:
    """From a node's private key file and a folder of everybody's NAME.pub, its own included. Raises ConfigError."""
    try:
        own = serialization.load_ssh_private_key(key.read_bytes(), password=None)
        paths = sorted(members.glob("*.pub"))
        known = {path.stem: serialization.load_ssh_public_key(path.read_bytes()) for path in paths}
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"expected node keys as python -m client key makes them ({error})") from None
    others = {stem: value for stem, value in known.items() if isinstance(value, ec.EllipticCurvePublicKey)}
    if not isinstance(own, ec.EllipticCurvePrivateKey) or len(others) < len(known):
        raise ConfigError(f"{key}, {members}: expected elliptic curve keys, found others; make them with client key")
    if {own.curve.name, *(value.curve.name for value in others.values())} != {NODE_CURVE.name}:
        raise ConfigError(f"{key}, {members}: expected keys on {NODE_CURVE.name}; make them with client key")
    if len({value.public_numbers() for value in others.values()}) < len(others):
        raise ConfigError(f"{members}: two names have one key, so that one owner would count twice; keep one of them")
    if len(others) < FEWEST:
        raise ConfigError(f"{members}: expected NAME.pub of {FEWEST} members or more, found {len(others)}")
    if name not in others or others[name] != own.public_key():
        raise ConfigError(f"{members}/{name}.pub: expected the public half of {key}; the names there are the domains'")
    return Identity(name, own, others)


def strangers(names: list[str]) -> dict[str, Identity]:
    """Identities made up for a simulation."""
    keys = {name: ec.generate_private_key(NODE_CURVE()) for name in names}
    public = {name: key.public_key() for name, key in keys.items()}
    return {name: Identity(name, key, public) for name, key in keys.items()}


@dataclass
class Attempt:
    """One sum, from the training to the opened shares; every step of it is taken once."""

    key: str  # of what is summed: the same numbers, under whatever keys
    own: Announcement
    numbers: Ring = field(repr=False)  # weight x update, then the weight
    noise: float  # what all shares of it come to at least, standard deviation on each number but the weight
    masking: X25519PrivateKey
    sealing: X25519PrivateKey
    seed: bytes = field(repr=False)  # of the mask that no peer takes away
    adding: set[str]  # who says that it weighs anything, this member and those who dealt
    due: str = payload.DEAL  # the only step that is answered now
    circle: Circle | None = None  # from DEAL on
    # By dealer: shares of its seed, of its key.
    held: dict[str, tuple[bytes, bytes]] = field(default_factory=dict, repr=False)
    told: Attendance | None = None  # from ATTEND on


class SecureSum:
    """Holds at most one attempt; a new training begins a new one."""

    def __init__(self, identity: Identity, sums: Path | None = None, chance: "Chance | None" = None) -> None:
        """``sums`` is where it stands who was in which sum; None remembers nothing (simulations).

        A ``chance`` is for tests.
        """
        self.identity, self.sums, self.chance = identity, sums, chance
        self.attempt: Attempt | None = None

    @property
    def need(self) -> int:
        """How many of all that are known must take part, and have been told the same."""
        return quorum(len(self.identity.members))

    def announce(self, update: AdapterUpdate, cap: float, task: str, key: str = "", noise: float = 0.0) -> bytes:
        """Keep the update for the sum and answer with fresh keys. ``cap`` is the most that a domain may weigh.

        ``noise`` is the standard deviation that every sum has at least on each number of weight x update: this member
        adds a share of it (distributed noise, Dwork et al. 2006), which nobody sees alone either.
        ``task`` is the digest of the task as it came. Under one ``key`` numbers are summed with one set of members
        alone, for ever: the difference of two sums would be what some of them sent.
        """
        weight = min(update.weight, cap, MOST)  # more would not fit, and count for less than its update
        parts = [update.delta[name].astype(np.float64).ravel() for name in sorted(update.delta)]
        numbers = to_ring(np.concatenate([*(weight * part for part in parts), [weight]]))
        masking, sealing, seed = X25519PrivateKey.generate(), X25519PrivateKey.generate(), new_secret()
        keys = (masking.public_key().public_bytes_raw(), sealing.public_key().public_bytes_raw())
        plain = Announcement(self.identity.name, task, *keys, digest_of(seed))
        own = replace(plain, signature=sign(self.identity.key, plain.statement()))
        self.attempt = Attempt(key, own, numbers, noise, masking, sealing, seed, {own.name} if numbers[-1] else set())
        return payload.announced(own)

    def drop(self) -> None:
        """Forget the update and all secrets: no step of its sum is to follow."""
        self.attempt = None

    def answer(self, raw: bytes) -> bytes:
        """The next step of the sum. Raises PayloadError on what an honest server would not ask."""
        kind, head, _ = payload.unpack(raw, payload.DEAL, payload.MASK, payload.ATTEND, payload.OPEN)
        attempt = self.attempt
        if attempt is None or attempt.due != kind:
            due = "a task to train" if attempt is None else repr(attempt.due)
            raise PayloadError(f"expected {due} next, found {kind!r}; each step of a secure sum is taken once")
        if kind == payload.DEAL:
            return self._deal(attempt, payload.members_from(head))
        if kind == payload.MASK:
            return self._mask(attempt, payload.table_from(head, "pairs"))
        if kind == payload.ATTEND:
            return self._attend(attempt, payload.attendance_from(head))
        return self._open(attempt, payload.table_from(head, "signatures"))

    def _deal(self, attempt: Attempt, members: list[Announcement]) -> bytes:
        """A sealed pair of shares for each peer, once everybody's keys have proved to be theirs; beside it, whether
        this member adds anything, which the server does not learn."""
        for one in members:
            key = self.identity.members.get(one.name)
            if key is None or not signed(one.signature, one.statement(), key):
                raise PayloadError(
                    f"the keys shown as {one.name!r}'s are not signed by its node key: somebody swapped them, or "
                    "--members holds another key; compare with its owner before going on"
                )
            if one.task != attempt.own.task:
                raise PayloadError(
                    f"{one.name!r} was handed another task than {self.identity.name!r}: the sum would tell them apart; "
                    "begin the round again"
                )
        within = circle(members)
        if within.members.get(self.identity.name) != attempt.own:
            raise PayloadError("our own keys are not among the members of the secure sum; begin the round again")
        known = len(self.identity.members)
        if len(within.members) < self.need:  # a server that chooses who is there could choose its own people
            raise PayloadError(
                f"{len(within.members)} of the {known} domains in --members take part in this sum, {self.need} are "
                "needed; wait for the others, or leave the keys of who is not in this federation out of the folder"
            )
        attempt.circle, attempt.due = within, payload.MASK
        name = self.identity.name
        seeds, keys = (
            shares_of(secret, name, within) for secret in (attempt.seed, attempt.masking.private_bytes_raw())
        )
        attempt.held[name] = (seeds[name], keys[name])
        adds = bytes([name in attempt.adding])
        sealed = {
            peer: seal(self._channel(attempt, within, name, peer), seeds[peer] + keys[peer] + adds)
            for peer in within.peers(name)
        }
        return payload.blobs(payload.DEALT, pairs=sealed)

    def _mask(self, attempt: Attempt, pairs: dict[str, bytes]) -> bytes:
        """The update under its own mask and those shared with each peer who dealt."""
        within, name = attempt.circle, self.identity.name
        assert within is not None  # DEAL came before
        if unknown := sorted(pairs.keys() - set(within.peers(name))):
            raise PayloadError(f"{unknown[0][:60]!r} is no peer of {name!r} in this secure sum")
        if len(pairs) + 1 < self.need:
            raise PayloadError(f"{len(pairs) + 1} members dealt shares, {self.need} are needed")
        self.attempt = None  # breaking off below, it may not go on: shares would be held that no mask stands for
        for peer, sealed in pairs.items():
            dealt = unseal(self._channel(attempt, within, peer, name), sealed, peer)
            both, adds = dealt[:-1], dealt[-1:]
            attempt.held[peer] = (both[: len(both) // 2], both[len(both) // 2 :])
            if adds == b"\1":
                attempt.adding.add(peer)
        total = self._noised(attempt) + mask(attempt.seed, len(attempt.numbers))
        for peer in pairs:
            total = total + pair_mask(attempt.masking, name, within.members[peer], within, len(total))
        attempt.due, self.attempt = payload.ATTEND, attempt
        return payload.masked(total)

    def _noised(self, attempt: Attempt) -> Ring:
        """The numbers, which lie on the ring's steps, and a share of the noise, rounded to these.

        No sum opens of fewer than ``need`` (see ``_attend``), so as many shares make the noise that is asked for.
        """
        if not attempt.noise:
            return attempt.numbers
        from client.chance import Unforeseen  # heavy, and for this alone

        drawn = (self.chance or Unforeseen()).normal((len(attempt.numbers) - 1,)).numpy()
        return attempt.numbers + to_ring(np.append(attempt.noise / math.sqrt(self.need) * drawn, 0.0))

    def _attend(self, attempt: Attempt, told: Attendance) -> bytes:
        """A signature under who is there and who is gone; with those of others it proves what they were told.

        Of those who are there as many as are needed must add something: of a task made so that others learn nothing
        from it, or of one that they cannot learn from, the sum would be the update of who does.
        """
        within, name = attempt.circle, self.identity.name
        assert within is not None
        if told.there & told.gone or told.there | told.gone != attempt.held.keys() or name not in told.there:
            raise PayloadError("who is there and who is gone does not fit who dealt; begin the round again")
        if len(told.there) < self.need:
            raise PayloadError(f"{len(told.there)} members are there, {self.need} are needed")
        if len(attempt.adding & told.there) < self.need:
            self.attempt = None  # asked about others, it would tell who they are
            raise PayloadError(
                f"fewer than the {self.need} that are needed learnt anything from this task: the sum would tell "
                "of few; who did not has the reason in its own log"
            )
        self._remember(attempt, told.there)
        attempt.told, attempt.due = told, payload.OPEN
        return payload.attended(sign(self.identity.key, told.statement(within)))

    def _open(self, attempt: Attempt, signatures: dict[str, bytes]) -> bytes:
        """A share of one secret of each dealer, never of both, once enough were told the same. This ends the attempt.

        The consistency check of Bonawitz et al. (2017), Figure 4, round 3; one signature that does not hold spoils
        nothing, or each member could end every round.
        """
        within, told = attempt.circle, attempt.told
        assert within is not None
        assert told is not None  # ATTEND came before
        statement = told.statement(within)
        same = [
            name
            for name, signature in signatures.items()
            if name in told.there and signed(signature, statement, self.identity.members[name])
        ]
        if len(same) < self.need:
            raise PayloadError(
                f"{len(same)} members signed what {self.identity.name!r} was told of who is there, {self.need} are "
                "needed: others are gone, or were told something else; begin the round again"
            )
        self.attempt = None
        seeds = {one: attempt.held[one][0] for one in told.there}
        keys = {one: attempt.held[one][1] for one in told.gone}
        return payload.blobs(payload.OPENED, seeds=seeds, keys=keys)

    def _remember(self, attempt: Attempt, there: frozenset[str]) -> None:
        """On disk before it is signed: a sum opens by what two thirds signed, and two such share somebody honest.

        Raises PayloadError where the same was to be summed with others before, or with noise that is now another.
        """
        if self.sums is None:
            return
        summed = {"key": attempt.key, "there": sorted(there)}
        with reserved(self.sums):  # another process of this home may be in a sum
            known = read_lines(self.sums)
            if any(one.keys() != summed.keys() for one in known):
                raise DataError(f"{self.sums} is damaged; restore it from a backup")
            before = [one for one in known if one["key"] == attempt.key]
            if before and attempt.noise:
                raise PayloadError(
                    "this round was summed before: once more, under fresh noise, it would tell more than was promised; "
                    "go on with the next"
                )
            if any(one != summed for one in before):
                raise PayloadError(
                    "this round was to be summed with other members before: the difference of both sums would be what "
                    "some of them sent; begin it again when the same are there, or a new run with another "
                    "federation.seed"
                )
            if not before:
                append_line(self.sums, summed)

    def _channel(self, attempt: Attempt, within: Circle, source: str, target: str) -> bytes:
        """The key for what ``source`` seals for ``target``; one of them is this domain."""
        other = target if source == self.identity.name else source
        return agree(attempt.sealing, within.members[other].sealing, "pair", source, target, within)
