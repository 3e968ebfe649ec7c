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
