"""Gives a run's model away: adapters in PEFT's own format, towers as safetensors, and a manifest of both."""

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from server import registry
from server.aggregate import aggregator_for
from server.glance import check_run
from server.rounds import adapter_for
from shared.errors import BaseModelError, ConfigError
from shared.lora import save_adapter
from shared.model import Recommender, base_fingerprint
from shared.payload import common, dense
from shared.prefix import find_base

TOWERS = "towers.safetensors"


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
    lora = {name: value for name, value in adapter.items() if ".lora_" in name}  # under PEFT's own names
    out.mkdir(parents=True, exist_ok=True)
    model = Recommender(state.plan.model, base, state.plan.federation.seed)
    save_adapter(model.top.wrapped, lora, out / "adapter")
    save_file(dense({name: value for name, value in adapter.items() if name not in lora}), out / TOWERS)
    plan = json.loads(state.plan.to_json())
    plan["model"]["base"] = Path(state.plan.model.base).name  # a path of this machine says nothing elsewhere
    manifest = {
        "format": 1,
        "round": state.round - 1,
        "domain": domain,
        "base": state.base,
        "plan": plan,
        "aggregation": rule.note,
        "sha256": {str(path.relative_to(out)): _sha256(path) for path in sorted(out.rglob("*")) if path.is_file()},
    }
    registry.write(out / "manifest.json", json.dumps(manifest, indent=1).encode())
    return manifest


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
