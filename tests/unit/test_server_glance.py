"""The federation at a glance, from run directories written by hand."""

import json

import pytest
from support.fake_member import fake_plan, fake_start

from server import registry
from server.glance import check_run, glance, spent
from server.rounds import ServerState
from shared.config import apply_sets
from shared.errors import ConfigError
from shared.plan import Plan, read_plan

TWO = [
    {
        "round": 1, "domains": ["shop", "video"], "refused": {}, "failed": {}, "seconds": 1.0, "moved": {"x": 1.0},
        "weights": {"shop": 64.0, "video": 128.0}, "quality": {"shop": 0.1},
        "bytes": {"shop": {"down": 10, "up": 5}, "video": {"down": 10, "up": 5}},
        "affinity": {"shop": {"video": 0.1}}, "cosines": {}, "shares": {"shop": {"video": 0.5}},
    },
    {
        "round": 2, "domains": ["video"], "refused": {"shop": "is all zeros"}, "failed": {"news": "no answer"},
        "weights": {"video": 256.0}, "quality": {}, "bytes": {"video": {"down": 11, "up": 6}},
        "affinity": {"video": {}}, "cosines": {}, "shares": {"video": {}},
    },
]  # fmt: skip


@pytest.fixture
def run(tmp_path):
    plan = fake_plan(3)
    registry.begin(tmp_path, ServerState(1, plan, *fake_start(plan)))
    for report in TWO:
        registry.append_round(tmp_path, report)
    registry.write(tmp_path / "current", b"round-0002\n")
    return tmp_path


def test_domains_and_rounds(run):
    found = glance(run)
    assert (found["rounds_done"], found["round"], found["state"]) == (2, 2, "stopped")
    assert found["affinity"] == {"affinity": {"video": {}}, "shares": {"video": {}}}
    assert "moved" not in found["rounds"][0]
    news, shop, video = found["domains"]
    assert news["refused"] == [{"round": 2, "reason": "no answer"}]
    assert (news["last_round"], news["weight_class"]) == (None, None)
    assert shop["refused"] == [{"round": 2, "reason": "is all zeros"}]
    assert shop["quality"] == [{"round": 1, "ndcg@10": 0.1}]
    assert (shop["last_round"], video["last_round"], video["weight_class"]) == (1, 2, 256.0)
    assert video["bytes"] == [{"round": 1, "down": 10, "up": 5}, {"round": 2, "down": 11, "up": 6}]
    assert video["privacy"] is None
    json.dumps(found)


def test_states(run):
    (run / "members.json").write_text(json.dumps({"wanted": 3, "connected": 1, "names": ["shop"], "phase": "waiting"}))
    with registry.owned(run, "server"):
        found = glance(run)
        assert (found["state"], found["round"], found["connected"], found["wanted"]) == ("waiting", 3, 1, 3)
        assert [one["connected"] for one in found["domains"]] == [False, True, False]
        (run / "members.json").write_text(json.dumps({"phase": "training", "answered": ["shop"]}))
        assert (glance(run)["state"], glance(run)["answered"]) == ("running", ["shop"])
    assert glance(run)["state"] == "stopped"  # its server was killed
    (run / "members.json").write_text('{"phase": "trai')  # half written
    registry.write(run / "current", b"round-0003\n")
    assert glance(run)["state"] == "done"
    (run / "job.json").write_text("{}")  # of a run with domains, which wait for the final adapter
    assert (glance(run)["state"], "delivers the final adapter" in glance(run)["reason"]) == ("stopped", True)
    (run / "done.json").write_text("{}")
    assert glance(run)["state"] == "done"
    (run / "error.json").write_text(json.dumps({"reason": "round 3: no usable update"}))
    assert (glance(run)["state"], glance(run)["reason"]) == ("failed", "round 3: no usable update")


def test_looking_does_not_keep_a_server_from_starting(run):
    """Its lock is free again before a server gives up."""
    import threading

    stop = threading.Event()
    looker = threading.Thread(target=lambda: [glance(run) for _ in iter(stop.is_set, True)])
    looker.start()
    try:
        for _ in range(10):
            with registry.owned(run, "server", 1.0):
                pass
    finally:
        stop.set()
        looker.join()


def test_privacy_by_the_plans_noise():
    assert spent(Plan(), 64.0, 2) is None
    # An epsilon that nobody would take: beyond 50 the quick bound alone is asked.
    plan = read_plan(apply_sets({}, ["privacy.epsilon=60", "federation.rounds=2", "privacy.steps=1"]))
    one, two = spent(plan, 1024.0, 1), spent(plan, 1024.0, 2)
    assert (one["whole_run"], one["rounds"], one["delta"]) == (60.0, 1, 1e-5)
    assert 0 < one["so_far"] < two["so_far"] <= 60.0
    assert two["so_far"] > 59
    assert spent(plan, None, 0)["so_far"] == 0.0
    assert spent(plan, None, 2)["so_far"] is None  # a secure sum hides the size class
    assert "ledger" in two["by"]


def test_no_run(tmp_path):
    with pytest.raises(ConfigError, match="holds no run"):
        check_run(tmp_path)
