"""``python -m simulations``: a whole federation on this machine, and what it brings each domain."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from rich.console import Console
from typer.core import TyperGroup

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
from shared.plan import FAMILIES, PROTOCOLS
from simulations.asked import (
    check_epsilons,
    check_methods,
    check_picture,
    check_plan_seed,
    check_seeds,
    drawn,
    listed,
    one_of,
)
from simulations.tables import audits_of, figures_of, passports_of, table_of


class RunUnlessNamed(TyperGroup):
    """``python -m simulations DIR ...`` is ``run DIR ...``: only a word that is a command's name is one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] in self.commands:
            return super().parse_args(ctx, args)
        if args and not args[0].startswith("-") and "/" not in args[0] and not Path(args[0]).is_dir():
            with settled():
                commands = ", ".join(self.commands)
                raise ConfigError(f"expected a folder with a domain's files at {args[0]}, or a command: {commands}")
        return super().parse_args(ctx, ["run", *args])


app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    cls=RunUnlessNamed,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def run(
    folders: Annotated[list[Path] | None, typer.Argument(metavar="[DIR]...", help="More folders for --data.")] = None,
    data: Annotated[list[Path] | None, typer.Option(help="Domain folders; none: the generated world.")] = None,
    protocol: Annotated[
        str, typer.Option(help="loo (leave one out), time (one cut), or loo-99 (99 negatives).")
    ] = "loo",
    rounds: Rounds = None,
    seed: Seed = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Some methods, with commas; evaluate --help names them.")
    ] = None,
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
    four services is used. Other commands, each with a --help of its own: evaluate (several seeds, intervals,
    baselines), scenario, passport, audit-privacy, plot, map.
    """
    quiet_libraries()
    with settled():
        more = named(rounds, seed, family, base, adversarial, epsilon, delta)
        plan = plan_from(settings, sets or [], more)
        methods = check_methods("--only", only or [])
        one_of("--carrier", carrier, ("in-process", "flower"))
        one_of("--protocol", protocol, PROTOCOLS)
        place = out or Path("runs") / time.strftime("%Y%m%d-%H%M%S")
        with Bars() as bars:
            # Heavy imports wait until the options are known to be good.
            from simulations.start import start

            comparison = start([*(data or []), *(folders or [])], plan, protocol, place, cache, carrier, bars)
            bars.say(f"run directory: {place} (an interrupted run goes on with --out {place})")
            result = comparison.run(methods)
            from simulations.report import write_report

            report = write_report(place, cache)
        if as_json:
            typer.echo(json.dumps(result, indent=2))
        else:
            show(result, place, report)


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def evaluate(
    folders: Annotated[list[Path] | None, typer.Argument(metavar="[DIR]...", help="More folders for --data.")] = None,
    data: Annotated[list[Path] | None, typer.Option(help="Domain folders; none: the generated world.")] = None,
    protocol: Annotated[str, typer.Option(help="loo, time, or loo-99 (99 sampled negatives).")] = "loo",
    methods: Annotated[list[str] | None, typer.Option(help="Methods and baselines, with commas.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, with commas.")] = "7,8,9",
    rounds: Rounds = None,
    settings: SettingsFile = None,
    sets: Sets = None,
    out: Annotated[Path, typer.Option(help="Where cells are kept; an interrupted evaluation goes on there.")] = Path(
        "runs/evaluation"
    ),
    cache: Annotated[Path, typer.Option(help="Where prefix states are kept.")] = Path("var/cache"),
    as_json: Annotated[bool, typer.Option("--json", help="Print summary.json instead of the table.")] = False,
) -> None:
    """Compare methods and baselines over several seeds, with bootstrap intervals and paired tests.

    Methods: zero_shot, local, federated, personal, adopted, pooled, devices, together; baselines: popularity, item_knn,
    bpr_mf, sasrec, unisrec, fedmf, fedncf, pfedrec.
    """
    quiet_libraries()
    with settled():
        plan = plan_from(settings, sets or [], named(rounds=rounds))
        one_of("--protocol", protocol, PROTOCOLS)
        chosen = check_methods("--methods", methods or ["zero_shot,local,federated,personal,popularity"])
        numbers, places = check_seeds(seeds), [*(data or []), *(folders or [])]
        if places:  # else the generated world is drawn from it
            check_plan_seed(plan, "an evaluation's seeds are")
        with Bars() as bars:
            from simulations.start import evaluate_seeds

            found = evaluate_seeds(places, plan, protocol, chosen, numbers, out, cache, bars)
        if as_json:
            typer.echo(json.dumps(found, indent=2))
        else:
            Console().print(figures_of(found))


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def scenario(
    name: Annotated[
        str,
        typer.Argument(
            help="same-kind, pooled-kind, private-kinds, different-shops, small-shop, new-kind, devices, or a .toml."
        ),
    ],
    root: Annotated[Path, typer.Option(help="The folder that holds the shops' folders.")],
    protocol: Annotated[str, typer.Option(help="loo, time, or loo-99 (99 sampled negatives).")] = "loo",
    shops: Annotated[str | None, typer.Option(help="Only these shops, with commas.")] = None,
    families: Annotated[str | None, typer.Option(help="Only these rules of aggregation, with commas.")] = None,
    users: Annotated[int | None, typer.Option(min=3, help="At most so many users of each owner.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, with commas.")] = "7",
    rounds: Rounds = None,
    settings: SettingsFile = None,
    sets: Sets = None,
    out: Annotated[Path | None, typer.Option(help="Where cells are kept; default runs/NAME.")] = None,
    cache: Annotated[Path, typer.Option(help="Where prefix states are kept.")] = Path("var/cache"),
    as_json: Annotated[bool, typer.Option("--json", help="Print summary.json instead of tables.")] = False,
) -> None:
    """Answer one question about federations: who gains by joining whom? An interrupted scenario goes on in --out."""
    quiet_libraries()
    with settled():
        from shared.config import apply_sets
        from simulations.scenario import play, read_scenario

        asked = read_scenario(name)
        if shops is not None:
            asked = replace(asked, shops=listed("--shops", shops))
        if families is not None:
            asked = replace(asked, families=listed("--families", families))
        if users is not None:
            asked = replace(asked, users=users)
        for family in asked.families:
            one_of("--families", family, FAMILIES)
        usual = {"federation": {"rounds": asked.rounds, "family": asked.families[0]}}
        plan = plan_from(settings, sets or [], named(rounds=rounds), apply_sets(usual, list(asked.settings)))
        if plan.federation.family != asked.families[0]:
            raise ConfigError("federation.family: a scenario's rules of aggregation are its families; pass --families")
        check_plan_seed(plan, "a scenario's seeds are")
        one_of("--protocol", protocol, PROTOCOLS)
        place = out or Path("runs") / Path(name).stem
        with Bars() as bars:
            found = play(asked, root, plan, protocol, check_seeds(seeds), place, cache, bars)
        if as_json:
            typer.echo(json.dumps(found, indent=2))
            return
        Console().print(asked.question, markup=False)
        for label, part in found.items():
            Console().print(f"\n{label}: affinities {part['kinds'] or 'not logged'}", markup=False)
            Console().print(figures_of(part))


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def passport(
    folders: Annotated[list[Path] | None, typer.Argument(metavar="[DIR]...", help="More folders for --data.")] = None,
    data: Annotated[list[Path] | None, typer.Option(help="Two domain folders: FROM and TO.")] = None,
    epsilons: Annotated[str, typer.Option(help="Epsilons of the passports, with commas.")] = "1,2,4,8",
    codes: Annotated[int, typer.Option(min=1, max=16, help="Codes that share an epsilon.")] = 1,
    book: Annotated[int, typer.Option(min=2, max=4096, help="Places of the code book.")] = 128,
    mechanism: Annotated[str, typer.Option(help="near-set, randomised-response or exponential.")] = "near-set",
    draws: Annotated[int, typer.Option(min=1, help="How often the noise is drawn.")] = 3,
    settings: SettingsFile = None,
    sets: Sets = None,
    cache: Annotated[Path, typer.Option(help="Where prefix states are kept.")] = Path("var/cache"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure taste passports: users of both domains, their whole history in TO hidden."""
    quiet_libraries()
    with settled():
        plan = plan_from(settings, sets or [], {})
        both = [*(data or []), *(folders or [])]
        if len(both) != 2:
            raise ConfigError(f"passport expects two folders, FROM and TO, found {len(both)}")
        spent = check_epsilons(epsilons)
        from shared.passport import MECHANISMS

        one_of("--mechanism", mechanism, MECHANISMS)
        with Bars() as bars:
            from simulations.passport import measure

            found = measure(
                both[0],
                both[1],
                plan.model,
                cache,
                spent,
                codes,
                book,
                mechanism,
                draws,
                plan.federation.seed,
                bars.say,
                bars.tick,
            )
        if as_json:
            typer.echo(json.dumps(found, indent=2))
        else:
            Console().print(passports_of(found))


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def plot(
    run: Annotated[Path, typer.Argument(help="A run directory: it holds rounds.jsonl.")],
    out: Annotated[Path | None, typer.Option(help="The picture, .png, .svg or .pdf; default RUN/affinity.png.")] = None,
) -> None:
    """Draw who is alike, round by round (family affinity)."""
    with settled():
        from simulations.plots import plot_affinity

        to = out or run / "affinity.png"
        check_picture("--out", to)
        typer.echo(drawn(plot_affinity, run, to))


