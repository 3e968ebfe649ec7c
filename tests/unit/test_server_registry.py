from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from server import registry
from server.rounds import ServerState
from shared.errors import ConfigError, FederationError
from shared.plan import FederationPlan, Plan


def state(number: int = 1, **more) -> ServerState:
    draw = np.random.default_rng(number)
    adapter = {"a": draw.normal(size=(3, 2)).astype(np.float32), "b": np.asfortranarray(np.ones((2, 3), np.float32))}
    adapter["b"][0, 2] = number
    return ServerState(number, Plan(), adapter, frozenset({"b"}), "base/top2", report={"round": number - 1}, **more)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    registry.begin(tmp_path / "run", state())
    return tmp_path / "run"


def keep(run_dir: Path, number: int) -> None:
    registry.save_state(run_dir, state(number))
    registry.append_round(run_dir, state(number).report)


def assert_same(left: ServerState, right: ServerState) -> None:
    assert replace(left, adapter={}, memory=None) == replace(right, adapter={}, memory=None)
    assert left.adapter.keys() == right.adapter.keys()
    for key, value in left.adapter.items():
        np.testing.assert_array_equal(value, right.adapter[key])


def test_what_is_saved_comes_back(run_dir):
    assert_same(registry.load_state(run_dir), state())
    keep(run_dir, 2)
    keep(run_dir, 3)
    assert_same(registry.load_state(run_dir), state(3))
    assert_same(registry.load_state(run_dir, 1), state(2))
    assert registry.current_round(run_dir) == 2
    assert registry.read_rounds(run_dir) == [{"round": 1}, {"round": 2}]


def test_the_aggregators_memory_comes_back(run_dir):
    memory = {"momentum": np.arange(4, dtype=np.float32)}
    registry.save_state(run_dir, state(2, memory=memory))
    np.testing.assert_array_equal(registry.load_state(run_dir).memory["momentum"], memory["momentum"])


@pytest.mark.parametrize("writes", range(3))
def test_killed_between_two_writes_the_last_complete_round_stands(run_dir, monkeypatch, writes):
    keep(run_dir, 2)
    true_write, left = registry.write, [writes]

    def dying(path: Path, raw: bytes) -> None:
        if not left[0]:
            path.with_name(f".{path.name}.tmp").write_bytes(raw[:7])
            raise KeyboardInterrupt
        left[0] -= 1
        true_write(path, raw)

    monkeypatch.setattr(registry, "write", dying)
    with pytest.raises(KeyboardInterrupt):
        registry.save_state(run_dir, state(3))
    monkeypatch.undo()
    assert_same(registry.load_state(run_dir), state(2))
    keep(run_dir, 3)  # and the round can be done again
    assert_same(registry.load_state(run_dir), state(3))


def test_resume_brings_the_log_in_line_with_the_last_complete_round(run_dir):
    keep(run_dir, 2)
    registry.save_state(run_dir, state(3))  # killed before its line was written
    with (run_dir / "rounds.jsonl").open("ab") as file:
        file.write(b'{"round": 2, "dom')  # or in the middle of it
    assert registry.read_rounds(run_dir) == [{"round": 1}]
    assert_same(registry.resume(run_dir, Plan().to_json()), state(3))
    assert registry.read_rounds(run_dir) == [{"round": 1}, {"round": 2}]


def test_a_used_directory_is_not_begun_again(run_dir):
    with pytest.raises(ConfigError, match="already holds a run; pass --resume"):
        registry.begin(run_dir, state())


def test_resume_needs_a_run_of_the_same_plan(run_dir, tmp_path):
    with pytest.raises(ConfigError, match="holds no run to resume"):
        registry.resume(tmp_path / "empty", Plan().to_json())
    with pytest.raises(ConfigError, match=r"run of another plan \(federation.rounds \d+, asked 9\)"):
        registry.resume(run_dir, Plan(federation=FederationPlan(rounds=9)).to_json())


def test_a_damaged_adapter_is_found(run_dir):
    keep(run_dir, 2)
    path = run_dir / "adapters" / "round-0001.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(FederationError, match=r"round-0001.safetensors is damaged: its SHA-256"):
        registry.load_state(run_dir)
    (run_dir / "current").write_text("round-0000\n")  # what the message proposes
    assert_same(registry.load_state(run_dir), state())


@pytest.mark.parametrize(
    ("file", "raw", "message"),
    [
        ("plan.json", b"{}}", "plan.json or round-0000.json is damaged"),
        ("plan.json", b"\xff", "plan.json or round-0000.json is damaged"),
        ("adapters/round-0000.json", b"{", "is damaged or of another version"),
        ("adapters/round-0000.json", b'{"format": 1}', "plan.json or round-0000.json is damaged"),
        ("adapters/round-0000.json", b'{"format": 1, "sha256": 3}', "plan.json or round-0000.json is damaged"),
        ("adapters/round-0000.json", b'{"format": 99}', "of another version"),
        ("current", b"../../etc", "expected round-0003 or the like"),
        ("current", b"round-", "expected round-0003 or the like"),
    ],
)
def test_other_damage_is_found(run_dir, file, raw, message):
    (run_dir / file).write_bytes(raw)
    with pytest.raises(FederationError, match=message):
        registry.load_state(run_dir)


@pytest.mark.parametrize(
    "file", ["plan.json", "current", "adapters/round-0000.json", "adapters/round-0000.safetensors"]
)
def test_a_missing_file_is_named(run_dir, file):
    (run_dir / file).unlink()
    with pytest.raises(FederationError, match=f"cannot read .*{Path(file).name}"):
        registry.load_state(run_dir)


def test_one_server_at_a_time(run_dir):
    with registry.owned(run_dir, "server"):
        with pytest.raises(FederationError, match="another server works in"), registry.owned(run_dir, "server"):
            pass
        with registry.owned(run_dir, "ServerApp"):
            pass
    with registry.owned(run_dir, "server"):
        pass


def test_failures_leave_one_line(run_dir):
    registry.note_failure(run_dir, FederationError("1 of 3 domains came"))
    assert "1 of 3 domains came" in (run_dir / "error.json").read_text()
    registry.note_failure(run_dir, ValueError("secret"))
    text = (run_dir / "error.json").read_text()
    assert "failed inside (ValueError)" in text
    assert "secret" not in text
