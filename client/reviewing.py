"""The commands of those who answer for what is shown: complaints, the log of what was shown, one user's data."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from client.places import finished
from shared.console import FAILED, refuse_early, settled, tell
from shared.errors import ConfigError

HELP = {"help_option_names": ["-h", "--help"]}
Run = Annotated[Path | None, typer.Option(help="A simulation's run directory.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead of sentences.")]
User = Annotated[str, typer.Argument(help="The user's id.")]
audits = typer.Typer(context_settings=HELP, invoke_without_command=True)


def add_commands(app: typer.Typer) -> None:
    """Into the client's own."""
    app.add_typer(audits, name="audit")
    app.command()(export_user)
    app.command()(forget)


def export_user(
    context: typer.Context,
    user: User,
    out: Annotated[Path, typer.Option(help="Where it is written, as JSON.")],
    run: Run = None,
) -> None:
    """Write all that the domain holds of a user into a file: events, feedback, passports, what was shown."""
    with settled():
        from client.forget import export_user as found_of
        from client.forget import write_export
        from client.store import Home

        found = found_of(Home(finished(context.obj, run)), user, context.obj["data"])
        write_export(out, found)
        parts = (f"{len(found[part]):,} {part}" for part in ("events", "feedback", "passports", "shown"))
        typer.echo(f"{out}: {', '.join(parts)}")


def forget(
    context: typer.Context,
    user: User,
    data_too: Annotated[
        bool, typer.Option("--data-too", help="Write the domain's own files anew without this user.")
    ] = False,
    run: Run = None,
    as_json: AsJson = False,
) -> None:
    """Take a user out of all that the domain keeps. What was stopped in the middle, the same command finishes."""
    with settled():
        from client.forget import STAYS
        from client.forget import forget as take_out
        from client.store import Home

        found = take_out(Home(finished(context.obj, run)), user, context.obj["data"], data_too)
        if as_json:
            typer.echo(json.dumps({**asdict(found), "stays": STAYS}, indent=2))
            return
        typer.echo(
            f"Forgotten: {found.journal:,} entries of the journal, {found.consents:,} passports, what was shown in "
            f"{found.shown:,} answers{', a residual of the model' if found.residual else ''}."
        )
        if found.files:
            typer.echo(f"{found.files:,} rows are out of the domain's own files.")
        if found.listed:
            typer.echo(
                "The domain's own files still have this user; they count for nothing from now on, in serving and in "
                "training. --data-too writes them anew."
            )
        typer.echo(STAYS)


@audits.callback()
def audit(
    context: typer.Context,
    provider: Annotated[str | None, typer.Option(help="Column that tells who provides an item, such as brand.")] = None,
    category: Annotated[str | None, typer.Option(help="Column that tells kinds of items, such as genre.")] = None,
    users: Annotated[int, typer.Option(min=1, help="Users in the sample of what would be shown now.")] = 1000,
    cases: Annotated[int, typer.Option(min=1, help="Test cases that quality is measured on.")] = 3000,
    rules: Annotated[Path | None, typer.Option(help="Block-lists and age gates; default rules.toml at home.")] = None,
    run: Run = None,
    as_json: AsJson = False,
) -> None:
    """Measure what this domain shows and write a page to be reviewed and signed, and its figures, into the home.

    Ends with status 1 where the log of what was shown was changed. With a command: complaints, the log.
    """
    if context.invoked_subcommand is not None:
        with settled():
            refuse_early(context)
        return
    with settled():
        import torch

        from client.audit import Asked
        from client.audits import make_audit
        from client.rules import check_rules
        from client.store import Home

        check_rules(rules)
        torch.set_num_threads(1)  # it may run beside a server
        asked = Asked(provider, category, users, cases)
        home = Home(finished(context.obj, run))
        page, found = make_audit(home, context.obj["cache"], context.obj["data"], rules, asked)
        if as_json:
            typer.echo(json.dumps(found, indent=2))
        else:
            shown = found["exposure"]["sample"]
            typer.echo(
                f"{page}: coverage {shown['coverage']:.3f}, Gini {shown['gini']:.3f}, NDCG@10 "
                f"{found['quality'][0]['ndcg@10']:.4f}, {found['complaints']['waiting']} complaints wait"
            )
        if found["log"]["broken"]:
            tell(f"error: the log was changed: {found['log']['broken']}")
            raise typer.Exit(FAILED)


@audits.command()
def queue(
    context: typer.Context,
    block: Annotated[list[str] | None, typer.Option(help="Show this item to nobody; may be repeated.")] = None,
    keep: Annotated[list[str] | None, typer.Option(help="Nothing is wrong with this item; may be repeated.")] = None,
    run: Run = None,
    as_json: AsJson = False,
) -> None:
    """List items that users called harmful and that wait for a decision, after taking those given."""
    with settled():
        import time

        from client.dataset import read_domain, with_journal
        from client.journal import BLOCK, KEEP, Decision, Journal
        from client.review import queue as waiting
        from client.store import Home, load

        home = Home(finished(context.obj, run))
        kept, journal = load(home), Journal(home.journal)
        catalog = with_journal(read_domain(context.obj["data"] or kept.data, kept.domain), journal.entries).catalog
        decided = [(item, BLOCK) for item in block or []] + [(item, KEEP) for item in keep or []]
        if unknown := [item for item, _ in decided if item not in catalog.row]:
            raise ConfigError(f"the catalogue has no item {unknown[0][:80]!r}; nothing was decided")
        if decided:
            journal.append([Decision(item, what, time.time()) for item, what in decided])
        found = [
            {"title": catalog.titles[catalog.row[one.item]] if one.item in catalog.row else "", **asdict(one)}
            for one in waiting(journal.entries)
        ]
        if as_json:
            typer.echo(json.dumps({"waiting": found}, indent=2))
            return
        table = Table()
        for column in ("item", "title", "people", "reports", "decided before", "latest note"):
            table.add_column(column, justify="right" if column in ("people", "reports") else "left")
        for one in found:
            note = one["notes"][0]["text"] if one["notes"] else ""
            cells = (one["item"], one["title"], str(one["people"]), str(one["reports"]), one["decided"], note)
            table.add_row(*(Text(cell) for cell in cells))
        Console().print(table if found else "nothing waits for a decision")


@audits.command()
def log(
    context: typer.Context,
    verify: Annotated[bool, typer.Option("--verify", help="Check the chain; name the first broken record.")] = False,
    run: Run = None,
    as_json: AsJson = False,
) -> None:
    """Tell how much the log of what was shown holds; with --verify end with status 1 where its chain is broken."""
    with settled():
        from client.audit import heads
        from client.audits import latest
        from client.shown import ShownLog
        from client.store import Home, plan_at

        home = Home(finished(context.obj, run))
        plan_at(home)  # else a mistyped domain's log, which nobody wrote, would be found whole
        found = ShownLog(home.shown).check(heads(latest(home)))
        if as_json:
            typer.echo(json.dumps(asdict(found), indent=2))
        else:
            typer.echo(
                f"{found.records:,} records, number {found.first:,} to {found.last:,}, {found.emptied:,} of users who "
                f"were forgotten; the last one's hash is {found.head}"
            )
        if verify and found.broken:
            tell(f"error: the log was changed: {found.broken}")
            raise typer.Exit(FAILED)
        if verify and not as_json:
            typer.echo("each record follows the one before: nothing was changed, taken out or put in")
