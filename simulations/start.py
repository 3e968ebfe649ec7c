"""Opens the domains of a simulation: the folders given, or the generated world."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from client.budget import Limits
from client.corpus import build_corpus
from client.dataset import Domain, read_domain
from client.rounds import DomainMember
from client.store import Home, write_json
from client.workshop import Workshop
from shared.console import Bars
from shared.errors import ConfigError
from shared.model import adapter_tensors, load_adapter_tensors
from shared.plan import Plan
from simulations.attacks.audit import audit
from simulations.compare import Comparison, check_plan
from simulations.summary import summarise
from simulations.world import write_world

ALLOWS = Limits(share_items=True)  # who simulates owns all the data, and asks by the plan


def start(
    folders: Sequence[Path], plan: Plan, protocol: str, run: Path, cache: Path, carrier: str, bars: Bars
) -> Comparison:
    """One comparison in a run directory of its own, where one that was interrupted goes on. Raises DataError,
    ConfigError."""
    check_plan(run, plan)  # before the generated world is written into it
    domains = open_domains(folders, run / "world", plan.federation.seed, bars)
    return comparison(domains, Workshop(cache, tick=bars.tick), plan, protocol, run, carrier, bars)


def open_domains(folders: Sequence[Path], world: Path, seed: int, bars: Bars) -> list[Domain]:
    """Read every domain and say what was read; without folders, the generated world. Raises DataError, ConfigError."""
    if not folders:
        bars.say(f"no --data: the generated world of four services, in {world}")
        folders = list(write_world(world, seed=seed).values())
    domains = [read_domain(folder) for folder in folders]
    names = [domain.name for domain in domains]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"two folders are both named {twice[0]!r}; give one a domain.toml with another name")
    for domain in domains:
        bars.say(domain.describe())
    return domains


def comparison(
    domains: Sequence[Domain],
    workshop: Workshop,
    plan: Plan,
    protocol: str,
    run: Path,
    carrier: str,
    bars: Bars,
    guests: Sequence[Domain] = (),
) -> Comparison:
    """The domains as members, their homes in the run directory; ``guests`` do not train."""
    members, visitors = (
        [
            DomainMember(
                domain, Home(run / "homes" / domain.name), workshop, protocol=protocol, limits=ALLOWS, simulated=True
            )
            for domain in those
        ]
        for those in (domains, guests)
    )
    return Comparison(plan, members, workshop, run, protocol, carrier, bars.say, guests=visitors)


def evaluate_seeds(
    folders: Sequence[Path],
    plan: Plan,
    protocol: str,
    methods: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    cache: Path,
    bars: Bars,
) -> dict[str, Any]:
    """The same methods under several seeds, each in ``out/seed-N``; cells that are there already stay.

    Returns the summary, which also lies in ``out/summary.json``.
    """
    domains = open_domains(folders, out / "world", seeds[0], bars)
    workshop = Workshop(cache, tick=bars.tick)
    for seed in seeds:
        bars.say(f"seed {seed}")
        seeded = replace(plan, federation=replace(plan.federation, seed=seed))
        comparison(domains, workshop, seeded, protocol, out / f"seed-{seed}", "in-process", bars).run(methods)
    found = summarise(out, seeds)
    write_json(out / "summary.json", found)
    return found


def audit_domains(
    folders: Sequence[Path], plan: Plan, users: int, shadows: int, world: Path, cache: Path, bars: Bars
) -> dict[str, Any]:
    """Each domain's audit (``simulations.attacks``), by name; without folders, a generated video site's."""
    seed = plan.federation.seed
    if not folders:
        # As many again as are asked about: an epsilon of a few hides nobody among a few hundred.
        people = 2 * users
        bars.say(f"no --data: a generated video site of {people:,} users")
        folders = list(write_world(world, seed=seed, users=people, domains=("video",)).values())
    workshop = Workshop(cache, tick=bars.tick)
    model = workshop.model(plan)
    start = adapter_tensors(model)
    found = {}
    for domain in open_domains(folders, world, seed, bars):
        load_adapter_tensors(model, start)
        corpus = build_corpus(domain, "loo", workshop.space(plan, domain), plan)
        found[domain.name] = audit(model, corpus, plan, users, shadows, bars.say, bars.tick)
    return found
