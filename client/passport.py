"""Taste passports at home: give one to a user who asked and agreed, take one as the start of a history."""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from torch.nn import functional as F

from client.budget import Limits, check_budget, spent_at
from client.dataset import Domain
from client.pseudonyms import kept_secret, pseudonym
from client.store import Home
from shared.errors import ConfigError, DataError, PayloadError
from shared.ledger import TokenRelease, append_event, append_line, reserved
from shared.model import Recommender, Space
from shared.passport import (
    MAX_CODES,
    MAX_EPSILON,
    CodeBook,
    Floats,
    Passport,
    Uniform,
    draw_codes,
    make_book,
    passport_from_bytes,
)
from shared.plan import Plan
from shared.prefix import prefix_states
from shared.seeding import stream
from shared.towers import recency_mean
from shared.whiten import Whitening
from shared.whole import PUBLIC, write_whole

UNPREDICTABLE: Uniform = secrets.SystemRandom().random  # the operating system's; a seeded one in simulations only


@dataclass(frozen=True)
class Request:
    """What a user asked for, and how they agreed."""

    user: str
    epsilon: float
    consent: str  # in words, kept: who agreed to what, where
    codes: int = 1
    mechanism: str = "near-set"


def issue(
    home: Home,
    domain: Domain,
    space: Space,
    plan: Plan,
    book: CodeBook,
    base: str,
    request: Request,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    uniform: Uniform = UNPREDICTABLE,
) -> Passport:
    """A signed passport for one user; consent and ledger are on the disk before a code is drawn.

    A crash in between may waste budget, never hide a release. Raises ConfigError, DataError, BudgetError before
    anything is written.
    """
    utilities = _utilities(_check(domain, book, base, request), space, plan, book, request.codes)
    # The chances are computed once on nothing real: a setting that cannot be used is told before anyone pays.
    draw_codes(np.zeros_like(utilities), request.epsilon, request.mechanism, lambda: 0.0)
    key = signing_key(home)
    who = pseudonym(home, request.user)
    event = TokenRelease(float(request.epsilon), request.mechanism, user=who)
    today = datetime.now(UTC).date().isoformat()
    consent = {"user": who, "consent": request.consent, "epsilon": request.epsilon, "book": book.fingerprint}
    with reserved(home.ledger):
        mine = [e for e in spent_at(home) if not isinstance(e, TokenRelease) or e.user in (who, "")]
        check_budget(plan, limits, mine, event)
        append_line(home.consents, {**consent, "day": today})
        append_event(home.ledger, event)
    codes = draw_codes(utilities, request.epsilon, request.mechanism, uniform)
    passport = Passport(domain.name, book.fingerprint, codes, float(request.epsilon), request.mechanism, today)
    return passport.sign(key)


def accept(passport: Passport, book: CodeBook, base: str, key: Ed25519PublicKey, whitening: Whitening) -> torch.Tensor:
    """The passport's places in this domain's own whitened space, (codes, dim), to stand at the start of a history.

    ``key`` is the issuer's; the domain's name in it is what that issuer says, and proves nothing. Raises PayloadError
    when it is not genuine, or does not fit the book.
    """
    passport.verify(key)
    if passport.book != book.fingerprint or max(passport.codes) >= len(book):
        raise PayloadError("the passport was drawn from another code book; ask for the issuer's")
    if book.base != base:
        raise PayloadError(f"the code book belongs to base {book.base[:60]!r}, ours is {base!r}; make one for ours")
    return places(book, whitening)[list(passport.codes)]


@dataclass(frozen=True)
class Border:
    """Whose passports a domain takes while it serves: the issuers' keys, and the one code book."""

    keys: tuple[Ed25519PublicKey, ...]
    book: CodeBook

    def admit(self, raw: bytes, base: str, whitening: Whitening) -> torch.Tensor:
        """``accept`` for a token as it comes in, by the first of the keys that signed it. Raises PayloadError."""
        passport = passport_from_bytes(raw)
        refusal = PayloadError("no issuer's key is known here; ask the domain that gave it for its passport.pub")
        for key in self.keys:
            try:
                passport.verify(key)
            except PayloadError as error:
                refusal = error
                continue
            return accept(passport, self.book, base, key, whitening)
        raise refusal


