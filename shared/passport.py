"""A taste passport: a few codes of a public code book, privatised at home and signed by the domain that gives them.

The code book is made of public catalogues alone; whoever reads a passport knows its codes, epsilon and signer, no more.
"""

import hashlib
import json
import math
import re
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from safetensors import SafetensorError
from safetensors.numpy import load, save

from shared.errors import ConfigError, PayloadError
from shared.whiten import fit_whitening
from shared.whole import MAX_NAME

Vectors = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Uniform = Callable[[], float]  # a draw from [0, 1): SystemRandom().random, or a seeded generator's in simulations

MECHANISMS = ("randomised-response", "exponential", "near-set")
MAX_BYTES = 4096  # of a passport
MAX_CODES = 16
MAX_BOOK = 4096
MAX_BOOK_BYTES = 64 * 2**20
MAX_EPSILON = 16.0  # draws are multiples of 2^-53: up to it chances are right to a billionth, above 36 some are 0


@dataclass(frozen=True)
class CodeBook:
    """K places in the frozen base's text space, (K, dim), before whitening: each domain whitens with its own.

    Means of real text vectors, not of length 1: whitening subtracts a mean, so length matters.
    """

    vectors: Vectors
    base: str  # fingerprint of the frozen base whose space this is

    def __len__(self) -> int:
        return len(self.vectors)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of numbers, shape and base."""
        head = json.dumps([self.base, self.vectors.shape]).encode()
        return hashlib.sha256(head + self.vectors.astype("<f4").tobytes()).hexdigest()

    def to_bytes(self) -> bytes:
        return save({"vectors": np.ascontiguousarray(self.vectors)}, metadata={"base": self.base})


def book_from_bytes(raw: bytes) -> CodeBook:
    """Raises PayloadError when the bytes are no code book."""
    if not 8 < len(raw) <= MAX_BOOK_BYTES:
        raise PayloadError(f"expected a code book of at most {MAX_BOOK_BYTES} bytes, found {len(raw)}")
    try:
        head = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
        tensors = load(raw)
        vectors, base = tensors["vectors"], head["base"]
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise PayloadError("expected a code book made by `passport book`, found something else") from None
    if vectors.dtype != np.float32 or vectors.ndim != 2 or not 2 <= len(vectors) <= MAX_BOOK or not vectors.shape[1]:
        raise PayloadError(f"expected a code book of 2 to {MAX_BOOK} float32 vectors; make a new one")
    if not np.isfinite(vectors).all() or not isinstance(base, str):
        raise PayloadError("the code book holds numbers that are not finite, or names no base; make a new one")
    return CodeBook(vectors, base)


def make_book(raw: torch.Tensor, codes: int, base: str, draw: np.random.Generator) -> CodeBook:
    """k-means of public text vectors (items, dim), in their whitened space; the same draw gives the same book.

    Raises ConfigError when there are too few items.
    """
    if not 2 <= codes <= min(MAX_BOOK, len(raw)):
        raise ConfigError(f"expected 2 to {min(MAX_BOOK, len(raw))} codes for {len(raw)} items, found {codes}")
    white = fit_whitening(raw)(raw).numpy()
    start = white[draw.choice(len(white), codes, replace=False)]
    from scipy.cluster.vq import kmeans2  # slow to import, and only who makes a book needs it

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an empty cluster: it gets no code
        _, member = kmeans2(white, start, iter=12, minit="matrix", missing="warn")
    filled = np.unique(member)
    rows = raw.numpy().astype(np.float64)
    return CodeBook(np.stack([rows[member == code].mean(0) for code in filled]).astype(np.float32), base)


def probabilities(utility: Floats, epsilon: float, mechanism: str) -> Floats:
    """Chance of each code, (K,), float64: epsilon-DP in the user's whole history.

    ``utility`` (K,) says how well each code fits and is clipped to [0, 1]: replacing the history moves any entry by
    at most 1 (sensitivity 1).

    exponential: P proportional to exp(epsilon u / 2) (McSherry and Talwar 2007). Numerator and normaliser change by
    at most exp(epsilon / 2) each, hence the half.
    randomised-response: weight exp(epsilon) for the best code, 1 for the others (Kairouz et al. 2016). The normaliser
    e^epsilon + K - 1 is the same for every history, so no half is lost.
    near-set: the same for the best K / (e^epsilon + 1) codes, rounded up, so that half of the chance falls on a set of
    like codes (the size that Ye and Barg 2018 find best for subsets); the size is public, the normaliser constant.
    """
    if not (math.isfinite(epsilon) and 0 < epsilon <= MAX_EPSILON):
        raise ConfigError(f"epsilon: expected above 0 and at most {MAX_EPSILON:g}, found {epsilon:g}")
    u = np.clip(np.asarray(utility, np.float64), 0.0, 1.0)
    if mechanism == "exponential":
        power = epsilon * u / 2
    elif mechanism in MECHANISMS:
        size = 1 if mechanism == "randomised-response" else math.ceil(len(u) / (math.exp(epsilon) + 1))
        power = np.zeros(len(u))
        power[np.argsort(-u, kind="stable")[:size]] = epsilon
    else:
        raise ConfigError(f"mechanism: expected one of {', '.join(MECHANISMS)}, found {mechanism!r}")
    weights = np.exp(power - power.max())
    return np.asarray(weights / weights.sum())


def draw_codes(utilities: Floats, epsilon: float, mechanism: str, uniform: Uniform) -> tuple[int, ...]:
    """One code for each row of (m, K), each paid with epsilon / m: together epsilon, by basic composition."""
    chances = (probabilities(row, epsilon / len(utilities), mechanism) for row in utilities)
    picks = (int(np.searchsorted(np.cumsum(p), uniform(), side="right")) for p in chances)
    return tuple(min(pick, utilities.shape[1] - 1) for pick in picks)


@dataclass(frozen=True)
class Passport:
    """Public once it is given: nothing in it names a user."""

    domain: str  # who gives it
    book: str  # fingerprint of the code book
    codes: tuple[int, ...]
    epsilon: float  # of all codes together, one user
    mechanism: str
    issued: str  # a day, 2026-11-24
    signature: str = ""  # Ed25519 over all the rest, hex

    def _signed_part(self) -> bytes:
        rest = {key: value for key, value in asdict(self).items() if key != "signature"}
        return b"isthmus passport 1\n" + json.dumps(rest, sort_keys=True).encode()

    def sign(self, key: Ed25519PrivateKey) -> "Passport":
        return replace(self, signature=key.sign(self._signed_part()).hex())

    def verify(self, key: Ed25519PublicKey) -> None:
        """Raises PayloadError unless this very passport was signed with the key's other half."""
        try:
            key.verify(bytes.fromhex(self.signature), self._signed_part())
        except (InvalidSignature, ValueError):
            raise PayloadError(f"the passport was not signed by {self.domain}, or was altered; refuse it") from None

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True).encode()


