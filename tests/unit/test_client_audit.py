"""An audit: its figures by hand, its page, its schedule; and the benchmark that trades popularity against quality."""

import importlib.util
import json
import math
import re
import threading
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient
from support.tiny_home import make_home
from typer.testing import CliRunner

import client.audit_report as audit_report
from client import audit_clock
from client.__main__ import app
from client.audit import Asked, divergence, popularity_groups, reliability
from client.audits import latest, make_audit, seconds_until_due
from client.dataset import read_domain
from client.drift import stability
from client.http_api import application
from client.journal import HARMFUL, Feedback, Journal
from client.service import HomeService, Who
from client.shown import ShownLog
from client.user_table import read_groups
from shared.catalog import NewItem
from shared.errors import ConfigError
from shared.metrics import exposure, exposure_of
from shared.policy import Wish

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "exposure.py"


def test_divergence_is_steck_s():
    assert divergence({"a": 1.0}, {"a": 1.0}) == pytest.approx(0)
    assert divergence({"a": 1.0}, {"b": 1.0}) == pytest.approx(math.log(100))
    wanted = 0.5 * math.log(0.5 / (0.99 * 0.25 + 0.005)) + 0.5 * math.log(0.5 / (0.99 * 0.75 + 0.005))
    assert divergence({"a": 0.5, "b": 0.5}, {"a": 0.25, "b": 0.75}) == pytest.approx(wanted)


def test_stability_by_hand():
    assert stability([0.5, 0.5], [0.5, 0.5]) == 0
    assert stability([0.5, 0.5], [0.25, 0.75]) == pytest.approx(0.25 * math.log(2) + 0.25 * math.log(1.5))
    assert stability([1.0, 0.0], [1.0, 0.0]) == 0  # a bin that nobody is in