def places(book: CodeBook, whitening: Whitening) -> torch.Tensor:
    """All codes as a domain sees them, (K, dim), length 1."""
    return whitening(torch.from_numpy(book.vectors))


def wishes(vectors: torch.Tensor, codes: int, recency: float) -> torch.Tensor:
    """What each code should stand for, (codes, dim): the taste for a single one, else one recent event each.

    ``vectors`` (events, dim) is a history, oldest first; a history with fewer events than codes starts again.
    """
    if codes == 1:
        return recency_mean(vectors[None], recency)[0, -1:]
    return vectors[[len(vectors) - 1 - place % len(vectors) for place in range(codes)]]


def similarity_utilities(wanted: torch.Tensor, all_places: torch.Tensor) -> Floats:
    """Cosine of each wish with each code, moved from [-1, 1] to [0, 1]: (codes, K)."""
    return np.asarray((F.normalize(wanted, dim=-1).double() @ all_places.double().T).numpy() / 2 + 0.5)


def _utilities(items: torch.Tensor, space: Space, plan: Plan, book: CodeBook, codes: int) -> Floats:
    recent = space.base[items[-plan.model.max_history :]]
    return similarity_utilities(wishes(recent, codes, plan.model.recency), places(book, space.whitening))


def _check(domain: Domain, book: CodeBook, base: str, request: Request) -> torch.Tensor:
    """The user's items, oldest first. Raises ConfigError or DataError; never repeats the id."""
    if not request.consent.strip():
        raise ConfigError("--consent expects how the user agreed, in words; without it no passport is given")
    if re.search(rf"(?<![\w-]){re.escape(request.user)}(?![\w-])", request.consent):
        raise ConfigError("--consent names the user's id, which may not stand in the record; describe it without")
    if not 0 < request.epsilon <= MAX_EPSILON:  # of all codes together; nobody takes another
        raise ConfigError(f"--epsilon: expected above 0 and at most {MAX_EPSILON:g}, found {request.epsilon:g}")
    if not 1 <= request.codes <= MAX_CODES:
        raise ConfigError(f"--codes: expected 1 to {MAX_CODES}, found {request.codes}")
    if book.base != base:
        raise ConfigError(f"the code book belongs to base {book.base[:60]!r}, ours is {base!r}; make one for ours")
    try:
        user = domain.interactions.user_ids.index(request.user)
    except ValueError:
        raise DataError(f"domain {domain.name} knows no such user; check the id") from None
    return torch.from_numpy(domain.interactions.items[domain.interactions.users == user].astype(np.int64))


def signing_key(home: Home) -> Ed25519PrivateKey:
    """This domain's key, made once; its public half lies beside it in ``passport.pub``, to be given to others."""
    raw = kept_secret(home.folder / "passport.key", lambda: Ed25519PrivateKey.generate().private_bytes_raw())
    if len(raw) != 32:
        raise DataError(
            f"{home.folder / 'passport.key'} is damaged; move it away, and tell others the new passport.pub"
        )
    key = Ed25519PrivateKey.from_private_bytes(raw)
    public = home.folder / "passport.pub"
    form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    pem = key.public_key().public_bytes(*form)
    if not public.exists() or public.read_bytes() != pem:  # of a key that was moved away it would prove nothing
        write_whole(public, pem, PUBLIC)
    return key


def public_vectors(model: Recommender, texts: Sequence[str], cache: Path) -> torch.Tensor:
    """Public texts as the frozen base reads them, before whitening: (texts, dim)."""
    return model.encode_plain(
        prefix_states(model.top.bert, model.base, texts, model.split, model.plan.max_tokens, cache)
    )


def public_book(raw: torch.Tensor, codes: int, base: str) -> CodeBook:
    """The code book of public text vectors (texts, dim); the same vectors give the same book."""
    return make_book(raw, codes, base, stream(0, "code book"))


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Raises DataError when the file holds no Ed25519 public key in PEM."""
    try:
        key: object = serialization.load_pem_public_key(path.read_bytes())
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise DataError(f"{path}: expected the issuer's passport.pub, an Ed25519 public key; ask for it again")
    return key
