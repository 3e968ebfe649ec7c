"""Opens the domains of a simulation: the folders given, or the generated world."""

from collections.abc import Sequence
from pathlib import Path

from client.dataset import read_domain
from client.rounds import DomainMember, Workshop
from client.store import Home
from shared.console import Bars
from shared.errors import ConfigError
from shared.plan import Plan
from simulations.compare import Comparison
from simulations.world import write_world


def start(
    folders: Sequence[Path], plan: Plan, protocol: str, run: Path, cache: Path, carrier: str, bars: Bars
) -> Comparison:
    """Read every domain, say what was read, make the comparison. Raises DataError, ConfigError."""
    refuse_used(run)
    if not folders:
        bars.say(f"no --data: the generated world of four services, in {run / 'world'}")
        folders = list(write_world(run / "world", seed=plan.federation.seed).values())
    domains = [read_domain(folder) for folder in folders]
    names = [domain.name for domain in domains]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"two folders are both named {twice[0]!r}; give one a domain.toml with another name")
    for domain in domains:
        bars.say(domain.describe())
    workshop = Workshop(cache, tick=bars.tick)
    members = [
        DomainMember(domain, Home(run / "homes" / domain.name), workshop, protocol=protocol, simulated=True)
        for domain in domains
    ]
    return Comparison(plan, members, workshop, run, protocol, carrier, bars.say)


def refuse_used(run: Path) -> None:
    """Raises ConfigError when a run is there already, finished or not; it stays as it is."""
    if any((run / mark).exists() for mark in ("result.json", "current")):
        raise ConfigError(f"{run} already holds a run; pass another --out")
