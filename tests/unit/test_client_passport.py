"""Giving a passport and taking one: what is written first, what never stands in a file."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.reading import words

from client import passport as room
from client.budget import Limits
from client.dataset import Domain, Interactions
from client.passport import Border, Request, accept, issue, read_public_key, wishes
from client.store import Home
from shared.accounting import epsilon
from shared.catalog import Catalog
from shared.errors import BudgetError, ConfigError, DataError, PayloadError
from shared.ledger import GaussianSteps, TokenRelease, append_event, read_events
from shared.model import Space
from shared.passport import CodeBook, Passport
from shared.plan import Plan
from shared.whiten import Whitening

USER = "user-4711"
PLAIN = Whitening(torch.zeros(3), torch.eye(3))
BOOK = CodeBook(np.eye(3, dtype=np.float32), "base")
SPACE = Space(None, PLAIN, torch.eye(3))
ASK = Request(USER, 4.0, "asked for it in the settings page", codes=2, mechanism="randomised-response")


@pytest.fixture
def domain(tmp_path):
    names = ("i1", "i2", "i3")
    rows = np.array([0, 0, 1], np.int32)
    shop = Interactions(
        (USER, "user-2"), rows, np.array([0, 2, 1], np.int32), rows.astype(np.int8), rows * 1.0, rows.astype(np.float32)
    )
    return Domain("shop", tmp_path, Catalog("shop", names, names, names), shop, ())


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def give(home, domain, request=ASK, **more):
    return issue(home, domain, SPACE, Plan(), BOOK, "base", request, **more)


def test_a_passport_is_written_down_before_it_is_given(home, domain):
    token = give(home, domain, uniform=lambda: 0.0)
    (event,) = read_events(home.ledger)
    assert isinstance(event, TokenRelease)
    assert (event.epsilon, event.mechanism, event.unit) == (4.0, "randomised-response", "user")
    (line,) = home.consents.read_text().splitlines()
    assert json.loads(line) == {
        "user": event.user,
        "consent": ASK.consent,
        "epsilon": 4.0,
        "book": BOOK.fingerprint,
        "day": token.issued,
    }
    token.verify(read_public_key(home.folder / "passport.pub"))
    files = b"\n".join(path.read_bytes() for path in home.folder.iterdir())
    assert not {USER, "4711"} & words(files + token.to_bytes())
    for name in ("passport.key", "pseudonyms.key"):
        assert stat.S_IMODE((home.folder / name).stat().st_mode) == 0o600


def test_consent_and_ledger_are_there_even_when_signing_fails(home, domain, monkeypatch):
    def broken(self, key):
        raise RuntimeError("no signature")

    monkeypatch.setattr(Passport, "sign", broken)
    with pytest.raises(RuntimeError):
        give(home, domain)
    assert len(read_events(home.ledger)) == len(home.consents.read_text().splitlines()) == 1


def test_consent_and_ledger_come_before_the_draw(home, domain):
    def draw():
        assert len(read_events(home.ledger)) == len(home.consents.read_text().splitlines()) == 1
        return 0.5

    give(home, domain, uniform=draw)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"consent": " "}, ConfigError, "--consent expects"),
        ({"consent": f"signed by {USER}"}, ConfigError, "names the user's id"),
        ({"codes": 0}, ConfigError, "--codes"),
        ({"codes": 17}, ConfigError, "--codes"),
        ({"epsilon": 0.0}, ConfigError, "epsilon"),
        ({"epsilon": float("nan")}, ConfigError, "epsilon"),
        ({"mechanism": "plain"}, ConfigError, "mechanism"),
        ({"user": "nobody-9"}, DataError, "knows no such user"),
    ],
)
def test_what_cannot_be_given_leaves_nothing(home, domain, change, error, message):
    with pytest.raises(error, match=message) as caught:
        give(home, domain, replace(ASK, **change))
    assert USER not in str(caught.value)
    assert not home.folder.exists()


def test_each_user_pays_for_their_own_tokens(home, domain):
    limits = Limits(max_epsilon=7.0, passports=6.0)
    give(home, domain, limits=limits)
    give(home, domain, replace(ASK, user="user-2"), limits=limits)
    before = home.ledger.read_bytes()
    with pytest.raises(BudgetError, match=r"2\.000 above"):
        give(home, domain, limits=limits)
    assert home.ledger.read_bytes() == before
    assert len(home.consents.read_text().splitlines()) == 2


def test_requests_at_once_cannot_overspend(home, domain):
    limits = Limits(max_epsilon=7.0, passports=6.0)  # of 4 each, one fits
    give(home, domain, replace(ASK, user="user-2"), limits=limits)  # keys are made by the first

    def ask(_):
        try:
            return give(home, domain, limits=limits)
        except BudgetError:
            return None

    with ThreadPoolExecutor(6) as pool:
        given = [one for one in pool.map(ask, range(6)) if one is not None]
    assert len(given) == 1
    assert len(read_events(home.ledger)) == 2


def test_tokens_add_to_training_for_the_user_who_pays_most(tmp_path):
    steps = GaussianSteps(1.0, 0.1, 5)
    tokens = [TokenRelease(1.0, "near-set", user=who) for who in ("a", "a", "b")]
    trained = epsilon([steps], 1e-5)
    assert epsilon(tokens, 1e-5) == 2.0
    assert epsilon([steps, *tokens], 1e-5) == pytest.approx(trained + 2)
    assert epsilon([*tokens, TokenRelease(0.5, "near-set")], 1e-5) == 2.5  # of an unknown user: charged to everyone
    with pytest.raises(BudgetError, match="another unit"):
        epsilon([TokenRelease(1.0, "near-set", unit="code")], 1e-5)
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"noise_multiplier": 1.0, "sample_rate": 0.1, "steps": 5, "unit": "user"}\n')  # an older line
    append_event(path, tokens[0])
    assert read_events(path) == (steps, tokens[0])
    for damage in (
        '{"mechanism": "near-set"}',
        '{"mechanism": 1, "epsilon": 1}',
        '{"mechanism": "m", "epsilon": 0}',
        '{"mechanism": "m", "epsilon": 1' + "0" * 400 + "}",
        '{"noise_multiplier": 1e-300, "sample_rate": 1, "steps": 1}',
        '{"noise_multiplier": NaN, "sample_rate": 1, "steps": 1}',
        '{"noise_multiplier": 1, "sample_rate": 1, "steps": 1.5}',
        '{"noise_multiplier": 1, "sample_rate": 1, "steps": 1e300}',
        "[" * 100_000,
    ):
        path.write_text(damage + "\n")
        with pytest.raises(DataError, match="line 1"):
            read_events(path)


def test_a_code_becomes_a_place_in_the_receivers_own_space(home, domain):
    token = give(home, domain, uniform=lambda: 0.99999)
    key = read_public_key(home.folder / "passport.pub")
    own = Whitening(torch.tensor([0.0, 0, -1]), torch.eye(3))
    found = accept(token, BOOK, "base", key, own)
    expected = own(torch.eye(3))[list(token.codes)]
    assert torch.equal(found, expected)
    with pytest.raises(PayloadError, match="another code book"):
        accept(token, CodeBook(2 * np.eye(3, dtype=np.float32), "base"), "base", key, own)
    with pytest.raises(PayloadError, match="ours is"):
        accept(token, BOOK, "other", key, own)
    with pytest.raises(PayloadError, match="not signed by"):
        accept(replace(token, epsilon=1.0), BOOK, "base", key, own)
    bad = replace(token, codes=(3,)).sign(room.signing_key(home))
    with pytest.raises(PayloadError, match="another code book"):
        accept(bad, BOOK, "base", key, own)


def test_a_key_that_was_moved_away_takes_its_public_half_with_it(home, domain):
    give(home, domain)
    (home.folder / "passport.key").unlink()
    token = give(home, domain)
    token.verify(read_public_key(home.folder / "passport.pub"))


@pytest.mark.parametrize("epsilon", [0.0, 16.5, float("nan")])
def test_what_nobody_would_take_is_not_paid_for(home, domain, epsilon):
    """Of two codes each would cost less than the most that a passport may."""
    with pytest.raises(ConfigError, match="--epsilon: expected above 0 and at most 16"):
        give(home, domain, replace(ASK, epsilon=epsilon, codes=2))
    assert read_events(home.ledger) == ()


def test_wishes_are_the_taste_or_the_latest_events():
    vectors = torch.eye(3)[:2]
    # weights .5 and 1 for the older and the newer event, then length 1
    assert torch.allclose(wishes(vectors, 1, 0.5), torch.tensor([[0.5, 1, 0]]) / 1.25**0.5)
    assert torch.equal(wishes(vectors, 3, 0.5), vectors[[1, 0, 1]])


def test_what_is_no_public_key(tmp_path):
    (tmp_path / "key").write_text("x")
    with pytest.raises(DataError, match=r"passport\.pub"):
        read_public_key(tmp_path / "key")


def test_a_border_takes_whom_any_of_its_keys_signed_and_nobody_else(home, domain, tmp_path):
    token = give(home, domain, uniform=lambda: 0.0)
    stranger = read_public_key_of(Home(tmp_path / "stranger"))
    own = read_public_key_of(home)
    expected = accept(token, BOOK, "base", own, PLAIN)
    torch.testing.assert_close(Border((stranger, own), BOOK).admit(token.to_bytes(), "base", PLAIN), expected)
    altered = replace(token, epsilon=1.0).to_bytes()
    for keys, raw in (
        ((stranger,), token.to_bytes()),
        ((stranger, own), altered),
        ((), token.to_bytes()),
        ((own,), b"x"),
    ):
        with pytest.raises(PayloadError):
            Border(keys, BOOK).admit(raw, "base", PLAIN)


def read_public_key_of(home):
    room.signing_key(home)
    return read_public_key(home.folder / "passport.pub")