def passport_from_bytes(raw: bytes) -> Passport:
    """A passport of the right form; whether it is genuine, ``verify`` says. Raises PayloadError."""
    if len(raw) > MAX_BYTES:
        raise PayloadError(f"expected a passport of at most {MAX_BYTES} bytes, found {len(raw)}")
    try:
        found = json.loads(raw.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise PayloadError("expected a passport in JSON, found something else; ask for it again") from None
    wanted = list(Passport.__dataclass_fields__)
    if not isinstance(found, dict) or sorted(found) != sorted(wanted):
        raise PayloadError(f"expected a passport with {', '.join(wanted)} and nothing else")
    for key, fits in _FITS.items():
        if not fits(found[key]):
            raise PayloadError(f"the passport's {key} makes no sense; ask for it again")
    return Passport(**{**found, "codes": tuple(found["codes"]), "epsilon": float(found["epsilon"])})


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    return found


def _hex(value: Any, letters: int) -> bool:
    return isinstance(value, str) and re.fullmatch(rf"[0-9a-f]{{{letters}}}", value) is not None


def _day(value: Any) -> bool:
    try:
        return isinstance(value, str) and date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


_FITS: dict[str, Callable[[Any], bool]] = {
    "domain": lambda v: isinstance(v, str) and 0 < len(v) <= MAX_NAME and v.isprintable(),
    "book": lambda v: _hex(v, 64),
    "codes": lambda v: (
        isinstance(v, list) and 0 < len(v) <= MAX_CODES and all(type(c) is int and 0 <= c < MAX_BOOK for c in v)
    ),
    "epsilon": lambda v: type(v) in (int, float) and 0 < v <= MAX_EPSILON,
    "mechanism": lambda v: v in MECHANISMS,
    "issued": _day,
    "signature": lambda v: _hex(v, 128),
}


def read_book(path: Path) -> CodeBook:
    """The code book in a file, of which no more is read than one may hold. Raises PayloadError."""
    return book_from_bytes(_beginning(path, MAX_BOOK_BYTES))


def read_passport(path: Path) -> Passport:
    """The passport in a file, likewise. Raises PayloadError."""
    return passport_from_bytes(_beginning(path, MAX_BYTES))


def _beginning(path: Path, most: int) -> bytes:
    """A byte more than allowed at the most, so that a longer file is refused for its length."""
    with path.open("rb") as file:
        return file.read(most + 1)
