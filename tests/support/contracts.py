"""One class per seam; every implementation inherits it."""

import itertools

import numpy as np
import pytest

from server.rule import Aggregator
from shared.errors import FederationError
from shared.payload import AdapterUpdate, Tensors


def updates(count: int = 4, seed: int = 0) -> list[AdapterUpdate]:
    """Updates whose sums are exact in float64, so that their order cannot show in the last bit."""
    draw = np.random.default_rng(seed)

    def delta() -> Tensors:
        return {"b": draw.integers(-8, 9, (3, 2)).astype(np.float32), "t": draw.integers(-8, 9, 4).astype(np.float32)}

    return [AdapterUpdate(f"domain{row}", 1, delta(), float(2**row), "base") for row in range(count)]


class AggregatorContract:
    """What the round relies on, whatever the rule."""

    def make(self, cap: float) -> Aggregator:
        raise NotImplementedError

    def delta(self, given: list[AdapterUpdate], cap: float = 4096.0) -> Tensors:
        """What the first of the domains by name gets: the common change, and what is its own."""
        aggregator = self.make(cap)
        delta, memory, _ = aggregator.apply(aggregator.init(), iter(given))
        own = aggregator.offsets(memory, min(update.domain for update in given)) if given else {}
        return {**delta, **own}

    def test_the_order_of_clients_does_not_matter(self):
        expected = self.delta(updates())
        for order in itertools.permutations(updates()):
            for key, value in self.delta(list(order)).items():
                np.testing.assert_array_equal(value, expected[key])

    def test_what_all_agree_on_comes_out(self):
        same = updates(1)[0].delta
        given = [AdapterUpdate(f"d{row}", 1, same, float(2**row), "base") for row in range(3)]
        for key, value in self.delta(given).items():
            np.testing.assert_array_equal(value, same[key])

    def test_one_client_alone_is_followed(self):
        (only,) = updates(1)
        for key, value in self.delta([only]).items():
            np.testing.assert_array_equal(value, only.delta[key])

    def test_inputs_are_untouched(self):
        given, fresh = updates(), updates()
        self.delta(given)
        for used, clean in zip(given, fresh, strict=True):
            for key, value in clean.delta.items():
                np.testing.assert_array_equal(used.delta[key], value)

    def test_names_shapes_and_kind_are_kept(self):
        got = self.delta(updates())
        expected = updates(1)[0].delta
        assert {key: (value.shape, value.dtype) for key, value in got.items()} == {
            key: (value.shape, value.dtype) for key, value in expected.items()
        }

    def test_no_domain_weighs_more_than_the_cap(self):
        given = updates(2)
        heavy = AdapterUpdate("heavy", 1, given[1].delta, 1e12, "base")
        capped = AdapterUpdate("heavy", 1, given[1].delta, 8.0, "base")
        for key, value in self.delta([given[0], heavy], cap=8.0).items():
            np.testing.assert_array_equal(value, self.delta([given[0], capped])[key])

    def test_no_update_is_an_error(self):
        with pytest.raises(FederationError, match="no usable update"):
            self.delta([])

    def test_the_log_says_whether_it_is_exact(self):
        assert self.make(1.0).note.partition(":")[0] in {"exact", "inexact"}
