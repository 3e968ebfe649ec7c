"""One question per file: who takes part, what is compared, under which rules of aggregation.

A scenario file (``simulations/scenarios/*.toml``) names shops under a common root; each of its runs keeps its cells
in a folder of its own and goes on after an interruption.
"""

import shutil
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from client.dataset import Domain, read_domain
from client.store import write_json
from client.workshop import Workshop
from server.registry import read_rounds
from shared.config import read_section
from shared.console import Bars
from shared.errors import ConfigError
from shared.plan import Plan
from simulations.baselines import BASELINES
from simulations.compare import METHODS
from simulations.deal import deal, kind_of
from simulations.start import comparison
from simulations.summary import summarise

HERE = Path(__file__).parent / "scenarios"
FEWEST = 3  # users of an owner, as the command's --users has it


@dataclass(frozen=True)
class Scenario:
    """What a scenario file says."""

    question: str
    shops: tuple[str, ...]
    methods: tuple[str, ...]
    families: tuple[str, ...] = ("affinity",)
    owners: int = 1  # each shop's users are dealt to so many
    users: int = 0  # of each owner, at most; 0 = all there are
    small_shop: str = ""  # of its users, small owners take these numbers first
    small_users: tuple[int, ...] = ()
    newcomers: bool = False  # each shop in turn stays outside and gets what an unknown domain gets
    rounds: int = 10
    settings: tuple[str, ...] = ()  # section.key=value, before those of the command line


@dataclass(frozen=True)
class Run:
    """One federation of a scenario."""

    label: str
    family: str
    members: tuple[Domain, ...]
    guests: tuple[Domain, ...] = ()


def read_scenario(name: str) -> Scenario:
    """A scenario by name or path. Raises ConfigError."""
    path = Path(name) if name.endswith(".toml") else HERE / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(path.stem for path in HERE.glob("*.toml")))
        raise ConfigError(f"no scenario {name!r}; there are {known}, or give the path of a .toml file")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a TOML file: {error}") from None
    if missing := {"question", "shops", "methods"} - table.keys():
        raise ConfigError(f"{path} lacks {sorted(missing)[0]!r}")
    made = read_section(Scenario, table, path.name)
    if not (made.shops and made.methods and made.families):
        raise ConfigError(f"{path}: expected one of shops, methods and families at least, found none")
    known_methods = (*METHODS, *BASELINES)
    if unknown := [method for method in made.methods if method not in known_methods]:
        raise ConfigError(f"{path}, methods: expected some of {', '.join(known_methods)}, found {unknown[0]!r}")
    _check(made, path)
    return made


def _check(made: Scenario, path: Path) -> None:
    """Raises ConfigError on values by which users cannot be dealt to owners."""
    small = made.small_users
    for name, fine, expected in (
        ("shops", _distinct(made.shops), "each shop once"),
        ("owners", made.owners >= 1, "1 or more"),
        ("users", made.users == 0 or made.users >= FEWEST, f"{FEWEST} or more, or 0 for all there are"),
        ("small_users", _distinct(small) and min(small, default=FEWEST) >= FEWEST, f"different numbers from {FEWEST}"),
    ):
        if not fine:
            raise ConfigError(f"{path}, {name}: expected {expected}, found {getattr(made, name)!r}; change it there")
    if bool(made.small_shop) != bool(small):
        raise ConfigError(
            f"{path}: expected small_shop and small_users together, found {made.small_shop!r} and {small!r}; give "
            "both, or neither"
        )


def _distinct(values: Sequence[object]) -> bool:
    return len(set(values)) == len(values)


