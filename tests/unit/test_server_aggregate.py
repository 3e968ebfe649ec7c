import numpy as np
from support.contracts import AggregatorContract

from server.aggregate import AGGREGATORS, fedavg, weighted_mean
from server.rule import Aggregator
from shared.payload import AdapterUpdate
from shared.plan import FAMILIES


class TestWeightedMean(AggregatorContract):
    def make(self, cap: float) -> Aggregator:
        return weighted_mean(cap)


class TestFedAvg(AggregatorContract):
    def make(self, cap: float) -> Aggregator:
        return fedavg(cap)

    def test_it_says_that_it_is_inexact(self):
        assert self.make(1.0).note.startswith("inexact")


def test_each_family_of_the_plan_has_an_aggregator():
    assert AGGREGATORS.keys() == set(FAMILIES)


def test_weights_by_hand():
    # (1*2 + 3*6) / (1 + 3) = 5
    given = [
        AdapterUpdate("book", 1, {"b": np.array([2], np.float32)}, 1.0, "base"),
        AdapterUpdate("video", 1, {"b": np.array([6], np.float32)}, 3.0, "base"),
    ]
    delta, memory, _ = weighted_mean(4096).apply(None, given)
    assert delta["b"].tolist() == [5.0]
    assert memory is None


def test_mean_of_b_is_exact_while_a_is_common():
    # mean(B) A = mean(B A): both sides from the same draw, equal to float32 rounding
    draw = np.random.default_rng(1)
    a = draw.normal(size=(4, 6)).astype(np.float32)
    given = [
        AdapterUpdate(f"d{row}", 1, {"b": draw.normal(size=(5, 4)).astype(np.float32)}, 1.0, "x") for row in (0, 1)
    ]
    delta, _, _ = weighted_mean(4096).apply(None, given)
    np.testing.assert_allclose(delta["b"] @ a, sum(one.delta["b"] @ a for one in given) / 2, rtol=1e-5, atol=1e-6)
