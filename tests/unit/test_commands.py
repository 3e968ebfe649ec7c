"""The three command lines: what they say to misuse, and of what was spent."""

import json
import time
from pathlib import Path

import pytest
import typer
from support.commands import misuse, run

from client.journal import Event, Journal
from client.store import Home, write_json
from shared import console
from shared.console import Bars
from shared.errors import DataError, FullError, PayloadError
from shared.ledger import GaussianSteps, append_event
from shared.plan import Plan

README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Run in an empty folder: what misuse leaves behind shows there."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("passport",), "passport expects two folders, FROM and TO, found 0"),
        (("passport", "a", "b", "--epsilons", "1,many"), "--epsilons: expected numbers above 0"),
        (("passport", "a", "b"), "expected a folder with a domain's files at a"),
    ],
)
def test_passport_measurements_refuse_misuse(words, message, tmp_path):
    assert message in misuse("simulations", *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [("--rond", "3"), ("--rounds", "many")])
@pytest.mark.parametrize("name", ["simulations", "server"])
def test_an_unknown_option_or_a_wrong_type_is_refused(name, words):
    result = run(name, *words)
    assert result.exit_code == 2
    assert words[0] in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("name", ["simulations", "server"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set", "modle.rank=3"), "no section [modle]"),
        (("--set", "model.rnk=3"), "[model] has no setting 'rnk'"),
        (("--set", "model.rank=four"), "model.rank: expected int, found 'four'"),
        (("--set", "model.rank=0"), "model.rank: expected at least 1"),
        (("--set", "model.targets=query"), "model.targets: expected a list"),
        (("--set", "model.targets=[]"), "model.targets: expected some of"),
        (("--set", "model.targets=['pooler']"), "model.targets: expected one of"),
        (("--set", "rank=3"), "--set expects section.key=value"),
        (("--family", "sum"), "federation.family: expected one of ffa, fedavg"),
        (("--epsilon", "-1"), "privacy.epsilon: expected at least 0"),
        (("--epsilon", "3", "--family", "fedavg"), "privacy.epsilon needs federation.family=ffa"),
        (("--settings", "none.toml"), "cannot read settings none.toml"),
    ],
)
def test_settings_that_make_no_sense_change_nothing(name, words, message, tmp_path):
    assert message in misuse(name, *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--protocol", "random"), "--protocol: expected one of loo, time, loo-99, found 'random'"),
        (("--carrier", "pigeon"), "--carrier: expected one of in-process, flower, found 'pigeon'"),
        (("evaluate", "--data", "d", "--methods", "nosuch"), "--methods: expected one of zero_shot, local"),
        (("--only", "local,best"), "--only: expected one of zero_shot, local, federated, personal, adopted"),
        (("--data", "nowhere"), "expected a folder with a domain's files at nowhere"),
        (("nowhere",), "expected a folder with a domain's files at nowhere"),
    ],
)
def test_simulations_refuse_misuse_before_they_write(words, message, tmp_path):
    assert message in misuse("simulations", *words)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_no_domain(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds neither NAME.item nor items.csv" in misuse("simulations", "empty", "--out", "run")
    assert not (tmp_path / "run").exists()


def test_two_domains_of_one_name_are_refused(tmp_path):
    for place in ("one", "two"):
        write_domain(tmp_path / place, "shop")
    assert "two folders are both named 'shop'" in misuse("simulations", "--data", "one", "two", "--out", "run")
    assert not (tmp_path / "run").exists()


def test_a_domain_whose_name_would_hide_a_sum_is_refused(tmp_path):
    write_domain(tmp_path / "one", "macro")
    assert "summaries use the word 'macro'" in misuse("simulations", "one", "--out", "run")


@pytest.mark.parametrize(
    ("mark", "holds", "says"),
    [
        ("result.json", "{}", "plan.json is missing"),
        ("current", "{}", "plan.json is missing"),
        ("plan.json", '{"federation": {"seed": 8}}', "run of other settings (federation.seed 8, asked 7)"),
        ("plan.json", '{"federation": {"of_old": 8}}', "run of settings of another version"),
        ("plan.json", '{"federation": 8}', "run of settings of another version"),
    ],
)
def test_a_run_directory_of_another_run_is_refused_before_the_world_is_written(tmp_path, mark, holds, says):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / mark).write_text(holds)
    assert says in misuse("simulations", "--out", "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [mark]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "expected --domain NAME first"),
        (("recommend", "--user", "u1"), "expected --domain NAME first"),
        (("status",), "expected --domain NAME first"),
        (("--domain", "shop"), "joining a federation needs --data"),
        (("--domain", "shop", "--data", "nowhere", "--protocol", "random"), "--protocol: expected one of loo, time"),
        (("--domain", "shop", "--data", "nowhere"), "expected a folder with a domain's files at nowhere"),
        (("--domain", "shop", "--data", "d", "--members", "m", "--share-quality"), "--share-quality cannot go with"),
        (("--domain", "shop", "--data", "d", "--members", "m"), "--members needs --key"),
        (
            ("--domain", "shop", "--data", "d", "--members", "m", "--key", "k"),
            "expected node keys as python -m client",
        ),
        (("--domain", "shop", "recommend"), "recommend expects --user ID or --history TITLES"),
        (("--domain", "shop", "recommend", "--user", "u1", "--history", "a"), "recommend expects --user ID"),
        (("--domain", "shop", "recommend", "--history", " ; "), "--history expects titles"),
        (("--domain", "shop", "recommend", "--passport", "p"), "--passport needs --issuer-key and --code-book"),
        (
            ("--domain", "shop", "recommend", "--user", "u", "--code-book", "b"),
            "are for --passport FILE, which is not given",
        ),
        (("--domain", "shop", "passport", "book", "--out", "b"), "no finished run in var/client/shop"),
        (("--domain", "shop", "recommend", "--history", ""), "--history expects titles"),
        (("--domain", "shop", "recommend", "--user", "u1"), "no finished run in var/client/shop"),
        (("--domain", "shop", "recommend", "--user", "u1", "--run", "runs/x"), "it holds no finished run"),
        (("--domain", "shop", "status"), "no finished run in var/client/shop"),
        (("--domain", "shop", "evaluate"), "no finished run in var/client/shop"),
        (("publish", "out"), "expected --domain NAME first"),
        (("--domain", "shop", "publish", "out"), "publish needs the domain's files"),
        (("--domain", "shop", "--data", "nowhere", "publish", "out"), "expected a folder with a domain's files"),
        (
            ("--domain", "shop", "--data", ".", "publish", "out", "--rules", "no.toml"),
            "--rules: expected a file at no.toml",
        ),
        (("--domain", "shop", "forget", "u1"), "no finished run in var/client/shop"),
        (("--domain", "shop", "export-user", "u1", "--out", "f"), "no finished run in var/client/shop"),
        (("--domain", "shop", "audit", "queue"), "no finished run in var/client/shop"),
        (
            ("--domain", "shop", "audit", "--json", "queue"),
            "--json stands before queue: options of a command come after",
        ),
        (
            ("--domain", "shop", "audit", "--run", "r", "log"),
            "--run stands before log: options of a command come after",
        ),
        (("--domain", "shop", "explain", "--item", "i"), "explain expects either --user ID or --history TITLES"),
        (("--domain", "shop", "explain", "--item", "i", "--user", "u"), "no finished run in var/client/shop"),
    ],
)
def test_clients_refuse_misuse(words, message, tmp_path):
    assert message in misuse("client", *words)
    assert list(tmp_path.iterdir()) == []


