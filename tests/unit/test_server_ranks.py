"""Two matrices of rank 2 by hand. Sizes of directions: query 3 * 1 and 1 * 2, value 0 and 5 * 1."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.aggregate import weighted_mean
from server.ranks import allocate, budget
from server.rounds import ServerState, step
from shared.errors import ConfigError
from shared.payload import AdapterUpdate
from shared.plan import FederationPlan, Plan, read_plan


def floats(*rows):
    return np.array(rows, np.float32)


def adapter():
    return {
        "top.query.lora_A.weight": floats([1, 0, 0], [0, 2, 0]),
        "top.query.lora_B.weight": floats([3, 0], [0, 1]),
        "top.value.lora_A.weight": floats([1, 0, 0], [0, 0, 1]),
        "top.value.lora_B.weight": floats([0, 3], [0, 4]),
        "user.tower": floats([7]),
    }


@pytest.mark.parametrize(
    ("mean_rank", "query", "value"),
    [
        (0.5, [[0, 0], [0, 0]], [[0, 3], [0, 4]]),  # one direction in all: value's second
        (1, [[3, 0], [0, 0]], [[0, 3], [0, 4]]),
        (1.5, [[3, 0], [0, 1]], [[0, 3], [0, 4]]),
        (2, [[3, 0], [0, 1]], [[0, 3], [0, 4]]),
        (0, [[0, 0], [0, 0]], [[0, 0], [0, 0]]),
    ],
)
def test_the_largest_directions_of_all_matrices_stay(mean_rank, query, value):
    given_one = adapter()
    found, ranks = allocate(given_one, mean_rank)
    np.testing.assert_array_equal(found["top.query.lora_B.weight"], query)
    np.testing.assert_array_equal(found["top.value.lora_B.weight"], value)
    assert ranks == {"top.query": np.any(query, axis=0).sum(), "top.value": np.any(value, axis=0).sum()}
    for name in ("top.query.lora_A.weight", "top.value.lora_A.weight", "user.tower"):
        np.testing.assert_array_equal(found[name], given_one[name])
    np.testing.assert_array_equal(given_one["top.query.lora_B.weight"], adapter()["top.query.lora_B.weight"])


def test_without_adapters_there_is_nothing_to_allocate():
    assert allocate({"user.tower": floats([7])}, 2) == ({"user.tower": floats([7])}, {})


@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_nothing_that_is_left_out_is_larger_than_what_stays(matrices, rank, seed):
    draw = np.random.default_rng(seed)
    given_one = {}
    for number in range(matrices):
        given_one[f"m{number}.lora_A.weight"] = draw.normal(size=(rank, 5)).astype(np.float32)
        given_one[f"m{number}.lora_B.weight"] = draw.normal(size=(3, rank)).astype(np.float32)
    mean_rank = draw.uniform(0, rank)
    found, ranks = allocate(given_one, mean_rank)
    stays, goes = [], []
    for number in range(matrices):
        a, b = (given_one[f"m{number}.lora_{part}.weight"] for part in "AB")
        for place in range(rank):
            product = np.linalg.norm(np.outer(b[:, place], a[place]))
            (stays if found[f"m{number}.lora_B.weight"][:, place].any() else goes).append(product)
    assert len(stays) == sum(ranks.values()) == round(mean_rank * matrices)
    assert min(stays, default=np.inf) >= max(goes, default=0) - 1e-5


def test_the_budget_falls_to_its_mean_in_the_last_round():
    plan = FederationPlan(rounds=4, mean_rank=2)
    # 2 + 6 (1 - t / 4)^3
    assert [budget(plan, 8, number) for number in (1, 2, 3, 4)] == [4.53125, 2.75, 2.09375, 2]
    assert budget(plan, 8, 5) == 2


def test_a_round_allocates_what_it_has_joined():
    start = {name: np.zeros_like(value) if "lora_B" in name else value for name, value in adapter().items()}
    released = frozenset(name for name in start if "lora_B" in name)
    asked = Plan(federation=FederationPlan(rounds=1, mean_rank=1))
    state = ServerState(1, replace(asked, model=replace(asked.model, rank=2)), start, released, "base")
    delta = {name: value for name, value in adapter().items() if name in released}
    after = step(state, lambda task: [AdapterUpdate("video", 1, delta, 64.0, "base")], weighted_mean(4096))
    assert after.report["ranks"] == {"top.query": 1, "top.value": 1}
    np.testing.assert_array_equal(after.adapter["top.query.lora_B.weight"], [[3, 0], [0, 0]])
    whole = step(
        replace(state, plan=Plan()), lambda task: [AdapterUpdate("video", 1, delta, 64.0, "base")], weighted_mean(4096)
    )
    assert "ranks" not in whole.report
    np.testing.assert_array_equal(whole.adapter["top.query.lora_B.weight"], [[3, 0], [0, 1]])


def test_more_than_there_is_cannot_be_left():
    with pytest.raises(ConfigError, match=r"federation.mean_rank: expected at most model.rank, 8, .* found 9"):
        read_plan({"federation": {"mean_rank": 9}})
