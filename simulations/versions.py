"""Which releases a run was made with."""

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("isthmus", "flwr", "torch", "transformers", "peft", "opacus", "grpcio", "numpy", "polars", "safetensors")


def versions() -> dict[str, str]:
    """Package -> installed version; with Python's own."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