def test_no_recommendations_are_none_to_ask_for():
    result = run("client", "--domain", "shop", "recommend", "--user", "u1", "-k", "0")
    assert result.exit_code == 2
    assert "-k" in result.stderr
    assert "Traceback" not in result.output


def test_a_run_says_which_domains_it_holds(tmp_path):
    home = tmp_path / "run" / "homes" / "news"
    home.mkdir(parents=True)
    (home / "home.json").touch()
    words = ("--domain", "shop", "recommend", "--user", "u1", "--run", "run")
    assert "expected a finished run of shop; it holds news" in misuse("client", *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--resume",), "--resume needs --run-dir"),
        (("--clients", "0"), "at least 1 client"),
        (("--host", "0.0.0.0"), "0.0.0.0 is open to a network, and Flower's port has a control API"),
        (("--certificates", "nowhere"), "expected a file at nowhere/ca.crt"),
        (("serve", "--run-dir", "nowhere"), "nowhere holds no run"),
        (("--catalogue", "c", "serve", "--run-dir", "r"), "--catalogue stands before serve: options of a command come"),
        (("rounds", "--run-dir", "nowhere"), "nowhere holds no run"),
        (("export", "--run-dir", "nowhere", "--out", "o"), "nowhere holds no run"),
        (("--catalogue", "c"), "--catalogue needs --http-port"),
        (("--http-port", "0", "--catalogue", "c"), "c holds no published catalogue"),
        (("recommend", "--run-dir", "r", "--history", " ; "), "--history expects titles"),
        (("recommend", "--run-dir", "r", "--history", "a"), "recommend needs --catalogue FOLDER"),
        (("recommend", "--run-dir", "r", "--history", "a", "--catalogue", "c"), "r holds no run"),
        (
            ("certs", "made", "--member", "../shop"),
            "--member: expected a plain name of 64 letters at most, found '../shop'",
        ),
    ],
)
def test_servers_refuse_misuse(words, message, tmp_path):
    result = run("server", *words)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def write_domain(folder: Path, name: str) -> None:
    folder.mkdir()
    (folder / f"{name}.item").write_text("item_id:token\ttitle:token_seq\ni1\tA guitar\ni2\tA piano\n")
    (folder / f"{name}.inter").write_text("user_id:token\titem_id:token\nu1\ti1\nu1\ti2\n")


