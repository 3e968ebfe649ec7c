"""Which commit a run names."""

import subprocess

import pytest

from simulations import versions


@pytest.mark.parametrize(("place", "named"), [("", True), ("inside", False)])
def test_a_repository_around_it_is_not_its_own(tmp_path, monkeypatch, place, named):
    who = ("-c", "user.name=n", "-c", "user.email=e@localhost")
    for words in (("init", "-q"), (*who, "commit", "-q", "--allow-empty", "-m", "of something else")):
        subprocess.run(["git", "-C", tmp_path, *words], check=True)
    package = tmp_path / place / "simulations"
    package.mkdir(parents=True)
    monkeypatch.setattr(versions, "__file__", str(package / "versions.py"))
    assert bool(versions.commit.__wrapped__()) == named


def test_changed_code_is_told_and_an_answer_beside_it_is_none(tmp_path, monkeypatch):
    package = tmp_path / "simulations"
    package.mkdir()
    code, answer = package / "some.py", tmp_path / "answer.json"
    who = ("-c", "user.name=n", "-c", "user.email=e@localhost")
    for path in (code, answer):
        path.write_text("1")
    for words in (("init", "-q"), ("add", "."), (*who, "commit", "-q", "-m", "first")):
        subprocess.run(["git", "-C", tmp_path, *words], check=True)
    monkeypatch.setattr(versions, "__file__", str(package / "versions.py"))
    answer.write_text("2")
    assert not versions.commit.__wrapped__().endswith("+")
    code.write_text("2")
    assert versions.commit.__wrapped__().endswith("+")
