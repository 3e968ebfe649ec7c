"""Opens the domains of a simulation: the folders given, or the generated world."""

import json
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
from shared.plan import Plan, check_silos
from shared.whole import read_json
from simulations.attacks.audit import audit
from simulations.compare import Comparison
from simulations.same_run import DAMAGED, check_data, check_plan, check_settings, other_run
from simulations.summary import summarise
from simulations.versions import commit, fingerprints
from simulations.world import write_world

SUMMED = {"all", "macro", "worst"}  # what summaries call figures of several domains
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
    if taken := sorted(set(names) & SUMMED):
        raise ConfigError(f"summaries use the word {taken[0]!r}; give that domain a domain.toml with another name")
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
    places = {out / f"seed-{seed}": replace(plan, federation=replace(plan.federation, seed=seed)) for seed in seeds}
    for place, seeded in places.items():  # all of them before anything is written, or trained for hours
        check_plan(place, seeded)
    # One world for all seeds, whichever are asked first.
    domains = open_domains(folders, out / "world", plan.federation.seed, bars)
    workshop = Workshop(cache, tick=bars.tick)
    for place, seeded in places.items():
        bars.say(f"seed {seeded.federation.seed}")
        comparison(domains, workshop, seeded, protocol, place, "in-process", bars).run(methods)
    found = summarise(out, seeds)
    write_json(out / "summary.json", found)
    return found


def audit_domains(
    folders: Sequence[Path], plan: Plan, users: int, shadows: int, place: Path, cache: Path, bars: Bars
) -> dict[str, Any]:
    """Each domain's audit (``simulations.attacks``), by name; without folders, a generated video site's.

    Kept in ``place`` domain by domain, where one that was stopped goes on. Raises ConfigError where an audit of other
    settings or other data lies there.
    """
    check_silos(plan)
    seed, path = plan.federation.seed, place / "audit.json"
    kept = read_json(path, DAMAGED) if path.exists() else {}
    asked = {"plan": json.loads(plan.to_json()), "users": users, "shadows": shadows}
    if kept:  # before a world is written there
        check_settings(place, kept.get("plan", {}), plan)
        for name in ("users", "shadows"):
            if kept.get(name) != asked[name]:
                raise other_run(place, f"other settings ({name} {kept.get(name)}, asked {asked[name]})")
    if not folders:
        # As many again as are asked about: an epsilon of a few hides nobody among a few hundred.
        people = 2 * users
        bars.say(f"no --data: a generated video site of {people:,} users")
        folders = list(write_world(place / "world", seed=seed, users=people, domains=("video",)).values())
    domains = open_domains(folders, place / "world", seed, bars)
    made = fingerprints(plan, domains)
    if kept:
        check_data(place, kept.get("fingerprints", {}), made)
    workshop = Workshop(cache, tick=bars.tick)
    model = workshop.model(plan)
    start = adapter_tensors(model)
    found: dict[str, Any] = kept.get("found", {})
    place.mkdir(parents=True, exist_ok=True)
    for domain in domains:
        if domain.name not in found:
            load_adapter_tensors(model, start)
            corpus = build_corpus(domain, "loo", workshop.space(plan, domain), plan)
            found[domain.name] = audit(model, corpus, plan, users, shadows, bars.say, bars.tick)
            write_json(path, {**asked, "fingerprints": made, "commit": commit(), "found": found})
    return found