@pytest.mark.parametrize("words", [("--families", "ffa,median"), ("--families", ","), ("--shops", " ,")])
def test_a_scenario_refuses_what_it_does_not_know(words):
    line = misuse("simulations", "scenario", "same-kind", "--root", "x", *words)
    assert f"{words[0]}: expected" in line


def test_a_budget_is_told_before_and_after(tmp_path, tiny_world):
    first = run("client", "--domain", "video", "--data", tiny_world["video"], "budget")
    assert first.exit_code == 0
    assert first.stdout == "0 releases so far: epsilon 0.000 at delta 1e-05.\n"
    home = tmp_path / "var/client/video"
    append_event(home / "ledger.jsonl", GaussianSteps(1.0, 0.1, 20))
    words = ("--domain", "video", "--data", tiny_world["video"], "--max-epsilon", 6, "budget", "--epsilon", 5)
    found = json.loads(run("client", *words, "--rounds", 3, "--json").stdout)
    assert found["releases"] == 1
    assert found["planned"]["after"] > 6 > found["planned"]["epsilon"] > 4.9
    said = run("client", *words, "--rounds", 3).stdout
    assert "Whoever sees all released updates" in said
    allowed = found["planned"]["rounds_allowed"]
    assert f"A limit of 6 (--max-epsilon), measured at delta 1e-05, lets {allowed} of its 3 rounds pass." in said
    assert (home / "ledger.jsonl").read_text().count("\n") == 1  # looking ahead spends nothing


def test_a_planned_run_is_forecast_for_those_it_would_learn_from(tmp_path, tiny_world):
    """What came in while serving is learnt from too; a simulation's ledger counts where it is named, and only there."""
    words = ("--domain", "video", "--data", tiny_world["video"], "budget", "--epsilon", 5, "--rounds", 3, "--json")
    before = json.loads(run("client", *words).stdout)["planned"]["users"]
    home = tmp_path / "var/client/video"
    items = [line.split("\t")[0] for line in (tiny_world["video"] / "video.item").read_text().splitlines()[1:6]]
    Journal(Home(home).journal).append([Event("somebody new", item, "click", time.time()) for item in items])
    assert json.loads(run("client", *words).stdout)["planned"]["users"] == before + 1
    simulated = tmp_path / "runs/one/homes/video"
    append_event(simulated / "ledger.jsonl", GaussianSteps(1.0, 0.1, 20))
    (simulated / "home.json").write_text("{}")
    assert run("client", "--domain", "video", "budget").stdout.startswith("0 releases")
    assert run("client", "--domain", "video", "budget", "--run", "runs/one").stdout.startswith("1 releases")
    assert "expected a finished run of video" in misuse("client", "--domain", "video", "budget", "--run", "runs/two")


