"""Sums that tell nobody their parts: numbers in a ring, masks that cancel, shares of the keys behind the masks.

Secure aggregation as in Bonawitz et al. (2017). Each member adds to its numbers a mask of its own and one for each of
its peers, which the peer takes away. Shares of the keys let the others take a mask out of the sum when the member
behind it is gone: of a member that answered only its own mask, of one that did not only those it has with its peers, so
that what a single member sent stays covered. Before they give any share, members sign who the server says is there and
gone, and go on with what two thirds of them were told.

All are each other's peers. On a sparse graph (Bell et al. 2020, SecAgg+) members could be thousands; but a server that
lies about who is gone strips a member of the few masks it has there with a quarter of all on its side, or with fewer
whose keys it draws until they are its neighbours.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares

from shared.errors import PayloadError

Ring = npt.NDArray[np.uint64]  # whole numbers modulo 2^64
Floats = npt.NDArray[np.float64]

STEP = 2.0**-32  # one unit of the ring
MOST_MEMBERS = 128  # each deals to each
MOST = 2.0**18  # of a part; the sum of all stays within the ring's half
FEWEST = 3  # of two, each learns the other's part from the sum
SECRET = 32  # bytes
SHARE = 52  # bytes of one share of it: its number in 4, and a secret that was padded to 48


@dataclass(frozen=True)
class Announcement:
    """One member's keys for one sum, under the signature of its node key."""

    name: str
    task: str  # of the bytes that it was handed: who sums does one thing, or a sum would tell who did another
    masking: bytes  # X25519 public keys
    sealing: bytes
    seed: bytes  # digest of the mask's: shares that open another hold a wrong one
    signature: bytes = b""

    def statement(self) -> bytes:
        """What is signed."""
        words = [self.name, self.task, self.masking.hex(), self.sealing.hex(), self.seed.hex()]
        return b"isthmus secure sum 3\0" + json.dumps(words).encode()


@dataclass(frozen=True)
class Circle:
    """Who takes part in a sum; a function of the announcements alone, so each member draws it for itself."""

    members: Mapping[str, Announcement]
    digest: bytes  # of all of them: what was made for one circle is worth nothing in another

    def peers(self, name: str) -> tuple[str, ...]:
        """All others."""
        return tuple(other for other in self.members if other != name)

    @property
    def threshold(self) -> int:
        """How many of a member's shares open a secret of it, of those that its peers and itself hold."""
        return quorum(len(self.members))


@dataclass(frozen=True)
class Attendance:
    """Who has sent its numbers, and who dealt shares and has not: what the server tells all members of a circle."""

    there: frozenset[str]
    gone: frozenset[str]

    def statement(self, within: Circle) -> bytes:
        """What is signed."""
        words = [within.digest.hex(), sorted(self.there), sorted(self.gone)]
        return b"isthmus secure sum, who is there 1\0" + json.dumps(words).encode()


def sign(key: ec.EllipticCurvePrivateKey, statement: bytes) -> bytes:
    return key.sign(statement, ec.ECDSA(hashes.SHA256()))


