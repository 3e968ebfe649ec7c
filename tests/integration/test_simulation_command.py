"""``python -m simulations`` as a user runs it, on two tiny domains; then recommendations from its run."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import commands
from support.reading import words
from support.tiny_members import TINY

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
METHODS = ("zero_shot", "local", "federated", "personal", "pooled")


def start(folder, *words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-m", *map(str, words)], cwd=folder, env=environment, **pipes)


def run(folder, *words, expect=0):
    process = start(folder, *words)
    printed, said = process.communicate(timeout=280)
    assert process.returncode == expect, said
    assert "Traceback" not in said
    return printed, said


def here(*words, expect=0):
    """The same in this process: what it does with its words, without the seconds that a process takes to begin."""
    done = commands.run(*words)
    assert done.exit_code == expect, done.output
    return done.stdout, done.stderr


def options(world, base, cache):
    sets = [word for text in TINY for word in ("--set", text)]
    return ["--data", world["video"], world["shop"], "--base", base, "--cache", cache, *sets]


@pytest.fixture(scope="module")
def done(tiny_world, tiny_base, cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulation")
    printed, _ = run(folder, "simulations", *options(tiny_world, tiny_base, cache), "--out", "one", "--json")
    return folder, json.loads(printed)


def test_the_result_has_what_was_promised(done):
    folder, result = done
    assert json.loads((folder / "one" / "result.json").read_text()) == result
    assert (result["protocol"], result["seed"], result["rounds"]) == ("loo", 7, 2)
    assert result["seconds"] > 0
    for domain in result["domains"].values():
        assert min(domain["users"], domain["items"], domain["interactions"]) > 0
        assert all(0 <= domain[method][metric] <= 1 for method in METHODS for metric in ("hr@10", "ndcg@10"))
    for method in METHODS:
        mean = sum(domain[method]["ndcg@10"] for domain in result["domains"].values()) / 2
        assert result["macro"][method]["ndcg@10"] == pytest.approx(mean)


def test_the_run_directory_is_whole_and_names_nobody(done, tiny_world):
    folder, _ = done
    files = {
        path.relative_to(folder / "one").as_posix(): path for path in (folder / "one").rglob("*") if path.is_file()
    }
    for name in ("plan.json", "versions.json", "fingerprints.json", "rounds.jsonl", "result.json", "current"):
        assert name in files
    assert {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"} <= files.keys()
    assert {f"homes/{name}/private.safetensors" for name in ("video", "shop")} <= files.keys()
    rounds = [json.loads(line) for line in files["rounds.jsonl"].read_text().splitlines()]
    assert [line["round"] for line in rounds] == [1, 2]
    assert all(value > 0 for line in rounds for name, value in line["moved"].items() if ".lora_" in name)
    users = {row.split("\t")[0] for row in (tiny_world["video"] / "video.inter").read_text().splitlines()[1:]}
    leaving = b"\n".join(path.read_bytes() for name, path in files.items() if not name.startswith("homes/"))
    assert not users & words(leaving)
    assert users & words((tiny_world["video"] / "video.inter").read_bytes())  # the check can fail


def test_a_run_of_other_settings_into_the_same_place_changes_nothing(done, tiny_world, tiny_base, cache):
    folder, _ = done
    before = {path: path.read_bytes() for path in (folder / "one").rglob("*") if path.is_file()}
    other = (*options(tiny_world, tiny_base, cache), "--set", "train.lr=0.5")
    _, said = run(folder, "simulations", *other, "--out", "one", expect=2)
    assert "one holds a run of other settings (train.lr 0.005, asked 0.5); pass another --out" in said
    assert before == {path: path.read_bytes() for path in (folder / "one").rglob("*") if path.is_file()}


def test_a_run_that_was_interrupted_goes_on_where_it_was_and_its_table_is_narrow(
    done, tiny_world, tiny_base, cache, tmp_path
):
    folder, printed = done
    shutil.copytree(folder / "one", tmp_path / "one")
    place = tmp_path / "one" / "result.json"
    left = json.loads(place.read_text())
    for domain in left["domains"].values():
        del domain["personal"]
    place.write_text(json.dumps(left))
    table, said = run(tmp_path, "simulations", *options(tiny_world, tiny_base, cache), "--out", "one")
    assert "personal:" in said
    assert [line for line in said.splitlines() if re.search("(zero_shot|local|federated|pooled): HR", line)] == []
    assert json.loads(place.read_text())["domains"] == printed["domains"]
    table = table.partition("report: ")[0]
    assert max(map(len, table.splitlines())) <= 80  # of the terminal that ``start`` tells
    assert all(name in table for name in ("video", "shop", "federated"))


def test_recommendations_for_a_user_and_for_a_history(done, tiny_world, cache, monkeypatch):
    folder, _ = done
    monkeypatch.chdir(folder)
    rows = [row.split("\t") for row in (tiny_world["video"] / "video.inter").read_text().splitlines()[1:]]
    user = rows[0][0]
    seen = {row[1] for row in rows if row[0] == user}
    ask = ("client", "--domain", "video", "--cache", cache, "recommend", "--run", "one")
    answer = json.loads(run(folder, *ask, "--user", user, "-k", 7, "--json")[0])
    assert len(answer["items"]) == 7
    assert not seen & {item["item_id"] for item in answer["items"]}
    titles = (tiny_world["video"] / "video.item").read_text(encoding="utf-8").splitlines()
    known = titles[1].split("\t")
    answer = json.loads(here(*ask, "--history", f"{known[1]}; a film about space", "--json")[0])
    assert known[0] not in {item["item_id"] for item in answer["items"]}
    assert "score" in here(*ask, "--user", user)[0]
    best = answer["items"][0]["title"]
    why = ("client", "--domain", "video", "--cache", cache, "explain", "--run", "one", "--item", best)
    because = json.loads(here(*why, "--history", f"{known[1]}; a film about space", "--json")[0])["because"]
    assert {one["title"] for one in because} <= {known[1], "a film about space"}
    assert "because of" in here(*why, "--user", user)[0]
    _, said = here(*why[:-1], "no such thing", "--user", user, expect=2)
    assert "has no item 'no such thing'" in said
    _, said = here(*ask, "--user", "nobody-17", expect=2)
    assert "nobody-17" not in said
    assert here(*ask[:3], "status", "--run", "one")[0]
    again = json.loads(here(*ask[:5], "evaluate", "--run", "one", "--json")[0])
    before = json.loads((folder / "one" / "result.json").read_text())["domains"]["video"]["personal"]
    assert again["ndcg@10"] == pytest.approx(before["ndcg@10"], abs=1e-3)
    assert before["strata"].keys() - again["strata"].keys() == {"known elsewhere"}  # what no domain knows by itself
    assert "new item" in here(*ask[:5], "evaluate", "--run", "one")[0]


def test_control_c_ends_with_one_line_and_130(done, tiny_world, tiny_base, cache):
    folder, _ = done
    long = [*options(tiny_world, tiny_base, cache), "--set", "train.epochs=100000", "--set", "train.patience=100000"]
    process = start(folder, "simulations", *long, "--out", "two")
    deadline = time.monotonic() + 60
    while (
        not (folder / "two" / "result.json").exists() or "zero_shot" not in (folder / "two" / "result.json").read_text()
    ):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("interrupted")
    assert json.loads((folder / "two" / "result.json").read_text())["domains"]["video"]["zero_shot"]


def test_a_cache_that_is_a_file(done, tiny_world, tiny_base, monkeypatch):
    folder, _ = done
    monkeypatch.chdir(folder)
    (folder / "file").write_text("")
    _, said = here("simulations", *options(tiny_world, tiny_base, "file"), "--out", "three", expect=2)
    assert "pass another --cache" in said.splitlines()[-1]
