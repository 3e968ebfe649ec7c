"""The quality benchmark asks only what the command line knows, and renders whatever it answered."""

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest
import typer

from simulations.__main__ import app

PLACE = Path(__file__).resolve().parents[2] / "benchmarks" / "quality.py"
spec = importlib.util.spec_from_file_location("quality", PLACE)
quality = importlib.util.module_from_spec(spec)
spec.loader.exec_module(quality)

QUESTIONS = quality.questions(Path("data"))


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_question_is_a_command(name):
    seeds, (command, *words) = QUESTIONS[name]
    known = typer.main.get_command(app).commands[command]
    context = known.make_context(command, [*words, "--seeds", seeds, "--out", "x", "--json"])
    assert context.params["as_json"]


def cell(value):
    return {"mean": value, "low": value - 0.01, "high": value + 0.01}


def test_an_answer_is_kept_under_its_seeds_and_begun_anew_when_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "HERE", tmp_path)
    monkeypatch.setattr(quality, "render", lambda: "")
    monkeypatch.chdir(tmp_path)
    asked = []

    def answer(command, **how):
        asked.append(command[command.index("--seeds") + 1])
        cell = tmp_path / "runs/quality/media-social/seed-7/result.json"
        begun_before = cell.exists()
        cell.parent.mkdir(parents=True, exist_ok=True)
        cell.write_text(json.dumps({"seconds": 2, "commits": {"abc": ["social local"], "abd": ["social sasrec"]}}))
        return subprocess.CompletedProcess(command, 0, json.dumps({"begun_before": begun_before}))

    monkeypatch.setattr(quality.subprocess, "run", answer)

    def ask(**how):
        quality.main(tmp_path, only=["media-social"], **{"seeds": None, "again": False, **how})
        return json.loads((tmp_path / "quality" / "media-social.json").read_text())

    assert ask()["commit"] == "abc, abd"
    ask()
    assert asked == ["7"]  # it has an answer
    assert ask(seeds="7,8")["found"]["begun_before"]
    assert not ask(seeds="7,8", again=True)["found"]["begun_before"]
    assert asked == ["7", "7,8", "7,8"]


def test_an_answer_becomes_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "HERE", tmp_path)
    (tmp_path / "quality").mkdir()
    figures = {
        method: {
            metric: {"shop": cell(value), "macro": cell(value), "worst": "shop"} for metric in ("hr@10", "ndcg@10")
        }
        for method, value in (("local", 0.1), ("personal", 0.11))
    }
    few = {"cases": 3, "hr@10": 0.5, "ndcg@10": 0.25}
    none = {"cases": 0, "hr@10": 0.0, "ndcg@10": 0.0}
    found = {
        "ranking": "full",
        "protocol": "loo",
        "seeds": [7],
        "figures": figures,
        "strata": {method: {"shop": {"warm item": few, "new item": none}} for method in figures},
        "paired": {"reference": "local", "differences": {"personal": {"shop": cell(0.01), "macro": cell(0.01)}}},
    }
    about = {"command": "python -m simulations x", "commit": "abc", "seconds": 1234}
    for name, part in (
        ("plain", found),
        ("runs", {"affinity": {**found, "kinds": {"within": [1], "across": [0], "auc": 1.0}}}),
    ):
        (tmp_path / "quality" / f"{name}.json").write_text(json.dumps({**about, "found": part}))
    text = quality.render()
    assert "`python -m simulations x`" in text
    assert (
        "| shop | ours, federated + private | 0.1100 (0.1000 to 0.1200) | 0.1100 (0.1000 to 0.1200) | +0.0100" in text
    )
    assert "| ours, one domain alone | 0.2500 (3 cases) |  |" in text
    assert "AUC 1.000" in text
    assert text.count("1,234 s") == 2