def runs(scenario: Scenario, domains: Sequence[Domain], seed: int) -> Iterator[Run]:
    """The federations that answer the question, for one seed. Raises ConfigError where owners cannot be told apart."""
    owners: list[Domain] = []
    if scenario.small_shop and scenario.small_shop not in (names := [domain.name for domain in domains]):
        raise ConfigError(
            f"the small owners are dealt of {scenario.small_shop!r}, which is none of {', '.join(names)}; name it in "
            "--shops, or another small_shop in the scenario's file"
        )
    for domain in domains:
        small = scenario.small_users if domain.name == scenario.small_shop else ()
        owners.extend(deal(domain, scenario.owners, small, seed, scenario.users))
    names = [owner.name for owner in owners]
    if not _distinct(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(
            f"expected owners of different names, found two named {twice!r}; name each shop once in --shops, or in the "
            "scenario's file, and each number of small_users"
        )
    for family in scenario.families:
        if not scenario.newcomers:
            yield Run(family, family, tuple(owners))
            continue
        for new in owners:
            others = tuple(owner for owner in owners if owner is not new)
            yield Run(f"{family}-without-{new.name}", family, others, (new,))


def play(
    scenario: Scenario, root: Path, plan: Plan, protocol: str, seeds: Sequence[int], out: Path, cache: Path, bars: Bars
) -> dict[str, Any]:
    """All runs under all seeds; their summaries by label, which also lie in ``out/summary.json``."""
    domains = [read_domain(root / shop) for shop in scenario.shops]
    for shop, domain in zip(scenario.shops, domains, strict=True):
        if domain.name != shop:  # owners are told apart by it
            raise ConfigError(f"{root / shop} holds a domain named {domain.name!r}: name the folder as the domain")
    for domain in domains:
        bars.say(domain.describe())
    workshop = Workshop(cache, tick=bars.tick)
    labels: dict[str, None] = {}
    for seed in seeds:
        for run in runs(scenario, domains, seed):
            bars.say(f"seed {seed}: {run.label}")
            labels[run.label] = None
            seeded = under(plan, run.family, seed)
            place = out / run.label / f"seed-{seed}"
            lend_alone(out, place)
            made = comparison(run.members, workshop, seeded, protocol, place, "in-process", bars, run.guests)
            made.run(scenario.methods)
    found = {
        label: {**summarise(out / label, seeds), "kinds": kinds_found(out / label, scenario.shops, seeds)}
        for label in labels
    }
    write_json(out / "summary.json", {"question": scenario.question, "runs": found})
    return found


def lend_alone(out: Path, place: Path) -> None:
    """What a domain reaches alone is the same under every rule: take it over from the runs before this one."""
    for made in sorted(out.glob(f"*/{place.name}/homes/*/alone")):
        wanted = place / "homes" / made.parent.name / "alone"
        if (made / "alone.json").exists() and not wanted.exists():
            shutil.copytree(made, wanted)


def under(plan: Plan, family: str, seed: int) -> Plan:
    """The plan under that rule of aggregation; only affinity knows item tables."""
    shares = plan.model.shared_items and family == "affinity"
    model = replace(plan.model, shared_items=shares)
    return replace(plan, model=model, federation=replace(plan.federation, seed=seed, family=family))


def kinds_found(folder: Path, shops: tuple[str, ...], seeds: Sequence[int]) -> dict[str, Any]:
    """How well the last affinities tell kinds apart: likeness within and across (least, median, most), and their AUC;
    the share of pairs of which the server's own kinds say rightly whether they are one (Rand 1971)."""
    within: list[float] = []
    across: list[float] = []
    right: list[bool] = []
    for reports in (read_rounds(folder / f"seed-{seed}") for seed in seeds):
        if not reports or not {"affinity", "kinds"} <= (last := reports[-1]).keys():
            continue
        told = last["kinds"]
        for one, row in last["affinity"].items():
            for two, cosine in row.items():
                if one < two:
                    alike = kind_of(one, shops) == kind_of(two, shops)
                    (within if alike else across).append(cosine)
                    right.append((told[one] == told[two]) == alike)
    if not within or not across:
        return {}
    order = (np.array(within)[:, None] > np.array(across)).mean()
    return {"within": _range(within), "across": _range(across), "auc": float(order), "rand": float(np.mean(right))}


def _range(values: list[float]) -> list[float]:
    return [float(np.min(values)), float(np.median(values)), float(np.max(values))]