def test_a_budget_beside_other_ledgers(tmp_path):
    ledgers = [tmp_path / "var/client/video/ledger.jsonl", tmp_path / "news.jsonl"]
    for path in ledgers:
        append_event(path, GaussianSteps(1.0, 0.1, 20))
    words = ("--domain", "video", "budget", "--beside", ledgers[1])
    found = json.loads(run("client", *words, "--json").stdout)
    assert found["across"]["domains"] == 2
    assert found["across"]["epsilon"] > found["epsilon"]
    assert "A user of all 2 domains: epsilon" in run("client", *words).stdout
    assert "--beside: expected another" in misuse("client", "--domain", "video", "budget", "--beside", "nowhere")
    for text in ("[" * 100_000, '{"noise_multiplier": Infinity, "sample_rate": 1, "steps": 1}'):
        ledgers[1].write_text(text + "\n")
        assert "line 1: expected a privacy event" in misuse("client", *words)


def test_an_audit_needs_a_promise_and_a_picture_a_format():
    assert "--epsilon: expected more than 0" in misuse("simulations", "audit-privacy", "--epsilon", 0)
    assert "--plot: expected a name that ends with .png" in misuse("simulations", "audit-privacy", "--plot", "roc.gif")


def test_a_budget_of_a_plan_needs_data_and_a_domain(tmp_path):
    assert "expected --domain" in misuse("client", "budget")
    (tmp_path / "var/client/video").mkdir(parents=True)
    assert "--data FOLDER before the command" in misuse("client", "--domain", "video", "budget", "--epsilon", 5)
    words = ("--epsilon", 5, "--set", "privacy.mechanism=banded")
    for line in (
        misuse("client", "--domain", "video", "budget", *words),
        misuse("simulations", "audit-privacy", *words),
    ):
        assert "privacy.mechanism=banded is for a federation of devices" in line


@pytest.mark.parametrize("words", [("budget",), ("audit", "log", "--verify"), ("status",)])
def test_a_mistyped_domain_is_nobody_who_spent_nothing(tmp_path, words):
    assert "vidoe" in misuse("client", "--domain", "vidoe", *words)
    assert not (tmp_path / "var").exists()


def test_a_mistyped_command_is_no_folder():
    line = misuse("simulations", "evalute", "--data", "x")
    assert "files at evalute, or a command: run, evaluate, scenario, passport, plot, map, audit-privacy" in line


def test_no_seed_trains_where_another_cannot(tmp_path):
    """The world is one for all seeds, so one that cannot go on is told before it is written anew."""
    (tmp_path / "out" / "seed-8").mkdir(parents=True)
    write_json(tmp_path / "out" / "seed-8" / "plan.json", json.loads(Plan().to_json()) | {"train": {"epochs": 3}})
    words = ("--methods", "popularity", "--out", tmp_path / "out")
    line = misuse("simulations", "evaluate", "--seeds", "7,8", *words)
    assert "seed-8 holds a run of other settings (train.epochs 3, asked 6" in line
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["seed-8"]


def test_a_passports_mechanism_is_checked_before_anything_is_read():
    line = misuse("simulations", "passport", "nowhere", "nowhere-else", "--mechanism", "foo")
    assert "--mechanism: expected one of randomised-response, exponential, near-set, found 'foo'" in line


def test_where_no_bar_can_be_shown_a_line_a_minute_tells_how_far_it_is(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    said: list[str] = []
    monkeypatch.setattr(console, "tell", said.append)
    with Bars() as bars:
        for second, done in ((100, 0), (159, 10), (160, 1200), (161, 1300), (221, 2000)):
            now[0] = second
            bars.tick("texts", done, 4385)
    assert said == ["texts: 1,200 of 4,385", "texts: 2,000 of 4,385"]


@pytest.mark.parametrize(("error", "status"), [(DataError, 2), (FullError, 1), (PayloadError, 1)])
def test_a_full_disk_is_a_failure_and_no_misuse(error, status, capsys):
    with pytest.raises(typer.Exit) as ended, console.settled():
        raise error("what went wrong")
    assert ended.value.exit_code == status
    assert "error: what went wrong" in capsys.readouterr().err
