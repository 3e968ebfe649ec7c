"""Two clients by hand: adapter b = [1, 1]; deltas [1, 2] with weight 1 and [4, 8] with weight 2.

mean = (1*[1, 2] + 2*[4, 8]) / 3 = [3, 6], so b becomes [4, 7]. All numbers are exact in float32.
"""

from dataclasses import replace

import numpy as np
import pytest

from server.aggregate import weighted_mean
from server.rounds import ServerState, step
from shared.errors import FederationError
from shared.payload import AdapterUpdate, Task
from shared.plan import Plan


def state() -> ServerState:
    adapter = {"a": np.array([5, 5], np.float32), "b": np.array([1, 1], np.float32)}
    return ServerState(1, Plan(), adapter, frozenset({"b"}), "base")


def update(domain: str, delta: list[float], weight: float = 1.0, number: int = 1, base: str = "base") -> AdapterUpdate:
    return AdapterUpdate(domain, number, {"b": np.array(delta, np.float32)}, weight, base)


GOOD = [update("book", [1, 2]), update("video", [4, 8], 2.0)]


def test_two_clients_by_hand():
    asked: list[Task] = []

    def carry(task_for) -> list[AdapterUpdate]:
        asked.append(task_for("book"))
        return GOOD

    after = step(state(), carry, weighted_mean(4096))
    assert [(task.kind, task.round, task.base) for task in asked] == [("train", 1, "base")]
    np.testing.assert_array_equal(after.adapter["b"], np.array([4, 7], np.float32))
    np.testing.assert_array_equal(after.adapter["a"], state().adapter["a"])  # not released: as it was
    assert after.round == 2
    assert after.report["domains"] == ["book", "video"]
    assert after.report["update_norms"] == {"book": pytest.approx(5**0.5), "video": pytest.approx(80**0.5)}
    assert after.report["moved"] == {"b": 6.0}
    assert after.report["weights"] == {"book": 1.0, "video": 2.0}
    assert after.report["quality"] == {}
    assert after.report["refused"] == {}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (update("music", [1, 1], number=2), "answers round 2, this is round 1"),
        (update("music", [1, 1], base="other"), "another base model"),
        (update("music", [1, 1], weight=float("nan")), "declares weight nan"),
        (update("music", [1, 1], weight=-1), "declares weight -1"),
        (update("music", [1, float("inf")]), "not finite"),
        (update("music", [1, -3e38]), "moves a number by 3e+38, expected 1e+09 at most"),
        (update("music", [1, 1, 1]), "has shape"),
        (update("music", [0, 0]), "all zeros"),
        (replace(update("music", [1, 1]), quality=1.01), "declares a quality of 1.01"),
        (replace(update("music", [1, 1]), quality=float("nan")), "declares a quality of nan"),
        (replace(update("music", [1, 1]), quality=float("-inf")), "declares a quality of -inf"),
        (replace(update("music", [1, 1]), delta={}), "lacks tensor 'b'"),
    ],
)
def test_a_bad_update_is_left_out_with_its_reason(bad, reason):
    after = step(state(), lambda task: [GOOD[0], bad, GOOD[1]], weighted_mean(4096))
    np.testing.assert_array_equal(after.adapter["b"], np.array([4, 7], np.float32))
    assert list(after.report["refused"]) == ["music"]
    assert reason in after.report["refused"]["music"]


def test_a_quality_that_travels_is_kept_to_two_digits():
    after = step(state(), lambda task: [replace(GOOD[0], quality=0.1268), GOOD[1]], weighted_mean(4096))
    assert after.report["quality"] == {"book": 0.13}


def test_a_domain_counts_once():
    after = step(state(), lambda task: [*GOOD, update("video", [100, 100])], weighted_mean(4096))
    np.testing.assert_array_equal(after.adapter["b"], np.array([4, 7], np.float32))
    assert after.report["refused"] == {"video": "answered this round already"}


def test_no_update_raises_and_leaves_the_state_as_it_was():
    before = state()
    kept = {key: value.copy() for key, value in before.adapter.items()}
    with pytest.raises(FederationError, match=r"no usable update this round.*; music: .*all zeros"):
        step(before, lambda task: [update("music", [0, 0])], weighted_mean(4096))
    with pytest.raises(FederationError, match="no usable update this round"):
        step(before, lambda task: [], weighted_mean(4096))
    assert before.round == 1
    for key, value in kept.items():
        np.testing.assert_array_equal(before.adapter[key], value)
    assert step(before, lambda task: GOOD, weighted_mean(4096)).round == 2


def test_the_report_does_not_depend_on_the_order_of_tensors():
    draw = np.random.default_rng(0)
    names = [f"t{row}" for row in range(50)]
    adapter = {name: draw.normal(size=7).astype(np.float32) for name in names}
    start = ServerState(1, Plan(), adapter, frozenset(names), "base")
    there = AdapterUpdate("video", 1, adapter, 1.0, "base")
    back = replace(there, delta=dict(reversed(adapter.items())))
    reports = [step(start, lambda task, sent=sent: [sent], weighted_mean(4096)).report for sent in (there, back)]
    assert reports[0] == reports[1]
