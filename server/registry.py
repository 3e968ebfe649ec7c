"""The run directory: versioned adapters with manifests, the log of rounds, a pointer to the latest.

    plan.json                         what the federation agreed on
    adapters/round-0003.safetensors   the adapter after round 3 (round 0: as drawn)
    adapters/round-0003.json          its manifest: hashes, released names, base, report of the round
    adapters/round-0003.memory.safetensors   the aggregator's memory, where it has one
    current                           "round-0003": the last complete round
    rounds.jsonl                      one JSON object per round

Every file is written aside, fsynced and renamed, the pointer last: after ``kill -9`` the pointer names
a round that is complete.
"""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.numpy import load, save

from server.rounds import ServerState
from shared.errors import ConfigError, FederationError, IsthmusError
from shared.payload import Tensors, dense
from shared.plan import Plan, differences, plan_from_json
from shared.whole import PUBLIC, read_lines, write_whole

FORMAT = 1


def begin(run_dir: Path, start: ServerState) -> None:
    """Make a run directory that holds the plan and the adapter as drawn. Raises ConfigError when one is there."""
    refuse_used(run_dir)
    (run_dir / "adapters").mkdir(parents=True, exist_ok=True)
    write(run_dir / "plan.json", start.plan.to_json().encode())
    write(run_dir / "rounds.jsonl", b"")
    save_state(run_dir, start)


def refuse_used(run_dir: Path) -> None:
    """Raises ConfigError when a run is there already."""
    if (run_dir / "current").exists():
        raise ConfigError(f"{run_dir} already holds a run; pass --resume to go on with it, or another --run-dir")


def plan_of(run_dir: Path) -> Plan:
    """The plan that a run was begun with. Raises ConfigError when there is no run, FederationError on a damaged one."""
    return _last(run_dir).plan


def _last(run_dir: Path) -> ServerState:
    if not (run_dir / "current").exists():
        raise ConfigError(f"{run_dir} holds no run to resume; start without --resume")
    return load_state(run_dir)


def resume(run_dir: Path, plan_json: str) -> ServerState:
    """The state after the last complete round; rounds.jsonl is brought in line with it.

    Raises ConfigError when the directory holds no run or a run of another plan.
    """
    state = _last(run_dir)
    if state.plan.to_json() != plan_json:
        other = differences(state.plan, plan_from_json(plan_json))
        raise ConfigError(f"{run_dir} holds a run of another plan ({other}); use its settings or another --run-dir")
    reports = [_manifest(run_dir, number)["report"] for number in range(1, state.round)]
    write(run_dir / "rounds.jsonl", b"".join(_line(report) for report in reports))
    return state


def save_state(run_dir: Path, state: ServerState) -> None:
    """Keep what the next round needs: adapter and memory, then their manifest, then the pointer."""
    name = _name(state.round - 1)
    tensors = {f"{name}.safetensors": state.adapter}
    if state.memory is not None:
        tensors[f"{name}.memory.safetensors"] = state.memory
    hashes: dict[str, str] = {}
    for file, values in tensors.items():
        raw = save(dense(values))
        hashes[file] = hashlib.sha256(raw).hexdigest()
        write(run_dir / "adapters" / file, raw)
    manifest = {
        "format": FORMAT,
        "round": state.round - 1,
        "base": state.base,
        "released": sorted(state.released),
        "sha256": hashes,
        "report": state.report,
    }
    write(run_dir / "adapters" / f"{name}.json", json.dumps(manifest, indent=1).encode())
    write(run_dir / "current", f"{name}\n".encode())


def load_state(run_dir: Path, number: int | None = None) -> ServerState:
    """The state after round ``number``, by default the last one. Raises FederationError on a damaged file."""
    if number is None:
        number = current_round(run_dir)
    manifest = _manifest(run_dir, number)
    name = _name(number)
    try:
        plan = plan_from_json(_read(run_dir / "plan.json").decode())
        tensors = {file: _checked(run_dir, file, digest) for file, digest in manifest["sha256"].items()}
        return ServerState(
            round=number + 1,
            plan=plan,
            adapter=tensors[f"{name}.safetensors"],
            released=frozenset(manifest["released"]),
            base=manifest["base"],
            memory=tensors.get(f"{name}.memory.safetensors"),
            report=manifest["report"],
        )
    except (ConfigError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise FederationError(f"{run_dir}: plan.json or {name}.json is damaged ({error!r:.80}); restore it") from None


def current_round(run_dir: Path) -> int:
    """Number of the last complete round, 0 before the first. Raises FederationError when there is none."""
    text = _read(run_dir / "current").decode(errors="replace").strip()
    prefix, _, digits = text.partition("-")
    if prefix != "round" or not (digits.isascii() and digits.isdigit()):
        raise FederationError(f"{run_dir / 'current'}: expected round-0003 or the like, found {text[:40]!r}")
    return int(digits)


def append_round(run_dir: Path, report: dict[str, Any]) -> None:
    """Add a line to the log of rounds, on disk when this returns."""
    with (run_dir / "rounds.jsonl").open("ab") as file:
        file.write(_line(report))
        file.flush()
        os.fsync(file.fileno())


def read_rounds(run_dir: Path) -> list[dict[str, Any]]:
    """Reports of all complete lines; a line that is still being written is left out."""
    return read_lines(run_dir / "rounds.jsonl")


@contextmanager
def owned(run_dir: Path, role: str, wait_s: float = 0.0) -> Iterator[None]:
    """Be the only process in that role here. Raises FederationError when another one still is after ``wait_s``.

    The kernel lets go of the lock when its holder dies, however it dies.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_s
    with (run_dir / f".{role}.lock").open("wb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() >= deadline:
                    raise FederationError(
                        f"another {role} works in {run_dir}; stop it, or take another --run-dir"
                    ) from None
            time.sleep(0.2)
        yield


def with_report(state: ServerState, **more: Any) -> ServerState:
    """The state with facts added to its report that only the door knows (seconds, who failed)."""
    return replace(state, report={**state.report, **more})


def write(path: Path, raw: bytes) -> None:
    """The old file or the new one, never a part."""
    write_whole(path, raw, PUBLIC)


def _name(number: int) -> str:
    return f"round-{number:04d}"


def _line(report: dict[str, Any]) -> bytes:
    return json.dumps(report).encode() + b"\n"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FederationError(f"cannot read {path}: {error.strerror}; restore it or start a new run") from None


def _manifest(run_dir: Path, number: int) -> dict[str, Any]:
    path = run_dir / "adapters" / f"{_name(number)}.json"
    try:
        manifest = json.loads(_read(path))
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise FederationError(f"{path} is damaged or of another version; restore it or start a new run")
    return manifest


def _checked(run_dir: Path, file: str, digest: str) -> Tensors:
    path = run_dir / "adapters" / file
    raw = _read(path)
    if hashlib.sha256(raw).hexdigest() != digest:
        raise FederationError(
            f"{path} is damaged: its SHA-256 is not the manifest's; restore it, "
            f"or write the name of an earlier round into {run_dir / 'current'} and resume from there"
        )
    return load(raw)


def note_failure(run_dir: Path, error: BaseException) -> None:
    """Leave the one-line reason for the launcher; of an unexpected error only its kind."""
    inside = f"the server failed inside ({type(error).__name__}); see {run_dir / 'superlink.log'}"
    reason = str(error) if isinstance(error, IsthmusError) else inside
    write(run_dir / "error.json", json.dumps({"reason": reason}).encode())
