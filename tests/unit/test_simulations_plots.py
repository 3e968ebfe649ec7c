import json

import pytest
from typer.testing import CliRunner

from shared.errors import ConfigError
from simulations.__main__ import app
from simulations.plots import plot_affinity, plot_audit


def logged(folder, *tables):
    lines = [json.dumps({"round": number, "affinity": table}) for number, table in enumerate(tables, 1)]
    (folder / "rounds.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


def test_a_run_becomes_a_picture_also_when_a_domain_joined_late(tmp_path):
    early = {"a": {"a": 1.0, "b": 0.2}, "b": {"a": 0.2, "b": 1.0}}
    late = {one: dict.fromkeys("abc", 0.5) for one in "abc"}
    run_dir = logged(tmp_path, early, late)
    with (run_dir / "rounds.jsonl").open("a") as file:
        file.write('{"round": 3, "affi')  # torn off by a kill
    for name in ("one.png", "one.svg"):
        assert plot_affinity(run_dir, tmp_path / name).stat().st_size > 5000


def test_runs_that_cannot_be_drawn_say_why(tmp_path):
    with pytest.raises(ConfigError, match=r"no readable rounds\.jsonl"):
        plot_affinity(tmp_path, tmp_path / "a.png")
    (tmp_path / "rounds.jsonl").write_text(json.dumps({"round": 1}) + "\n")
    with pytest.raises(ConfigError, match="--family affinity"):
        plot_affinity(tmp_path, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_the_command(tmp_path):
    run_dir = logged(tmp_path, {"a": {"a": 1.0, "b": 0.2}, "b": {"a": 0.2, "b": 1.0}})
    assert CliRunner().invoke(app, ["plot", str(run_dir)]).exit_code == 0
    assert (tmp_path / "affinity.png").read_bytes().startswith(b"\x89PNG")
    wrong = CliRunner().invoke(app, ["plot", str(run_dir), "--out", "a.jpeg"])
    assert wrong.exit_code == 2
    assert "expected a name that ends with .png" in wrong.output


def test_an_audit_becomes_a_picture(tmp_path):
    found = {}
    for name, told in (("private", 8.0), ("plain", None)):
        curve = {"epsilon": told, "auc": 0.7, "roc": {"false": [0.0, 0.5, 1.0], "true": [0.0, 0.8, 1.0]}}
        found[name] = {"epsilon": told, "attacks": {f"way {number}": curve for number in range(6)}}
    to = plot_audit(found, tmp_path / "roc.svg")
    text = to.read_text()
    assert text.count("<svg") == 1
    assert to.stat().st_size > 5000
