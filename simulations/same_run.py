"""Whether a run directory holds the run that is asked for: the same settings, on the same data."""

import json
from pathlib import Path
from typing import Any

from shared.errors import ConfigError
from shared.plan import Plan, differences, plan_from_json
from shared.whole import read_json

DAMAGED = "move the folder away, or pass another --out"


def check_plan(run: Path, plan: Plan) -> bool:
    """Whether a run of this plan is there already; a setting that came later has its usual value in it.

    Raises ConfigError on a run of another plan, DataError on a damaged one.
    """
    if not any((run / mark).exists() for mark in ("plan.json", "fingerprints.json", "result.json", "current")):
        return False
    check_settings(run, read_json(run / "plan.json", DAMAGED), plan)
    return True


def check_settings(run: Path, kept: dict[str, Any], asked: Plan) -> None:
    """Raises ConfigError, with the settings that differ, where the plan ``kept`` is not the one asked for."""
    try:
        before = plan_from_json(json.dumps(kept))
    except ConfigError:
        raise other_run(run, "settings of another version") from None
    if other := differences(before, asked):
        raise other_run(run, f"other settings ({other})")


def check_data(run: Path, kept: dict[str, Any], made: dict[str, Any]) -> None:
    """Raises ConfigError where the run's ``fingerprints`` are not those ``made`` of the data at hand."""
    if kept == made:
        return
    if not kept:
        raise other_run(run, "data that it does not name")
    there, here = (sorted(found.get("catalogues", {})) for found in (kept, made))
    if there != here:
        raise other_run(run, f"other data (domains {', '.join(there)}; asked {', '.join(here)})")
    if kept.get("base") != made["base"]:
        raise other_run(run, "another base model")
    parts = [part for part in ("catalogues", "users", "interactions") if kept.get(part) != made[part]]
    names = [name for name in here if any(kept.get(part, {}).get(name) != made[part][name] for part in parts)]
    raise other_run(run, f"other data ({', '.join(parts)} of {', '.join(names)})")


def other_run(run: Path, what: str) -> ConfigError:
    """The one line for a directory that holds something else."""
    return ConfigError(f"{run} holds a run of {what}; pass another --out")
