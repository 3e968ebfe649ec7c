"""``python -m simulations``: a whole federation on this machine, and what it brings each domain."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from shared.console import Bars, named, plan_from, quiet_libraries, settled
from shared.errors import ConfigError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
NAMES = {
    "zero_shot": "zero-shot",
    "local": "local only",
    "federated": "federated",
    "personal": "federated + private",
    "pooled": "pooled",
}


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def main(
    folders: Annotated[list[Path] | None, typer.Argument(metavar="[DIR]...", help="More folders for --data.")] = None,
    data: Annotated[list[Path] | None, typer.Option(help="Domain folders; none: the generated world.")] = None,
    protocol: Annotated[str, typer.Option(help="loo (leave one out) or time (one cut in time).")] = "loo",
    rounds: Annotated[int | None, typer.Option(help="Federated rounds.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything that is drawn.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Some of zero_shot,local,federated,personal,pooled.")] = None,
    carrier: Annotated[str, typer.Option(help="in-process, or flower (its simulation engine).")] = "in-process",
    family: Annotated[str | None, typer.Option(help="ffa (exact) or fedavg (A and B apart: inexact).")] = None,
    base: Annotated[str | None, typer.Option(help="minilm, a folder, or a hub id of a BERT checkpoint.")] = None,
    adversarial: Annotated[bool, typer.Option("--adversarial", help="Adversarial training.")] = False,
    epsilon: Annotated[float | None, typer.Option(help="User-level privacy budget of the whole run.")] = None,
    delta: Annotated[float | None, typer.Option(help="Its delta; well below one in the number of users.")] = None,
    settings: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="section.key=value, over the file.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; default runs/ and the time.")] = None,
    cache: Annotated[Path, typer.Option(help="Where prefix states are kept.")] = Path("var/cache"),
    as_json: Annotated[bool, typer.Option("--json", help="Print result.json instead of the table.")] = False,
) -> None:
    """Run a federation of several domains on this machine and compare it with its alternatives."""
    quiet_libraries()
    with settled():
        more = named(rounds, seed, family, base, adversarial, epsilon, delta)
        plan = plan_from(settings, sets or [], more)
        if carrier not in ("in-process", "flower"):
            raise ConfigError(f"--carrier: expected in-process or flower, found {carrier!r}")
        run = out or Path("runs") / time.strftime("%Y%m%d-%H%M%S")
        with Bars() as bars:
            # Heavy imports wait until the options are known to be good.
            from simulations.compare import check_methods
            from simulations.start import start

            comparison = start([*(data or []), *(folders or [])], plan, protocol, run, cache, carrier, bars)
            result = comparison.run(check_methods(only or []))
        if as_json:
            typer.echo(json.dumps(result, indent=2))
        else:
            show(result, run)


def show(result: dict[str, Any], run: Path) -> None:
    """One table: a row per domain, a column per way to recommend."""
    methods = [method for method in NAMES if any(method in domain for domain in result["domains"].values())]
    console = Console()
    table = Table(title=f"HR@10 / NDCG@10, protocol {result['protocol']}, full ranking", title_justify="left")
    table.add_column("domain")
    for name in ("users", "items"):
        table.add_column(name, justify="right")
    for method in methods:
        table.add_column(NAMES[method], justify="right", no_wrap=True)
    for name, domain in result["domains"].items():
        sizes = (f"{domain['users']:,}", f"{domain['items']:,}")
        table.add_row(name, *sizes, *(pair(domain.get(method)) for method in methods))
    table.add_section()
    table.add_row("mean", "", "", *(pair(result["macro"].get(method)) for method in methods))
    console.print(table)
    for name, domain in result["domains"].items():
        if "privacy" in domain:
            console.print(f"{name}: epsilon {domain['privacy']['epsilon']:.2f} at delta {domain['privacy']['delta']:g}")
    console.print(f"{result['seconds']:.0f} s; run directory: {run}", markup=False)
    if "personal" in methods:
        first = next(iter(result["domains"]))
        hint = f'python -m client --domain {first} recommend --run {run} --history "a title; another title"'
        console.print(f"try: {hint}", markup=False)


def pair(metrics: dict[str, float] | None) -> str:
    return "" if metrics is None else f"{metrics['hr@10']:.3f} / {metrics['ndcg@10']:.3f}"


if __name__ == "__main__":
    app(prog_name="python -m simulations")