def signed(signature: bytes, statement: bytes, key: ec.EllipticCurvePublicKey) -> bool:
    try:
        key.verify(signature, statement, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def quorum(count: int) -> int:
    """So many of ``count`` that a third may be gone, and that any two such groups share more than all but a third.

    With m < count / 3 on its side, a server finds no two attendances that so many signed (2 x this - count > m), and
    no member whose masks are shared with nobody honest of those who signed: what opens is the sum of all who are
    honest and there, none of them alone.
    """
    return max(FEWEST, count - count // 3)


def task_digest(raw: bytes) -> str:
    """What an announcement names a task by."""
    return hashlib.sha256(raw).hexdigest()


def circle(announcements: Sequence[Announcement]) -> Circle:
    """Raises PayloadError when a name stands twice or the number of members is out of bounds."""
    members = {one.name: one for one in sorted(announcements, key=lambda one: one.name)}
    if len(members) < len(announcements):
        raise PayloadError("a member of the secure sum is named twice; give each domain a name of its own")
    if not FEWEST <= len(members) <= MOST_MEMBERS:
        raise PayloadError(f"a secure sum takes {FEWEST} to {MOST_MEMBERS} members, found {len(members)}")
    digest = hashlib.sha256(b"\0".join(one.statement() for one in members.values())).digest()
    return Circle(members, digest)


def to_ring(values: Floats) -> Ring:
    """Fixed point, to the nearest ``STEP``; what would not fit, or is no number, is the largest that fits, or 0.

    No honest training makes such numbers, and a refusal would tell a server who chooses the task of one update alone.
    """
    fit = np.nan_to_num(values, nan=0.0, posinf=MOST, neginf=-MOST).clip(-MOST, MOST)
    return np.rint(fit / STEP).astype(np.int64).view(np.uint64)


def from_ring(total: Ring) -> Floats:
    return total.view(np.int64).astype(np.float64) * STEP


def mask(key: bytes, count: int) -> Ring:
    """(count,) numbers from AES-256 in counter mode; the key is used for nothing else."""
    cipher = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    return np.frombuffer(cipher.update(bytes(8 * count)), "<u8").astype(np.uint64, copy=False)


def pair_mask(own: X25519PrivateKey, name: str, other: Announcement, within: Circle, count: int) -> Ring:
    """What ``name`` adds for its peer ``other``; the peer's own is its negative modulo 2^64."""
    first, second = sorted((name, other.name))
    drawn = mask(agree(own, other.masking, "mask", first, second, within), count)
    return drawn if name == first else np.negative(drawn)


def agree(own: X25519PrivateKey, other: bytes, use: str, source: str, target: str, within: Circle) -> bytes:
    """A key that two members share, for one use in one circle. Raises PayloadError on a public key that is none."""
    try:
        secret = own.exchange(X25519PublicKey.from_public_bytes(other))
    except ValueError:
        raise PayloadError(f"{source!r} and {target!r}: the key of one of them is none; drop that member") from None
    about = json.dumps([use, source, target]).encode()
    return HKDF(hashes.SHA256(), SECRET, within.digest, about).derive(secret)


def seal(key: bytes, text: bytes) -> bytes:
    """Under a key of ``agree``, which seals one text only, so the nonce may be any."""
    return ChaCha20Poly1305(key).encrypt(bytes(12), text, None)


def unseal(key: bytes, sealed: bytes, dealer: str) -> bytes:
    """Raises PayloadError on what was not sealed under this key."""
    try:
        return ChaCha20Poly1305(key).decrypt(bytes(12), sealed, None)
    except InvalidTag:
        raise PayloadError(f"the share said to be {dealer!r}'s was not sealed by it, for this sum") from None


def new_secret() -> bytes:
    return os.urandom(SECRET)


def shares_of(secret: bytes, name: str, within: Circle) -> dict[str, bytes]:
    """Shamir's shares of a secret of ``name`` for its peers and itself, by holder."""
    holders = sorted((name, *within.peers(name)))
    made = create_shares(secret, within.threshold, len(holders))
    return dict(zip(holders, made, strict=True))


def digest_of(seed: bytes) -> bytes:
    """What an announcement binds a mask's seed by."""
    return hashlib.sha256(b"isthmus secure sum, seed\0" + seed).digest()


def opened_seed(shares: Sequence[bytes], name: str, within: Circle) -> bytes:
    """Of the mask that ``name`` has for itself. Raises PayloadError, as ``_opened``."""
    return _opened(shares, name, within, lambda seed: digest_of(seed) == within.members[name].seed)


def opened_key(shares: Sequence[bytes], name: str, within: Circle) -> X25519PrivateKey:
    """Of the masks that ``name`` shares with its peers. Raises PayloadError, as ``_opened``."""

    def right(raw: bytes) -> bool:
        public = X25519PrivateKey.from_private_bytes(raw).public_key()
        return public.public_bytes_raw() == within.members[name].masking

    return X25519PrivateKey.from_private_bytes(_opened(shares, name, within, right))


def _opened(shares: Sequence[bytes], name: str, within: Circle, right: Callable[[bytes], bool]) -> bytes:
    """The ``right`` secret behind shares of which one may be wrong where an eighth more came than are needed.

    Some runs of them in a circle are tried, of which one leaves it out: a member that lies may not cost a server as
    many openings, seconds each, as there are members. Raises PayloadError when they are too few, or no run opens it.
    """
    need, fit = within.threshold, [share for share in shares if len(share) == SHARE]  # its time grows with a share's
    if len(shares) < need:
        raise PayloadError(f"{len(shares)} of the {need} shares needed for {name} came; too many members are gone")
    starts = range(0, len(fit) if len(fit) > need else 1, max(1, len(fit) - need, len(fit) // 8))
    for start in starts:
        try:
            secret = bytes(combine_shares((fit[start:] + fit[:start])[:need]))
        except (ValueError, IndexError):
            continue
        if len(secret) == SECRET and right(secret):
            return secret
    raise PayloadError(f"the shares for {name} do not fit together; members sent wrong ones")