@app.command("map", context_settings={"help_option_names": ["-h", "--help"]})
def draw_map(
    run: Annotated[Path, typer.Argument(help="A run directory with finished domains.")],
    out: Annotated[Path | None, typer.Option(help="The picture, .png, .svg or .pdf; default RUN/map.png.")] = None,
    cache: Annotated[Path, typer.Option(help="Where prefix states are kept.")] = Path("var/cache"),
) -> None:
    """Draw where items and users lie, by domain and by attribute; and make the run's report.html again."""
    quiet_libraries()
    with settled():
        to = out or run / "map.png"
        check_picture("--out", to)
        from simulations.plots import plot_map
        from simulations.report import write_report
        from simulations.views import views_of

        typer.echo(drawn(plot_map, views_of(run, cache), to))
        if (run / "result.json").is_file():
            typer.echo(write_report(run, cache))


@app.command("audit-privacy", context_settings={"help_option_names": ["-h", "--help"]})
def audit_privacy(
    folders: Annotated[list[Path] | None, typer.Argument(metavar="[DIR]...", help="More folders for --data.")] = None,
    data: Annotated[list[Path] | None, typer.Option(help="Domain folders; none: a generated video site.")] = None,
    users: Annotated[int, typer.Option(min=2, help="Users whose part in the training is asked about, at most.")] = 3000,
    shadows: Annotated[int, typer.Option(min=2, help="Models that the attacker trains to learn from.")] = 6,
    epsilon: Epsilon = 8.0,
    delta: Delta = None,
    rounds: Rounds = None,
    seed: Seed = None,
    base: BaseName = None,
    settings: SettingsFile = None,
    sets: Sets = None,
    cache: Annotated[Path, typer.Option(help="Where prefix states are kept.")] = Path("var/cache"),
    out: Annotated[
        Path, typer.Option(help="Where report.html and audit.json go; a stopped audit goes on there.")
    ] = Path("runs/audit"),
    picture: Annotated[Path | None, typer.Option("--plot", help="Draw the ROC curves, .png, .svg or .pdf.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Attack training with and without the promise of --epsilon: who was in, and what did they meet?

    Ends with status 1 where an attack proves a larger epsilon than is claimed.
    """
    quiet_libraries()
    with settled():
        plan = plan_from(settings, sets or [], named(rounds, seed, None, base, False, epsilon, delta))
        if not plan.private:
            raise ConfigError("--epsilon: expected more than 0, the promise that is to be audited")
        if picture is not None:
            check_picture("--plot", picture)
        with Bars() as bars:
            from simulations.audit_page import holds, write_audit_page
            from simulations.start import audit_domains

            found = audit_domains([*(data or []), *(folders or [])], plan, users, shadows, out, cache, bars)
            report = write_audit_page(out, found)
            if picture is not None:
                from simulations.plots import plot_audit

                for name, one in found.items():
                    to = picture if len(found) == 1 else picture.with_stem(f"{picture.stem}-{name}")
                    bars.say(str(drawn(plot_audit, one, to)))
        if as_json:
            typer.echo(json.dumps(found, indent=2))
        else:
            Console().print(audits_of(found))
            typer.echo(f"report: {report}")
        if broken := [name for name, one in found.items() if not holds(one)]:
            typer.echo(f"error: more is proved than is claimed of {', '.join(broken)}: the promise is broken", err=True)
            raise typer.Exit(1)


def show(result: dict[str, Any], run: Path, report: Path) -> None:
    """The table, what privacy was spent, where to read more, and what to try next."""
    from shared.accounting import spell

    console = Console()
    console.print(table_of(result))
    for name, domain in result["domains"].items():
        if "privacy" in domain:
            spent = domain["privacy"]
            console.print(f"{name}: epsilon {spell(spent['epsilon'])} at delta {spent['delta']:g}", markup=False)
    console.print(f"{result['seconds']:.0f} s; run directory: {run}", markup=False, soft_wrap=True)
    console.print(f"report: {report}", markup=False, soft_wrap=True)
    if "personal" in result["macro"]:
        first = next(iter(result["domains"]))
        hint = f'python -m client --domain {first} recommend --run {run} --history "a title; another title"'
        console.print(f"try: {hint}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    app(prog_name="python -m simulations")
