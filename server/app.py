"""Flower ServerApp: runs the rounds that the launcher prepared in the run directory."""

import json
import time
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from server import registry
from server.aggregate import aggregator_for
from server.carrier import carrier_for, finish
from server.members import FINISHING, Members
from server.rounds import ServerState, step, tasks
from shared.errors import ConfigError, FederationError

TAKEOVER_S = 60.0

app = ServerApp()


@app.main()  # type: ignore[untyped-decorator]
def main(grid: Grid, context: Context) -> None:
    """One whole run. What goes wrong is left in error.json and fails the run."""
    run_dir = Path(str(context.run_config["run-dir"]))
    try:
        # The ServerApp of a killed launcher may still be dying: two may not write here.
        with registry.owned(run_dir, "ServerApp", TAKEOVER_S):
            conduct(grid, run_dir)
    except Exception as error:
        registry.note_failure(run_dir, error)
        raise


def conduct(grid: Grid, run_dir: Path) -> None:
    """The rounds that are left, then the final adapter to every member, then the mark that all is done."""
    job = read_job(run_dir)

    def note(now: dict[str, Any]) -> None:
        registry.write(run_dir / "members.json", json.dumps(now).encode())

    members = Members(int(job["clients"]), float(job["wait_s"]), note)
    timeout_s = float(job["round_timeout_s"])
    state = registry.load_state(run_dir)
    while state.round <= state.plan.federation.rounds:
        state = one_round(grid, run_dir, state, members, timeout_s)
    failed: dict[str, str] = {}
    members.begin(state.round, FINISHING)
    last = tasks(state, aggregator_for(state.plan), "finish")
    kept = finish(grid, last, members, timeout_s, failed.__setitem__)
    registry.write(run_dir / "done.json", json.dumps({"kept": kept, "failed": failed}).encode())


def one_round(grid: Grid, run_dir: Path, state: ServerState, members: Members, timeout_s: float) -> ServerState:
    """A round, on disk when it returns."""
    start = time.monotonic()
    failed: dict[str, str] = {}
    members.begin(state.round)
    try:
        state = step(
            state, carrier_for(state, grid, members, timeout_s, failed.__setitem__), aggregator_for(state.plan)
        )
    except FederationError as error:
        reasons = "".join(f"; {who}: {why}" for who, why in sorted(failed.items()))
        raise FederationError(f"round {state.round}: {error}{reasons}") from None
    seconds = round(time.monotonic() - start, 2)
    state = registry.with_report(state, failed=failed, seconds=seconds, bytes=members.traffic())
    registry.save_state(run_dir, state)
    registry.append_round(run_dir, state.report)
    return state


def read_job(run_dir: Path) -> dict[str, float]:
    """What the launcher asked for: clients, wait_s, round_timeout_s."""
    try:
        job = json.loads((run_dir / "job.json").read_bytes())
        return {key: float(job[key]) for key in ("clients", "wait_s", "round_timeout_s")}
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"expected job.json in {str(run_dir)!r}; start runs with python -m server") from None
