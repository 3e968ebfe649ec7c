"""The federation at a glance, from what its run directory holds: nothing here that the server did not see itself."""

import fcntl
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from server import registry
from server.members import WAITING
from shared.errors import BudgetError, ConfigError, FederationError
from shared.ledger import GaussianSteps
from shared.plan import Plan, PrivacyPlan, plan_from_json

RUNNING, DONE, FAILED, STOPPED = "running", "done", "failed", "stopped"
PER_PARAMETER = ("moved", "cosines")  # of a round's report: too much for a glance


def check_run(run_dir: Path) -> None:
    """Raises ConfigError where there is no run."""
    if not (run_dir / "current").is_file():
        raise ConfigError(f"{run_dir} holds no run: expected its file 'current'; pass the run directory of a server")


def glance(run_dir: Path) -> dict[str, Any]:
    """State, plan, round, domains, rounds and affinities. Raises ConfigError, FederationError for what is no run."""
    check_run(run_dir)
    plan = read_plan(run_dir)
    reports = registry.read_rounds(run_dir)
    now = read_json(run_dir / "members.json")
    done = registry.current_round(run_dir)
    state, why = state_of(run_dir, plan, done, now)
    last: Mapping[str, Any] = next((one for one in reversed(reports) if "affinity" in one), {})
    return {
        "state": state,
        "reason": why,
        "plan": essentials(plan),
        "round": min(done + 1, plan.federation.rounds) if state in (WAITING, RUNNING) else done,
        "rounds_done": done,
        "wanted": now.get("wanted"),
        "connected": now.get("connected", 0) if state in (WAITING, RUNNING) else 0,
        "answered": now.get("answered", []) if state == RUNNING else [],
        "domains": domains_of(plan, reports, now if state in (WAITING, RUNNING) else {}),
        "rounds": [{key: value for key, value in one.items() if key not in PER_PARAMETER} for one in reports],
        "affinity": {key: last[key] for key in ("affinity", "shares") if key in last} or None,
    }


def read_plan(run_dir: Path) -> Plan:
    try:
        return plan_from_json((run_dir / "plan.json").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        raise FederationError(f"{run_dir / 'plan.json'} cannot be read ({error}); restore it") from None


def read_json(path: Path) -> dict[str, Any]:
    """A file that the run's own processes write; nothing where there is none, or a part."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def essentials(plan: Plan) -> dict[str, Any]:
    """What a reader wants to know of a plan."""
    return {
        "family": plan.federation.family,
        "rounds": plan.federation.rounds,
        "secure": plan.federation.secure,
        "epsilon": plan.privacy.epsilon or None,
        "delta": plan.privacy.delta if plan.private else None,
        "base": "minilm" if plan.model.base == "minilm" else Path(plan.model.base).name,
        "top_layers": plan.model.top_layers,
        "rank": plan.model.rank,
        "shared_items": plan.model.shared_items,
    }


def state_of(run_dir: Path, plan: Plan, done: int, now: Mapping[str, Any]) -> tuple[str, str]:
    """(state, its reason where it has one). A run is alive as long as its launcher is, which the kernel knows."""
    if alive(run_dir):
        return (WAITING if now.get("phase", WAITING) == WAITING else RUNNING), ""
    if (run_dir / "error.json").is_file():
        return FAILED, str(read_json(run_dir / "error.json").get("reason", ""))
    if done >= plan.federation.rounds:
        # Without a job nobody waits for the final adapter: a run in simulation.
        if (run_dir / "done.json").is_file() or not (run_dir / "job.json").is_file():
            return DONE, ""
        return STOPPED, "no server works on it; python -m server --resume delivers the final adapter"
    return STOPPED, "no server works on it; python -m server --resume goes on after the last complete round"


def alive(run_dir: Path) -> bool:
    """Whether a server holds the run's lock."""
    try:
        with (run_dir / ".server.lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except OSError:
        return True


def domains_of(plan: Plan, reports: Sequence[Mapping[str, Any]], now: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Everybody who ever answered or was refused, by name."""
    names = {name for one in reports for name in (*one["domains"], *one.get("refused", {}), *one.get("failed", {}))}
    here = set(now.get("names", []))
    return [_domain(name, plan, reports, here) for name in sorted(names | here)]


def _domain(name: str, plan: Plan, reports: Sequence[Mapping[str, Any]], here: set[str]) -> dict[str, Any]:
    took_part = [one["round"] for one in reports if name in one["domains"]]
    trained = [one["round"] for one in reports if name in one["domains"] or name in one.get("refused", {})]
    weights = [one["weights"][name] for one in reports if name in one.get("weights", {})]
    refused = [
        {"round": one["round"], "reason": one[kind][name]}
        for one in reports
        for kind in ("refused", "failed")
        if name in one.get(kind, {})
    ]
    return {
        "name": name,
        "connected": name in here,
        "last_round": max(took_part, default=None),
        "weight_class": weights[-1] if weights else None,
        "refused": refused,
        "bytes": [{"round": one["round"], **one["bytes"][name]} for one in reports if name in one.get("bytes", {})],
        "quality": [
            {"round": one["round"], "ndcg@10": one["quality"][name]}
            for one in reports
            if name in one.get("quality", {})
        ],
        "privacy": spent(plan, weights[-1] if weights else None, len(trained)),
    }


def spent(plan: Plan, weight: float | None, rounds: int) -> dict[str, Any] | None:
    """Epsilon that the plan's noise has cost a domain after so many rounds of its own, as far as a server can know.

    A domain sets its noise so that all rounds together cost the plan's epsilon, and the share of one round hangs on the
    weight class that it declares. What runs before this one cost, the ledger in the domain's home tells alone.
    """
    if not plan.private:
        return None
    planned = plan.privacy.epsilon
    found: dict[str, Any] = {"whole_run": planned, "delta": plan.privacy.delta, "rounds": rounds, "so_far": None}
    if not rounds:
        found["so_far"] = 0.0
    elif weight is not None:
        found["so_far"] = _so_far(plan.privacy, plan.federation.rounds, weight, rounds)
    return {
        **found,
        "by": "the plan's noise for a domain of this weight class; earlier runs: in the domain's own ledger",
    }


@lru_cache(maxsize=512)
def _so_far(privacy: PrivacyPlan, planned_rounds: int, users: float, rounds: int) -> float | None:
    """None where no noise would do: then the domain refuses, too."""
    from shared.accounting import epsilon, noise_for  # heavy, and needed under a promise alone

    rate = min(1.0, privacy.lot_users / users)
    try:
        noise = noise_for(privacy.epsilon, privacy.delta, rate, planned_rounds * privacy.steps)
    except BudgetError:
        return None
    return round(min(privacy.epsilon, epsilon([GaussianSteps(noise, rate, rounds * privacy.steps)], privacy.delta)), 2)