def test_groups_hold_a_third_of_the_interactions_each():
    popularity = np.array([0, 30, 10, 10, 10, 5, 5, 5, 5, 5, 5])
    shown = np.array([1.0, 6, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    found = {one["group"]: one for one in popularity_groups(popularity, shown, np.zeros(11))}
    assert [found[name]["items"] for name in ("head", "middle", "tail", "never met")] == [1, 3, 6, 1]
    assert found["head"]["sample"] == pytest.approx(0.6)
    assert found["never met"]["sample"] == pytest.approx(0.1)
    assert found["tail"]["interactions"] == pytest.approx(30 / 90)
    assert found["head"]["log"] is None


def test_exposure_of_counts_is_that_of_lists():
    top = np.array([[0, 1], [0, 2], [0, 1]])
    popularity = np.array([9, 4, 1, 0])
    counts = np.bincount(top.ravel(), minlength=4).astype(float)
    assert {f"{name}@2": value for name, value in exposure_of(counts, popularity).items()} == exposure(top, popularity)
    assert exposure_of(counts, popularity)["popularity"] == pytest.approx((3 * 9 + 2 * 4 + 1) / 6)


def test_reliability_weighs_bins_by_their_cases():
    pairs = np.array([[0.15, 0.0], [0.15, 1.0], [0.95, 1.0], [1.0, 1.0]])
    found = reliability(pairs)
    assert [row["cases"] for row in found["bins"]] == [2, 2]
    assert found["error"] == pytest.approx(0.5 * abs(0.15 - 0.5) + 0.5 * abs(0.975 - 1))


@pytest.fixture(scope="module")
def served(tiny_base, tiny_world, cache, tmp_path_factory):
    """A home that was served from: rules, answers in the log, complaints, a new item, attributes of users."""
    import shutil

    folder = tmp_path_factory.mktemp("audited")
    data = folder / "video"
    shutil.copytree(tiny_world["video"], data)
    home = make_home(tiny_base, data, folder / "home", cache)
    service = HomeService(home, cache)
    users, catalog = service.serving.domain.interactions.user_ids, service.serving.engine.catalog
    lines = "".join(
        f"{user}\t{20 + place % 40}\t{'free' if place % 3 else 'paid'}\n" for place, user in enumerate(users)
    )
    (data / "video.user").write_text(f"user_id:token\tage:float\tplan:token\n{lines}")
    best = service.recommend(Who(users[0]), Wish(1)).items[0].item_id
    home.rules.write_text(f'[block]\nitems = ["{best}"]')
    service.refresh_rules()
    for user in users[:30]:
        service.recommend(Who(user), Wish(10))
    service.add_items([NewItem("n1", "A new film", "A new film")])
    service.add_feedback(Feedback(users[1], catalog.ids[4], HARMFUL, 1.0, "<script>alert(1)</script>"))
    service.close()
    return home, cache, best


class Page(HTMLParser):
    """Checks that tags close, and notes what a page would fetch or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.fetched = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "href") and not value.startswith("#")]
        if tag not in ("meta", "br", "!doctype", "path", "use", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()


def test_an_audit_says_what_was_and_what_would_be_shown(served):
    home, cache, _best = served
    page, found = make_audit(home, cache, asked=Asked(users=50, cases=60))
    assert json.loads(page.with_suffix(".json").read_text()) == json.loads(json.dumps(found)) == latest(home)
    assert found["log"]["answers"] == 31
    assert found["exposure"]["log"]["coverage"] > 0
    assert found["sample"]["users"] == 50
    assert found["columns"] == {"provider": None, "category": "genre"}
    assert 0 < found["calibration"]["kl"] < math.log(100)
    assert found["calibration"]["users"] == 50
    assert sum(one["shown"] for one in found["calibration"]["mix"]) <= 1 + 1e-9
    (rule,) = found["filtered"]
    assert (rule["rule"], rule["items"]) == ("block.items", 1)
    assert rule["struck"] >= 1
    assert found["complaints"]["waiting"] == 1
    groups = {(one["by"], one["group"]): one["cases"] for one in found["quality"]}
    assert groups[("plan", "free")] + groups[("plan", "paid")] == groups[("all", "all")] == 60
    assert sum(cases for (by, _), cases in groups.items() if by == "events") == 60
    assert sum(cases for (by, _), cases in groups.items() if by == "age") == 60
    assert found["drift"] is None
    text = page.read_text()
    users = read_domain(home.folder.parent / "video").interactions.user_ids
    assert not any(user in text or user in page.with_suffix(".json").read_text() for user in users)
    assert page.stat().st_mode & 0o077 == 0


def test_the_page_stands_alone_and_the_next_audit_sees_drift(served, monkeypatch):
    home, cache, _best = served
    _, first = make_audit(home, cache, asked=Asked(users=50, cases=60))
    page, found = make_audit(home, cache, asked=Asked(users=50, cases=60, provider="genre"))
    assert found["drift"]["since"] == first["made"]
    assert set(found["drift"]["psi"].values()) == {0.0}  # nothing changed in between
    assert sum(one["sample"] for one in found["providers"]) == pytest.approx(1, abs=0.01)
    text = page.read_text()
    seen = Page(text)
    assert seen.open == []
    assert seen.fetched == []
    assert "svg" in seen.tags
    assert "script" not in seen.tags
    assert "http" not in re.sub(r'xmlns(:xlink)?="http[^"]*"', "", text)
    assert all(part in text for part in ("prefers-color-scheme: dark", "Signature", "SHA-256", "var(--hue-1)"))
    assert not any(colour in text for colour in ("#010203", "#0a0b01"))
    monkeypatch.setattr(audit_report, "find_spec", lambda name: None)
    plain = audit_report.render(found)
    assert "<svg" not in plain
    assert "Tables only: matplotlib is not installed" in plain
    hostile = {**found, "domain": "<img src=x>", "columns": {"provider": "<b>", "category": "<i>"}}
    assert not {"img", "b", "i"} & Page(audit_report.render(hostile)).tags
    with pytest.raises(ConfigError, match="no column 'brand'; it has genre"):
        make_audit(home, cache, asked=Asked(provider="brand"))


def test_a_changed_log_shows_in_audit_command_and_api(served, tmp_path):
    home, cache, _ = served
    words = ["--domain", "video", "--home", str(home.folder), "--cache", str(cache), "audit"]
    done = CliRunner().invoke(app, [*words, "--users", "20", "--cases", "20", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["log"]["broken"] == ""
    assert "each record follows" in CliRunner().invoke(app, [*words, "log", "--verify"]).stdout
    typo = CliRunner().invoke(app, [*words, "--rules", "rulse.toml"])  # and not an audit under no rules
    assert (typo.exit_code, "--rules: expected a file at rulse.toml" in typo.stderr) == (2, True)
    api = TestClient(application(HomeService(home, cache), "1"))
    assert api.get("/api/audit").json()["sample"]["users"] == 20
    (path,) = ShownLog(home.shown).segments()
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-5]))
    done = CliRunner().invoke(app, [*words, "log", "--verify"])
    assert done.exit_code == 1
    assert "and those behind it are gone: an audit saw 31" in done.stderr
    path.write_bytes(whole)


def test_the_queue_is_decided_on_the_command_line(served):
    home, _cache, _ = served
    words = ["--domain", "video", "--home", str(home.folder), "audit", "queue"]
    (one,) = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)["waiting"]
    assert one["people"] == 1
    refused = CliRunner().invoke(app, [*words, "--block", "nothing"])
    assert refused.exit_code == 2
    assert "nothing was decided" in refused.stderr
    assert json.loads(CliRunner().invoke(app, [*words, "--keep", one["item"], "--json"]).stdout)["waiting"] == []
    assert Journal(home.journal).entries[-1].what == "keep"


def test_users_fall_into_groups_by_the_owners_file(served):
    home, _, _ = served
    groups = read_groups(read_domain(home.folder.parent / "video"))
    assert set(groups["plan"].values()) == {"free", "paid"}
    assert len(set(groups["age"].values())) == 4


def test_audits_come_when_they_are_due(served, monkeypatch, tmp_path):
    home, _, _ = served
    monkeypatch.setattr(audit_clock, "AGAIN_S", 0.02)
    assert 0 < seconds_until_due(home, 1) <= 3600
    stopped, said, runs = threading.Event(), [], []
    due = iter([0.03, 0.0, 0.0])
    monkeypatch.setattr(audit_clock, "seconds_until_due", lambda *_: next(due, 100.0))

    def say(line):
        said.append(line)
        runs.append(line)
        if len(runs) == 2:
            stopped.set()

    ok = ["sh", "-c", "echo made; echo the page"]
    audit_clock.audit_every(home, 1.0, ok, stopped, say, look_s=0.01)
    assert said == ["audit: the page"] * 2
    words = audit_clock.command(home, "video", Path("c"), None, Path("r.toml"))
    assert words[1:5] == ["-m", "client", "--domain", "video"]
    assert words[-3:] == ["audit", "--rules", "r.toml"]


def test_the_knobs_are_measured_as_the_doors_answer(served):
    spec = importlib.util.spec_from_file_location("exposure_benchmark", BENCHMARK)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    from client.recommend import open_serving

    home, cache, _ = served
    serving = open_serving(home, cache)
    corpus, _ = serving.tested()
    cases = corpus.split.test.take(np.arange(25))
    popularity = np.append(corpus.popularity, 0)  # the new item
    few, plain, many = (
        benchmark.measure(serving, cases, popularity, Wish(10, popularity=knob, seen=True)) for knob in (-3.0, 0.0, 3.0)
    )
    assert few["popularity@10"] < plain["popularity@10"] < many["popularity@10"]
    assert 0 <= plain["ndcg@10"] <= plain["hr@10"] <= 1
