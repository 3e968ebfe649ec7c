"""A federation's model as it is given away, a folder:

    adapter/             the adapters, in PEFT's own format
    towers.safetensors   all else that is everyone's
    manifest.json        format, round, plan, base, SHA-256 of the others; written last

It holds what every member has, and nothing of any user. Whoever reads a folder trusts nothing in it.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load, save_file

from shared.errors import ConfigError, DataError
from shared.lora import save_adapter
from shared.model import Recommender
from shared.payload import Tensors, dense
from shared.plan import Plan, plan_from_json
from shared.whole import PUBLIC, read_bounded, write_whole

FORMAT = 1
MANIFEST, TOWERS, ADAPTER = "manifest.json", "towers.safetensors", "adapter/adapter_model.safetensors"
AGAIN = "copy the whole folder again"
MOST_MANIFEST = 2**20  # bytes
MOST_BYTES = 2**28  # of a file of tensors


@dataclass(frozen=True)
class Exported:
    """What an adapter is, and where it comes from."""

    adapter: Tensors
    plan: Plan  # its base by name alone: a path of another machine says nothing here
    base: str  # fingerprint
    round: int  # after which it was


def write_exported(
    out: Path, model: Recommender, adapter: Tensors, plan: Plan, base: str, number: int, about: dict[str, Any]
) -> dict[str, Any]:
    """Write the folder; its manifest, ``about`` in it. ``model`` tells PEFT's settings, its weights do not matter."""
    lora = {name: value for name, value in adapter.items() if ".lora_" in name}  # under PEFT's own names
    out.mkdir(parents=True, exist_ok=True)
    save_adapter(model.top.wrapped, lora, out / "adapter")
    save_file(dense({name: value for name, value in adapter.items() if name not in lora}), out / TOWERS)
    settings = json.loads(plan.to_json())
    settings["model"]["base"] = Path(plan.model.base).name
    manifest = {
        "format": FORMAT,
        "round": number,
        "base": base,
        "plan": settings,
        **about,
        "sha256": {str(path.relative_to(out)): _sha256(path) for path in sorted(out.rglob("*")) if path.is_file()},
    }
    write_whole(out / MANIFEST, json.dumps(manifest, indent=1).encode(), PUBLIC)
    return manifest


def read_exported(folder: Path) -> Exported:
    """Raises DataError for a folder that is none, is damaged, or goes beyond the limits above.

    Whether the tensors fit a model is not known here: ``payload.check_like``.
    """
    place = folder / MANIFEST
    if not place.is_file():
        raise DataError(
            f"{folder} holds no exported model; who runs the server makes one: python -m server export --out FOLDER"
        )
    try:
        manifest = json.loads(read_bounded(place, MOST_MANIFEST, AGAIN).decode("utf-8"))
        known, base, number = manifest["format"], manifest["base"], manifest["round"]
        hashes = {name: manifest["sha256"][name] for name in (ADAPTER, TOWERS)}
        plan = plan_from_json(json.dumps(manifest["plan"]))
    except (ValueError, KeyError, TypeError, RecursionError, ConfigError) as error:
        raise DataError(f"{place} is no manifest of this version ({type(error).__name__}); export it again") from None
    if known != FORMAT or not isinstance(base, str) or type(number) is not int or number < 0:
        raise DataError(f"{place}: expected a model of format {FORMAT}; export it with this version")
    adapter: Tensors = {}
    for name, digest in hashes.items():
        raw = read_bounded(folder / name, MOST_BYTES, AGAIN)
        if hashlib.sha256(raw).hexdigest() != digest:
            raise DataError(f"{folder / name} is damaged: its SHA-256 is not the one in {MANIFEST}; copy it again")
        try:
            adapter |= load(raw)
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder / name} holds no tensors ({type(error).__name__}); export it again") from None
    return Exported(adapter, plan, base, number)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
