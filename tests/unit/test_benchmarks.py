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


def test_an_answer_is_kept_for_the_same_words_and_begun_anew_when_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "HERE", tmp_path)
    monkeypatch.setattr(quality, "render", lambda: "")
    monkeypatch.chdir(tmp_path)
    asked, run = [], tmp_path / "runs/quality/media-social"

    def answer(command, **how):
        seeds = command[command.index("--seeds") + 1]
        asked.append(seeds)
        begun_before = {seed: (run / f"seed-{seed}" / "result.json").exists() for seed in seeds.split(",")}
        for seed in begun_before:
            (run / f"seed-{seed}").mkdir(parents=True, exist_ok=True)
            told = {"seconds": 2, "commits": {"abc": ["social local"], f"abd{seed}": ["social sasrec"]}}
            (run / f"seed-{seed}" / "result.json").write_text(json.dumps(told))
        return subprocess.CompletedProcess(command, 0, json.dumps({"begun_before": begun_before}))

    monkeypatch.setattr(quality.subprocess, "run", answer)

    def ask(file, **how):
        quality.main(tmp_path, only=["media-social"], **{"seeds": None, "again": False, **how})
        return json.loads((tmp_path / "quality" / file).read_text())

    own = "media-social.json"
    assert ask(own)["commit"] == "abc, abd7"
    ask(own)
    assert asked == ["7"]  # it has an answer
    two = ask("media-social-7,8.json", seeds="7,8")
    assert (two["found"]["begun_before"], two["seconds"]) == ({"7": True, "8": False}, 4)
    assert ask("media-social-8.json", seeds="8", again=True)["commit"] == "abc, abd8"
    assert ask(own, again=True)["found"]["begun_before"] == {"7": False}
    assert (run / "seed-8").exists()  # of another seed
    assert asked == ["7", "7,8", "8", "7"]


def test_an_answer_to_fewer_methods_is_none(tmp_path):
    words = ["python", "-m", "simulations", "evaluate", "--methods", "local,sasrec", "--seeds", "7"]
    place = tmp_path / "one.json"
    assert not quality.answered(place, words)
    place.write_text(json.dumps({"command": " ".join([*words, "--out", "elsewhere", "--json"])}))
    assert quality.answered(place, words)
    assert not quality.answered(place, [*words[:5], "local", *words[6:]])


def test_a_question_that_is_none_is_told(tmp_path):
    with pytest.raises(SystemExit, match="found shops-nowhere"):
        quality.main(tmp_path, only=["shops-nowhere"], seeds=None, again=False)


def test_a_baseline_is_held_against_what_papers_report_of_it():
    def reaches(hr, ndcg):
        return {"hr@10": {"macro": cell(hr)}, "ndcg@10": {"macro": cell(ndcg)}}

    found = {
        "figures": {"fedmf": reaches(0.62, 0.35), "pfedrec": reaches(0.8, 0.4 * 0.9 - 0.001), "local": reaches(1, 1)}
    }
    published = {"fedmf": (0.675, 0.381), "pfedrec": (0.736, 0.4), "fedncf": (0.658, 0.387)}
    lines = quality.against_papers(found, published)
    assert lines[2:] == [
        "| fedmf | 0.675 / 0.381 | 0.620 / 0.350 | yes |",
        "| pfedrec | 0.736 / 0.400 | 0.800 / 0.359 | no |",
        "",
    ]
    assert quality.against_papers(found, {}) == []
    methods = {
        name: set(words[words.index("--methods") + 1].split(","))
        for name, (_, words) in QUESTIONS.items()
        if "--methods" in words
    }
    assert all(set(told) <= methods[name] for name, told in quality.PUBLISHED.items())


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
    told = {**few, "low": 0.2, "high": 0.3, "less": {"mean": 0.1, "low": -0.05, "high": 0.2}}
    none = {"cases": 0, "hr@10": 0.0, "ndcg@10": 0.0}
    found = {
        "ranking": "full",
        "protocol": "loo",
        "seeds": [7],
        "figures": figures,
        "notes": {"shop": ["order: no time is known"]},
        "strata": {
            "local": {"shop": {}, "all": {"warm item": few, "new item": none}},
            "personal": {"shop": {}, "all": {"warm item": told, "new item": none}},
        },
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
    told = "0.2500 (0.2000 to 0.3000; 3 cases; +0.1000, -0.0500 to +0.2000)"
    assert f"| ours, federated + private | {told} |  |" in text
    assert "AUC 1.000" in text
    assert "\nshop, order: no time is known\n" in text
    assert text.count("1,234 s") == 2
