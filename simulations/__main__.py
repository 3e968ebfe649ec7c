"""``python -m simulations``: a whole federation on this machine, and what it brings each domain."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shared.console import (
    Adversarial,
    Bars,
    BaseName,
    Delta,
    Epsilon,
    Family,
    Rounds,
    Seed,
    Sets,
    SettingsFile,
    named,
    plan_from,
    quiet_libraries,
    settled,
)
from shared.errors import ConfigError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
NAMES = {  # method -> its column; broken so that five of them fit 80 characters
    "zero_shot": "zero-shot",
    "local": "local\nonly",
    "federated": "federated",
    "personal": "federated\n+ private",
    "pooled": "pooled",
}
METRICS = {"hr@10": "HR@10", "ndcg@10": "NDCG@10"}


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def main(
    folders: Annotated[list[Path] | None, typer.Argument(metavar="[DIR]...", help="More folders for --data.")] = None,
    data: Annotated[list[Path] | None, typer.Option(help="Domain folders; none: the generated world.")] = None,
    protocol: Annotated[str, typer.Option(help="loo (leave one out) or time (one cut in time).")] = "loo",
    rounds: Rounds = None,
    seed: Seed = None,
    only: Annotated[list[str] | None, typer.Option(help="Some of zero_shot,local,federated,personal,pooled.")] = None,
    carrier: Annotated[str, typer.Option(help="in-process, or flower (its simulation engine).")] = "in-process",
    family: Family = None,
    base: BaseName = None,
    adversarial: Adversarial = False,
    epsilon: Epsilon = None,
    delta: Delta = None,
    settings: SettingsFile = None,
    sets: Sets = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; default runs/ and the time.")] = None,
    cache: Annotated[Path, typer.Option(help="Where prefix states are kept.")] = Path("var/cache"),
    as_json: Annotated[bool, typer.Option("--json", help="Print result.json instead of the table.")] = False,
) -> None:
    """Run a federation of several domains on this machine and compare it with its alternatives.

    Each DIR, with or without --data before it, is the folder of one domain. Without any, a generated world of
    four services is used.
    """
    quiet_libraries()
    with settled():
        more = named(rounds, seed, family, base, adversarial, epsilon, delta)
        plan = plan_from(settings, sets or [], more)
        methods = check_methods(only or [])
        one_of("--carrier", carrier, ("in-process", "flower"))
        one_of("--protocol", protocol, ("loo", "time"))
        run = out or Path("runs") / time.strftime("%Y%m%d-%H%M%S")
        with Bars() as bars:
            # Heavy imports wait until the options are known to be good.
            from simulations.start import start

            comparison = start([*(data or []), *(folders or [])], plan, protocol, run, cache, carrier, bars)
            result = comparison.run(methods)
        if as_json:
            typer.echo(json.dumps(result, indent=2))
        else:
            show(result, run)


def check_methods(only: Sequence[str]) -> tuple[str, ...]:
    """The methods to run, all when none is named. Raises ConfigError on an unknown name."""
    chosen = [name.strip().replace("-", "_") for text in only for name in text.split(",") if name.strip()]
    for name in chosen:
        one_of("--only", name, tuple(NAMES))
    return tuple(chosen) or tuple(NAMES)


def one_of(option: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{option}: expected one of {', '.join(known)}, found {value!r}")


def show(result: dict[str, Any], run: Path) -> None:
    """The table, what privacy was spent, and what to try next."""
    console = Console()
    console.print(table_of(result))
    for name, domain in result["domains"].items():
        if "privacy" in domain:
            spent = domain["privacy"]
            console.print(f"{name}: epsilon {spent['epsilon']:.2f} at delta {spent['delta']:g}", markup=False)
    console.print(f"{result['seconds']:.0f} s; run directory: {run}", markup=False, soft_wrap=True)
    if "personal" in result["macro"]:
        first = next(iter(result["domains"]))
        hint = f'python -m client --domain {first} recommend --run {run} --history "a title; another title"'
        console.print(f"try: {hint}", markup=False, soft_wrap=True)


def table_of(result: dict[str, Any]) -> Table:
    """Two rows a domain, one for each metric; a column for each way to recommend."""
    methods = [method for method in NAMES if any(method in domain for domain in result["domains"].values())]
    title = f"Full ranking, protocol {result['protocol']}, seed {result['seed']}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("domain\nusers x items", overflow="fold")
    table.add_column("")
    for method in methods:
        table.add_column(NAMES[method], justify="right", no_wrap=True)
    rows = [(name, f"{cell['users']:,} x {cell['items']:,}", cell) for name, cell in result["domains"].items()]
    for name, sizes, cells in [*rows, ("mean of domains", "", result["macro"])]:
        for label, (metric, spelt) in zip((name, sizes), METRICS.items(), strict=True):
            values = (f"{cells[method][metric]:.3f}" if method in cells else "" for method in methods)
            table.add_row(Text(label), spelt, *values)
        table.add_section()
    return table


if __name__ == "__main__":
    app(prog_name="python -m simulations")
