"""What commands refuse before they write, spend or overwrite anything; and where a run goes on."""

from pathlib import Path

import numpy as np
import pytest
from support.commands import misuse, run
from support.fake_member import fake_plan, fake_start

from server.launch import prepare
from shared.ledger import GaussianSteps, append_event
from shared.passport import CodeBook


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_domain_makes_its_own_key(tmp_path):
    said = run("client", "--domain", "shop", "key").stdout
    home = Path("var/client/shop")
    assert said.startswith(f"{home}/shop: this domain's own")
    assert (home / "shop").stat().st_mode & 0o077 == 0
    assert run("server", "certs", "certs", "--public", home / "shop.pub").exit_code == 0
    assert "has certificates already, and no further member was named" in run("server", "certs", "certs").stderr
    assert Path("certs/members/shop.pub").read_bytes() == (home / "shop.pub").read_bytes()
    before = (home / "shop").read_bytes()
    assert "exists already" in misuse("client", "--domain", "shop", "key")
    assert (home / "shop").read_bytes() == before
    assert "--domain" in misuse("client", "key")


@pytest.mark.parametrize(("words", "rounds"), [((), 9), (("--rounds", 5), 5)])
def test_a_run_goes_on_by_its_own_settings_where_none_are_given(monkeypatch, words, rounds):
    plan, asked = fake_plan(rounds=9), []
    prepare(Path("run"), plan, fake_start, resume=False)
    monkeypatch.setattr("server.launch.run_server", lambda plan, *more, **others: asked.append(plan) or 0)
    run("server", "--resume", "--run-dir", "run", *words)
    assert asked[0].federation.rounds == rounds
    assert (asked[0] == plan) == (not words)


@pytest.mark.parametrize("name", ["a/b", "../../evil", ".hidden", "n" * 65])
def test_a_name_that_is_a_place_is_refused(name, tmp_path):
    for words in (["key"], ["status"], ["--data", "d"]):
        assert "--domain: expected a name that a file can have" in misuse("client", "--domain", name, *words)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_run_is_not_resumed():
    prepare(Path("run"), fake_plan(), fake_start, resume=False)
    Path("run/plan.json").write_bytes(b"\xff{")
    found = run("server", "--resume", "--run-dir", "run")
    assert found.exit_code == 1
    assert found.stderr.startswith("error: run: plan.json or round-0000.json is damaged")


def test_a_damaged_home_is_told():
    home = Path("var/client/shop")
    home.mkdir(parents=True)
    for name in ("home.json", "result.json"):
        (home / name).write_text('{"torn')
    assert misuse("client", "--domain", "shop", "status").endswith("result.json is missing or damaged; train again")
    (home / "result.json").write_text("{}")
    append_event(home / "ledger.jsonl", GaussianSteps(1.0, 0.1, 10))
    assert misuse("client", "--domain", "shop", "status").endswith("home.json is missing or damaged; train again")


@pytest.mark.parametrize("out", ["missing/passport", "."])
def test_no_passport_is_paid_for_that_cannot_be_written(out, tmp_path):
    words = ("--user", "u", "--epsilon", "2", "--consent", "asked", "--code-book", "b", "--out", out)
    Path("b").write_bytes(CodeBook(np.eye(3, 4, dtype=np.float32), "base").to_bytes())
    assert f"--out {out}: expected the path of a file to write" in misuse(
        "client", "--domain", "a", "passport", "issue", *words
    )


def test_a_passport_is_charged_to_no_simulation_that_a_later_one_replaces():
    """Without --run it would be the newest one's ledger."""
    words = ("--user", "u", "--epsilon", "2", "--consent", "asked", "--code-book", "b", "--out", "token")
    Path("b").write_bytes(CodeBook(np.eye(3, 4, dtype=np.float32), "base").to_bytes())
    home = Path("runs/one/homes/a")
    home.mkdir(parents=True)
    (home / "home.json").write_text("{}")
    line = misuse("client", "--domain", "a", "passport", "issue", *words)
    assert "var/client/a holds no finished run of this domain" in line
    assert list(home.iterdir()) == [home / "home.json"]


@pytest.mark.parametrize("limit", ["nan", "-1", "inf", "0"])
def test_a_limit_that_holds_nothing_is_refused(limit):
    line = misuse("client", "--domain", "shop", "--data", "d", "--max-epsilon", limit)
    assert "--max-epsilon: expected a number above 0" in line
