"""What a run was made with: the code, the releases of libraries, the data."""

import hashlib
import json
import platform
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from client.dataset import Domain
from client.telltale import without_telltales
from shared.model import base_fingerprint
from shared.plan import Plan
from shared.prefix import find_base

PACKAGES = ("isthmus", "flwr", "torch", "transformers", "peft", "opacus", "grpcio", "numpy", "polars", "safetensors")


CODE = (":/*.py", ":/pyproject.toml", ":/constraints.txt")  # not the answers that benchmarks write beside it


@cache
def commit() -> str:
    """The code's, as git has it when first asked, with a ``+`` where files had been changed.

    Empty without git, or outside of its own repository.
    """
    if (git := shutil.which("git")) is None:
        return ""

    def told(*words: str) -> str:
        call = [git, "-C", str(Path(__file__).parent), *words]
        found = subprocess.run(call, capture_output=True, text=True, check=False)  # noqa: S603
        return found.stdout.strip() if found.returncode == 0 else ""

    if told("rev-parse", "--show-toplevel") != str(Path(__file__).resolve().parents[1]):
        return ""  # a repository around it, of something else
    name = told("rev-parse", "--short", "HEAD")
    return name + "+" if name and told("status", "--porcelain", "--untracked-files=no", "--", *CODE) else name


def versions() -> dict[str, str]:
    """Package -> installed version; with Python's own."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def fingerprints(plan: Plan, domains: Sequence[Domain]) -> dict[str, Any]:
    """Of the base, and by domain of its catalogue, of who its users are, of all that they did.

    What differs in one of them is another run, and where users differ another deal. Nobody can be read off them.
    """
    return {
        "base": base_fingerprint(plan.model, find_base(plan.model.base)),
        "catalogues": {domain.name: domain.catalog.fingerprint for domain in domains},
        "users": {domain.name: _digest(json.dumps(domain.interactions.user_ids).encode()) for domain in domains},
        "interactions": {domain.name: _of_events(domain, plan) for domain in domains},
    }


def _of_events(domain: Domain, plan: Plan) -> str:
    data = domain.interactions if plan.private else without_telltales(domain)[0]
    columns = (data.users, data.items, data.behaviours, data.times, data.weights)
    return _digest(b"".join(column.tobytes() for column in columns))


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
