"""Where a command of the client finds the home of a finished run."""

from pathlib import Path
from typing import Any

from shared.errors import ConfigError

UNNAMED = "expected --domain NAME first, before any command; it says which domain this is"


def finished(given: dict[str, Any], run: Path | None) -> Path:
    """The home of a finished run: of ``--run``, of ``--home``, else the domain's own or the newest simulation's."""
    own = charged(given, run)
    if run is not None or given["home_given"] or (own / "home.json").is_file():
        return own
    simulated = Path("runs").glob(f"*/homes/{given['domain']}/home.json")
    newest = sorted(simulated, key=lambda path: path.stat().st_mtime)
    return newest[-1].parent if newest else own


def charged(given: dict[str, Any], run: Path | None) -> Path:
    """The home whose ledger counts: of ``--run``, else the domain's own, never one that a later simulation replaces."""
    if not given["domain"]:
        raise ConfigError(UNNAMED)
    if run is None:
        return Path(given["home"])
    place = run / "homes" / str(given["domain"])
    if not (place / "home.json").is_file():
        there = sorted(path.parent.name for path in run.glob("homes/*/home.json"))
        found = f"it holds {', '.join(there)}" if there else "it holds no finished run"
        raise ConfigError(f"--run {run}: expected a finished run of {given['domain']}; {found}")
    return place
