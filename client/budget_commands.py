"""``python -m client --domain video status`` and ``budget``: what a run came to, and the privacy spent and planned."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from client.places import charged, finished
from shared.console import Delta, Epsilon, Rounds, Sets, SettingsFile, named, plan_from, settled
from shared.errors import ConfigError
from shared.plan import check_silos


def add_commands(app: typer.Typer) -> None:
    app.command()(status)
    app.command()(budget)


def status(
    context: typer.Context,
    run: Annotated[Path | None, typer.Option(help="A simulation's run directory.")] = None,
) -> None:
    """Print the results of the last finished run at home, and the privacy spent, as JSON."""
    with settled():
        from client.budget import spent_at, told_at
        from client.store import AGAIN, Home, plan_at
        from shared.accounting import spent
        from shared.whole import read_json

        home = Home(finished(context.obj, run))
        if not home.result.is_file():
            raise ConfigError(
                f"no finished run in {home.folder}; train or adopt first, or pass the run's folder with --run"
            )
        result: dict[str, Any] = read_json(home.result, AGAIN)
        if events := spent_at(home):
            result["privacy"] = spent(events, told_at(plan_at(home)))
        typer.echo(json.dumps(result, indent=2))


def budget(
    context: typer.Context,
    epsilon: Epsilon = None,
    delta: Delta = None,
    rounds: Rounds = None,
    settings: SettingsFile = None,
    sets: Sets = None,
    beside: Annotated[
        list[Path] | None, typer.Option(help="Another domain's ledger.jsonl, or its devices.jsonl; may be repeated.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="A simulation's run directory, for its ledger.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of sentences.")] = False,
) -> None:
    """Print the privacy that this domain has spent and, with --epsilon, what a planned run would cost it.

    A planned run needs the data (--data, or those of the last finished run): its cost depends on how many users it has.
    With --beside also what it comes to for a user of several domains.
    """
    with settled():
        from client.budget import Limits, check_protocol, forecast, spent_at
        from client.forgotten import read_at_home
        from client.journal import Journal
        from client.privacy import learnt_from
        from client.store import Home, load
        from client.telltale import split_of
        from shared import accounting
        from shared.ledger import read_events

        given = context.obj
        plan = plan_from(settings, sets or [], named(rounds=rounds, epsilon=epsilon, delta=delta))
        check_silos(plan)
        home = Home(charged(given, run))
        if not home.folder.is_dir() and given["data"] is None:
            raise ConfigError(
                f"no home of {given['domain']} at {home.folder}: check --domain and --home, or give --data"
            )
        events = spent_at(home)
        spent = accounting.epsilon(events, plan.privacy.delta)
        found: dict[str, Any] = {"delta": plan.privacy.delta, "releases": len(events)}
        found["epsilon"] = accounting.finite(spent)
        if beside:
            if missing := [path for path in beside if not path.is_file()]:
                raise ConfigError(f"--beside: expected another domain's ledger.jsonl at {missing[0]}")
            ledgers = [events, *map(read_events, beside)]
            found["across"] = {
                "domains": len(ledgers),
                "epsilon": accounting.finite(accounting.epsilon_across(ledgers, plan.privacy.delta)),
            }
        if plan.private:
            if given["data"] is None and not home.about.is_file():
                raise ConfigError("a planned run needs the domain's data: --data FOLDER before the command")
            folder = given["data"] or load(home).data
            check_protocol(plan, given["protocol"])
            # As a round would read them: with what came in while serving, and without who was forgotten.
            domain = read_at_home(home, folder, given["domain"], Journal(home.journal).entries)
            parts = split_of(domain, given["protocol"], plan)
            limits = Limits(given["max_epsilon"], given["at_delta"], passports=given["for_passports"])
            ahead = forecast(plan, len(learnt_from(parts.train)), limits, events)
            found["planned"] = asdict(ahead)
        if as_json:
            typer.echo(json.dumps(found, indent=2))
            return
        total = accounting.spell(found["epsilon"])
        typer.echo(f"{len(events)} releases so far: epsilon {total} at delta {plan.privacy.delta:g}.")
        if events:
            typer.echo(accounting.sentence(spent, plan.privacy.delta))
        if beside:
            across = found["across"]
            total = accounting.spell(across["epsilon"])
            typer.echo(f"A user of all {across['domains']} domains: epsilon {total} at the same delta.")
        if plan.private:
            typer.echo(
                f"The planned run: {ahead.rounds} rounds of {ahead.steps} steps over {ahead.users:,} users, one in "
                f"{1 / ahead.sample_rate:.0f} a step, noise {ahead.noise_multiplier:.3f}: epsilon {ahead.epsilon:.3f} "
                f"by itself, {accounting.spell(ahead.after)} with what was spent."
            )
        if plan.private and given["max_epsilon"] is not None:
            left = f"{ahead.rounds_allowed} of its {ahead.rounds} rounds"
            at = f"measured at delta {limits.delta(plan):g}"
            kept = f", {limits.passports:g} of it kept for passports" if limits.passports else ""
            typer.echo(f"A limit of {given['max_epsilon']:g} (--max-epsilon){kept}, {at}, lets {left} pass.")
