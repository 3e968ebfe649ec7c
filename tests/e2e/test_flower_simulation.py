"""The same rounds through Flower's simulation engine: equal to the loop, and its failures come back."""

import json
import threading

import numpy as np
import pytest
from support.fake_member import NAMES, FakeMember, carry_for, fake_plan, fake_start

from server.aggregate import weighted_mean
from server.rounds import ServerState, step
from shared.errors import ConfigError, FederationError
from simulations import flower_run
from simulations.flower_run import run_in_flower

# Ray and Flower warn of their own future; that is theirs to mend.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


def start(rounds: int = 2, secure: bool = False) -> ServerState:
    plan = fake_plan(rounds, secure=secure)
    return ServerState(1, plan, *fake_start(plan))


def write_spec(folder, behaviour="good", secure=False):
    members = {name: {"folder": f"/nowhere/{behaviour}", "home": str(folder / name)} for name in NAMES}
    spec = folder / "members.json"
    spec.write_text(json.dumps({"opener": "support.fake_member:open_fake", "secure": secure, "members": members}))
    return spec


def test_equals_the_loop_in_process(tmp_path):
    seen: list[int] = []
    aggregator = weighted_mean(4096)
    state = run_in_flower(
        start(), aggregator, 2, list(NAMES), write_spec(tmp_path), 1, lambda state: seen.append(state.round)
    )

    expected, members = start(), {name: FakeMember(name) for name in NAMES}
    for _ in range(2):
        expected = step(expected, carry_for(members), aggregator)
    assert seen == [2, 3]
    assert state.report["update_norms"] == expected.report["update_norms"]
    for key, value in expected.adapter.items():
        np.testing.assert_array_equal(state.adapter[key], value)
        for name in NAMES:
            with np.load(tmp_path / name / "kept.npz") as kept:
                np.testing.assert_array_equal(kept[key], value)


def test_a_secure_sum_equals_the_plain_one(tmp_path):
    spec = write_spec(tmp_path, secure=True)
    state = run_in_flower(start(1, secure=True), weighted_mean(4096), 1, list(NAMES), spec, 1)
    expected = step(start(1), carry_for({name: FakeMember(name) for name in NAMES}), weighted_mean(4096))
    assert state.report["domains"] == list(NAMES)
    for key, value in expected.adapter.items():
        np.testing.assert_allclose(state.adapter[key], value, rtol=1e-6, atol=1e-8)


def test_a_failure_of_the_members_comes_back(tmp_path):
    with pytest.raises(FederationError, match=r"no usable update this round.*failed inside; see the domain's log"):
        run_in_flower(start(), weighted_mean(4096), 1, list(NAMES), write_spec(tmp_path, "breaks"), 1)
    assert "u-secret-17" in (tmp_path / "video" / "domain.log").read_text()


def test_a_failure_of_the_engine_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr("ray.init", lambda **settings: 1 / 0)
    with pytest.raises(FederationError, match="simulation engine failed"):
        run_in_flower(start(), weighted_mean(4096), 1, list(NAMES), write_spec(tmp_path), 1)
    assert threading.active_count() < 20


def test_without_ray_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(flower_run, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[simulation\]'"):
        run_in_flower(start(), weighted_mean(4096), 1, list(NAMES), write_spec(tmp_path), 1)
