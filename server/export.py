"""Gives a run's model away (``shared/exported.py``)."""

from pathlib import Path
from typing import Any

from server import registry
from server.aggregate import aggregator_for
from server.glance import check_run
from server.rounds import adapter_for
from shared.errors import BaseModelError, ConfigError
from shared.exported import write_exported
from shared.model import Recommender, base_fingerprint
from shared.payload import common
from shared.prefix import find_base


def export(run_dir: Path, out: Path, domain: str | None = None, number: int | None = None) -> dict[str, Any]:
    """Write the adapter of a round, by default the last, into the new folder ``out``; the manifest.

    ``domain`` takes that domain's own mixture, where the run's rule has one; else it is what an unknown domain gets.
    Raises ConfigError, FederationError, BaseModelError.
    """
    check_run(run_dir)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"expected a new or an empty folder at {out}; choose another --out")
    if number is not None and not 0 <= number <= (last := registry.current_round(run_dir)):
        raise ConfigError(f"--round: expected 0 to {last}, found {number}")
    state = registry.load_state(run_dir, number)
    rule = aggregator_for(state.plan)
    if domain is not None and not rule.offsets(state.memory, domain):
        raise ConfigError(f"--domain: round {state.round - 1} holds nothing of {domain[:80]!r} alone; leave it out")
    base = find_base(state.plan.model.base)
    if base_fingerprint(state.plan.model, base) != state.base:
        raise BaseModelError(f"the run in {run_dir} was trained on another base model; install that one")
    adapter = common(adapter_for(state, rule, domain or ""))
    model = Recommender(state.plan.model, base, state.plan.federation.seed)
    about = {"domain": domain, "aggregation": rule.note}
    return write_exported(out, model, adapter, state.plan, state.base, state.round - 1, about)
