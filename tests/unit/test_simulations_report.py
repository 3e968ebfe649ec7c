import json
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from shared.errors import ConfigError
from simulations import page as html
from simulations.__main__ import show
from simulations.report import write_report
from simulations.views import View

CELL = {
    "hr@10": 0.2,
    "ndcg@10": 0.1,
    "strata": {"warm item": {"cases": 3, "ndcg@10": 0.25}, "new item": {"cases": 0, "ndcg@10": 0.0}},
}


@pytest.fixture
def run(tmp_path):
    domains = {
        name: {
            "users": 3,
            "items": 5,
            "local": {**CELL, "ndcg@10": 0.1234},
            "personal": {**CELL, "strata": {"cold user": {"cases": 4, "ndcg@10": 0.75}}},  # told of more later
            "privacy": {"epsilon": 4.0, "delta": 1e-5},
        }
        for name in ("shop<b>", "news")
    }
    result = {
        "protocol": "loo",
        "ranking": "full",
        "seed": 7,
        "rounds": 2,
        "family": "affinity",
        "carrier": "in-process",
    }
    result |= {"seconds": 9.0, "peak_resident_mb": 100, "domains": domains, "macro": {"local": CELL}}
    (tmp_path / "result.json").write_text(json.dumps(result))
    (tmp_path / "plan.json").write_text('{"model": {}}')
    likeness = {"shop<b>": {"shop<b>": 1.0, "news": 0.25}, "news": {"shop<b>": 0.25, "news": 1.0}}
    rounds = [{"round": n, "update_norms": {"news": 1.0 / n, "shop<b>": 2.0}, "affinity": likeness} for n in (1, 2)]
    (tmp_path / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in rounds))
    home = tmp_path / "homes" / "news" / "alone"
    home.mkdir(parents=True)
    (home / "alone.json").write_text('{"curve": [0.1, 0.2]}')
    return tmp_path


class Page(HTMLParser):
    """Tags that are open, and all that is loaded from elsewhere."""

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "br", "path", "use"):
            self.open.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href") and not value.startswith("#")]

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(run, cache):
    page = Page()
    page.feed(write_report(run, cache).read_text())
    assert page.open == []
    assert page.loads == []
    return " ".join(page.text)


def test_a_report_tells_all_and_loads_nothing(run, cache):
    text = read(run, cache)
    for told in (
        "shop<b>",
        "0.1234",
        "0.2500 (3)",
        "0.7500 (4)",
        "4.00",
        "Who is alike, round 1",
        "Who is alike, round 2",
        "0.25",
    ):
        assert told in text
    raw = (run / "report.html").read_text()
    assert "<b>" not in raw
    assert raw.count("<svg") == 2  # quality, courses; no home can serve yet
    assert html.NO_PLOTS not in text
    assert "Map of items" not in text


def test_a_torn_line_of_rounds_and_privacy_without_bound_are_told(run, cache, capsys):
    whole = read(run, cache)
    with (run / "rounds.jsonl").open("a") as file:
        file.write('{"round": 3, "affi')
    assert read(run, cache) == whole
    result = json.loads((run / "result.json").read_text())
    result["domains"]["news"]["privacy"]["epsilon"] = None
    (run / "result.json").write_text(json.dumps(result))
    assert "without bound" in read(run, cache)
    show(result, run, run / "report.html")
    shown = capsys.readouterr().out
    assert "news: epsilon without bound at delta 1e-05" in shown
    assert "shop<b>: epsilon 4.000 at delta 1e-05" in shown


def test_without_matplotlib_there_are_tables_and_a_hint(run, cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    text = read(run, cache)
    assert "0.1234" in text
    assert ".[plots]" in text
    assert "<svg" not in (run / "report.html").read_text()


def test_a_folder_that_is_no_run_is_refused(tmp_path, cache):
    with pytest.raises(ConfigError, match="holds no readable"):
        write_report(tmp_path, cache)


@pytest.mark.parametrize("count", [1, 3])
def test_a_map_has_a_panel_for_each_domain_and_one_for_all(count):
    from simulations.plots import svg_map

    draw = np.random.default_rng(0)
    group = np.array([0, 1] * 5)
    views = [
        View(
            f"d{n}",
            "genre",
            ("Jazz", "other"),
            group,
            *draw.normal(size=(2, 10, 2)),
            (0.5, 0.25),
            draw.normal(size=(10, 2)),
        )
        for n in range(count)
    ]
    drawing = svg_map(views)
    assert drawing.startswith("<svg")
    assert len(re.findall("d[0-9], by genre", drawing)) >= count
    assert ("items of all domains" in drawing) == (count > 1)
    assert "currentColor" in drawing
    assert "#010203" not in drawing
