"""Who is there and what went to and fro, over a grid of two nodes: node 1 answers 5 bytes, node 2 refuses."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from support.fake_member import FakeMember, fake_plan, fake_start

from server import carrier
from server.members import FINISHING, Members
from shared.errors import FederationError
from shared.payload import Task, update_to_bytes
from shared.wire import Answer

TASK = Task("train", 1, fake_plan(), *fake_start(fake_plan())[::2])
ANSWERS = {1: Answer("video", b"12345"), 2: Answer("shop", reason="too dear")}


class TwoNodes:
    """Answers at once; node 3 never does. Flower's own messages can be made within a run alone."""

    def __init__(self, nodes: list[int], monkeypatch) -> None:
        self.nodes = nodes
        monkeypatch.setattr(carrier, "_send", lambda grid, records: {f"m{node}": node for node in records})
        monkeypatch.setattr(carrier, "_answer", lambda reply: ANSWERS[reply.node])

    def get_node_ids(self) -> list[int]:
        return self.nodes

    def pull_messages(self, ids: list[str]) -> list[SimpleNamespace]:
        nodes = [int(one[1:]) for one in ids if int(one[1:]) in ANSWERS]
        return [SimpleNamespace(node=node, metadata=SimpleNamespace(reply_to_message_id=f"m{node}")) for node in nodes]


def test_bytes_and_answers_of_a_round(monkeypatch):
    noted: list[dict] = []
    members = Members(2, 1.0, noted.append)
    grid = TwoNodes([2, 1, 3], monkeypatch)
    assert carrier.wait_for(grid, members, 0.01) == [1, 2, 3]
    members.begin(4)
    told: dict[str, str] = {}
    answers = carrier.ask(grid, {1: b"x" * 7, 2: b"x" * 9, 3: b"x"}, 0.2, members, told.__setitem__, 0.01)
    assert [answer.domain for answer in answers.values()] == ["video"]
    assert told == {"shop": "too dear", "node 3": "no answer within 0.2 s"}
    expected = {"video": {"down": 7, "up": 5}, "shop": {"down": 9, "up": 0}, "node 3": {"down": 1, "up": 0}}
    assert members.traffic() == expected
    assert noted[0] == {"wanted": 2, "connected": 3, "names": [], "round": 0, "phase": "waiting", "answered": []}
    assert noted[-1] == members.now()
    now = {"names": ["shop", "video"], "round": 4, "phase": "training", "answered": ["video"]}
    assert now.items() <= noted[-1].items()
    members.begin(5, FINISHING)
    assert (members.traffic(), noted[-1]["phase"], noted[-1]["answered"]) == ({}, "finishing", [])
    count = len(noted)
    members.see([1, 2, 3])
    assert len(noted) == count  # nothing changed, nothing is written


def test_who_left_is_seen_while_answers_are_waited_for(monkeypatch):
    monkeypatch.setattr(carrier, "LOOK_S", 0.0)
    noted: list[dict] = []
    members = Members(1, 1.0, noted.append)
    grid = TwoNodes([3], monkeypatch)
    carrier.wait_for(grid, members, 0.01)
    grid.nodes = []
    carrier.ask(grid, {3: b"x"}, 0.05, members, lambda who, why: None, 0.01)
    assert noted[-1]["connected"] == 0
    members.wait_s = 0.0
    with pytest.raises(FederationError, match="0 of 1 domains came within 0"):
        carrier.wait_for(grid, members, 0.01)


def own(domain: str) -> Task:
    """In the second round: each domain has a tower of its own."""
    return replace(TASK, round=2, adapter={**TASK.adapter, "tower": np.full(3, len(domain), np.float32)})


def test_who_was_not_known_and_started_from_anothers_towers_is_left_out(monkeypatch):
    grid = TwoNodes([1], monkeypatch)
    raw = update_to_bytes(FakeMember("video").train(own("")))
    monkeypatch.setitem(ANSWERS, 1, Answer("video", raw))
    monkeypatch.setattr(carrier, "meet", lambda *words: None)  # it did not say in time whose it is
    members, told = Members(1, 1.0), {}
    carry = carrier.grid_carrier(grid, members, 1.0, told.__setitem__, 0.01)
    assert list(carry(own)) == []
    assert "was not known when tasks went out" in told["video"]
    assert [update.domain for update in carry(own)] == ["video"]  # it is known now
    assert [update.domain for update in carry(lambda domain: own("same"))] == ["video"]


def test_who_does_not_say_which_domain_it_is_gets_no_final_adapter(monkeypatch):
    grid = TwoNodes([1, 3], monkeypatch)
    members, told = Members(1, 1.0, names={1: "video"}), {}
    monkeypatch.setattr(carrier, "MEET_S", 0.05)
    kept = carrier.finish(grid, own, members, 1.0, told.__setitem__, 0.01)
    assert kept == ["video"]
    assert list(told) == ["node 3"]
    assert "did not say" in told["node 3"]


def test_where_all_get_one_adapter_who_does_not_say_its_name_gets_it_too(monkeypatch):
    grid = TwoNodes([1, 3], monkeypatch)
    members, told = Members(1, 1.0, names={1: "video"}), {}
    monkeypatch.setattr(carrier, "meet", lambda *words: None)
    monkeypatch.setitem(ANSWERS, 3, Answer("music"))
    kept = carrier.finish(grid, lambda domain: own("same"), members, 1.0, told.__setitem__, 0.01)
    assert kept == ["music", "video"]
    assert told == {}


def test_a_secure_sum_waits_for_three_also_in_a_later_round(monkeypatch):
    members = Members(3, 0.0, met=True)
    with pytest.raises(FederationError, match="2 of 3 domains came"):
        carrier.wait_for(TwoNodes([1, 2], monkeypatch), members, 0.01, 3)
