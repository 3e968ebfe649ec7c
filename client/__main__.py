"""``python -m client --domain video``: the data owner's side of a federation, and what it serves at home."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from client import budget_commands, reviewing, serving_commands
from client.passport_commands import CodeBookFile, opened, passports
from client.places import UNNAMED, finished
from shared.console import (
    Bars,
    quiet_libraries,
    settled,
    tell,
)
from shared.errors import ConfigError
from shared.plan import PROTOCOLS
from shared.whole import MAX_NAME, plain_name

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(passports, name="passport", help="Taste passports: a code book for all, a passport for one user.")
reviewing.add_commands(app)
serving_commands.add_commands(app)
budget_commands.add_commands(app)
CACHE = Path("var/cache")


@app.callback()
def main(
    context: typer.Context,
    domain: Annotated[str | None, typer.Option(help="Name of this domain; always needed.")] = None,
    data: Annotated[Path | None, typer.Option(help="The domain's folder (see README: data).")] = None,
    superlink: Annotated[str, typer.Option(help="The server, host:port.")] = "127.0.0.1:18000",
    home: Annotated[Path | None, typer.Option(help="The domain's private folder; default var/client/DOMAIN.")] = None,
    cache: Annotated[Path, typer.Option(help="Where prefix states are kept.")] = CACHE,
    protocol: Annotated[str, typer.Option(help="How the domain evaluates itself: loo, time or loo-99.")] = "loo",
    max_epsilon: Annotated[float | None, typer.Option(help="Refuse releases beyond this epsilon.")] = None,
    at_delta: Annotated[
        float, typer.Option(help="The delta that --max-epsilon is measured at, where the plan's is larger.")
    ] = 1e-5,
    for_passports: Annotated[
        float, typer.Option(help="Part of --max-epsilon that is kept for users' taste passports.")
    ] = 0.0,
    share_items: Annotated[
        bool, typer.Option("--share-items", help="Let owners of the same catalogue have its item table.")
    ] = False,
    share_quality: Annotated[
        bool, typer.Option("--share-quality", help="Let the server see this domain's validation NDCG@10, two digits.")
    ] = False,
    base: Annotated[str, typer.Option(help="This domain's copy of the federation's checkpoint.")] = "minilm",
    root_certificates: Annotated[Path | None, typer.Option(help="The server's ca.crt; none: loopback only.")] = None,
    key: Annotated[Path | None, typer.Option(help="This node's private key, where the server asks for one.")] = None,
    members: Annotated[
        Path | None, typer.Option(help="All domains' node keys (NAME.pub): answer in secure sums with them alone.")
    ] = None,
    connect_timeout: Annotated[float, typer.Option(help="Seconds without the server before giving up.")] = 300.0,
    once: Annotated[bool, typer.Option("--once", help="End after the run instead of waiting for the next.")] = False,
) -> None:
    """Join a federation with this domain's own interactions; they never leave this process.

    With a command after the options (--domain NAME recommend, --domain NAME status), do that instead.
    """
    quiet_libraries()
    place = home or Path("var/client") / (domain or "")
    context.obj = {"domain": domain, "home": place, "home_given": home is not None, "cache": cache, "data": data}
    context.obj |= {"max_epsilon": max_epsilon, "at_delta": at_delta, "for_passports": for_passports}
    context.obj |= {"protocol": protocol, "base": base}
    with settled():
        if protocol not in PROTOCOLS:
            raise ConfigError(f"--protocol: expected one of {', '.join(PROTOCOLS)}, found {protocol!r}")
        if domain is not None and not plain_name(domain):
            raise ConfigError(
                f"--domain: expected a name that a file can have, of {MAX_NAME} letters at most, found {domain[:80]!r}"
            )
        if max_epsilon is not None and not 0 < max_epsilon < math.inf:
            raise ConfigError(f"--max-epsilon: expected a number above 0, found {max_epsilon:g}")
        if for_passports and not (max_epsilon is not None and 0 < for_passports < max_epsilon):
            raise ConfigError(f"--for-passports: expected a part of --max-epsilon, found {for_passports:g}")
        if not 0 < at_delta < 1:
            raise ConfigError(f"--at-delta: expected a probability between 0 and 1, found {at_delta:g}")
        if context.invoked_subcommand is not None:
            return
        if not domain:
            raise ConfigError(UNNAMED)
        if data is None:
            raise ConfigError("joining a federation needs --data FOLDER with this domain's files")
        if share_quality and members is not None:
            raise ConfigError("--share-quality cannot go with --members: a secure sum tells of nobody alone")
        identity = None
        if members is not None:
            if key is None:
                raise ConfigError("--members needs --key, this node's own: the others check what is signed with it")
            from client.secure_sum import read_identity

            identity = read_identity(domain, key, members)
        with Bars() as bars:
            from client.rounds import open_member  # heavy: only once the options are known to be good
            from client.supervise import run_client

            member = open_member(
                data,
                domain,
                place,
                cache=str(cache),
                protocol=protocol,
                max_epsilon=max_epsilon,
                at_delta=at_delta,
                base=base,
                share_items=share_items,
                share_quality=share_quality,
                for_passports=for_passports,
            )
            member.workshop.tick = bars.tick
            bars.say(member.domain.describe())
            code = run_client(
                member,
                domain,
                superlink,
                place,
                root_certificates=root_certificates,
                key=key,
                connect_timeout_s=connect_timeout,
                identity=identity,
                once=once,
                say=bars.say,
            )
        raise typer.Exit(code)


@app.command()
def recommend(
    context: typer.Context,
    user: Annotated[str | None, typer.Option(help="A user of this domain.")] = None,
    history: Annotated[str | None, typer.Option(help='Titles, oldest first: "title; title".')] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 10,
    passport: Annotated[Path | None, typer.Option(help="Another domain's taste passport; starts the history.")] = None,
    issuer_key: Annotated[Path | None, typer.Option(help="The issuing domain's passport.pub.")] = None,
    code_book: CodeBookFile = None,
    age: Annotated[int | None, typer.Option(min=0, help="In years; none: too young for every age gate.")] = None,
    run: Annotated[Path | None, typer.Option(help="A simulation's run directory.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Print items for a user, a history or a taste passport, from a finished run. Seen items stay away."""
    with settled():
        if (user is not None and history is not None) or (user is None and history is None and passport is None):
            raise ConfigError(
                "recommend expects --user ID or --history TITLES; --passport FILE may stand alone or beside either"
            )
        papers = [path for path in (passport, issuer_key, code_book) if path is not None]
        if passport is None and papers:
            raise ConfigError("--issuer-key and --code-book are for --passport FILE, which is not given")
        if passport is not None and len(papers) < 3:
            raise ConfigError("--passport needs --issuer-key and --code-book, both from the domain that gave it")
        titles = [title.strip() for title in (history or "").split(";") if title.strip()]
        if history is not None and not titles:
            raise ConfigError("--history expects titles with ';' between them, found none")
        from client.journal import Journal
        from client.recommend import open_serving
        from client.review import hidden
        from client.store import Home

        home = Home(finished(context.obj, run))
        entries = Journal(home.journal).entries
        serving = open_serving(home, context.obj["cache"], context.obj["data"], entries)
        before = None if passport is None else opened(serving, *papers)
        if user is not None:
            person = serving.known(user, before)
        elif before is not None and history is None:
            person = serving.bearer(before)
        else:
            person = serving.described(titles, before)
        found = serving.top(person, k, hidden(entries, user or ""), age)
        if as_json:
            typer.echo(json.dumps({"domain": serving.domain.name, "items": [asdict(item) for item in found]}, indent=2))
            return
        table = Table()
        table.add_column("", justify="right")
        table.add_column("title")
        table.add_column("score", justify="right")
        for item in found:
            table.add_row(str(item.rank), Text(item.title), f"{item.score:.2f}")
        Console().print(table)


@app.command()
def explain(
    context: typer.Context,
    item: Annotated[str, typer.Option(help="The item, by its id or its title.")],
    user: Annotated[str | None, typer.Option(help="A user of this domain.")] = None,
    history: Annotated[str | None, typer.Option(help='Titles, oldest first: "title; title".')] = None,
    most: Annotated[int, typer.Option(min=1, help="How many of each kind.")] = 3,
    only: Annotated[
        list[str] | None, typer.Option(help="Some of because, words, paths, rules, friends, nearest, with commas.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="A simulation's run directory.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of sentences.")] = False,
) -> None:
    """Print why an item is recommended to a user or a history: the events and the words that raise its score, ways
    over attributes, rules of the domain's people, and what is most like it among what was met."""
    with settled():
        if (user is None) == (history is None):
            raise ConfigError("explain expects either --user ID or --history TITLES")
        from client.explain import explain_at_home, sentences
        from client.recommend import open_serving
        from client.store import Home
        from shared.explanation import PARTS, check_parts

        wanted = [name.strip() for text in only or [] for name in text.split(",") if name.strip()] or PARTS
        check_parts(wanted)
        serving = open_serving(Home(finished(context.obj, run)), context.obj["cache"], context.obj["data"])
        person = serving.known(user) if user is not None else serving.described((history or "").split(";"))
        found = explain_at_home(serving, person, serving.engine.item(item), most, wanted, user)
        if as_json:
            typer.echo(json.dumps({"domain": serving.domain.name, **asdict(found)}, indent=2, ensure_ascii=False))
            return
        if "because" in wanted and not found.because:
            typer.echo("no event of this history raises its score: it stands there for what most people like")
        for line in sentences(found):
            typer.echo(line)


@app.command()
def export(
    context: typer.Context,
    projector: Annotated[Path, typer.Option(help="A new folder for TensorBoard's embedding projector.")],
    users: Annotated[bool, typer.Option("--users", help="Also users' vectors and ids; they belong at home.")] = False,
    run: Annotated[Path | None, typer.Option(help="A simulation's run directory.")] = None,
) -> None:
    """Write the item vectors of a finished run, with titles and attributes, for TensorBoard's projector."""
    with settled():
        from client.projector import export_projector
        from client.recommend import open_serving
        from client.store import Home

        serving = open_serving(Home(finished(context.obj, run)), context.obj["cache"], context.obj["data"])
        names = export_projector(serving, projector, users)
        typer.echo(f"{projector}: {' and '.join(names)}; look at them with tensorboard --logdir {projector}")
        if users:
            tell(f"{projector}/users tells who has which taste: keep it at home")


@app.command()
def evaluate(
    context: typer.Context,
    run: Annotated[Path | None, typer.Option(help="A simulation's run directory.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Evaluate what this domain serves on its own test cases: all metrics and strata. The numbers stay at home."""
    with settled():
        from client.evaluate import evaluate as measure
        from client.recommend import open_serving
        from client.store import Home

        serving = open_serving(Home(finished(context.obj, run)), context.obj["cache"], context.obj["data"])
        protocol = serving.kept.protocol
        corpus, cases = serving.tested()
        x = serving.engine.scorer.vectors.x[: len(corpus.space)]
        found = {"protocol": protocol, **measure(serving.model, corpus, cases, serving.private, x)}
        if as_json:
            typer.echo(json.dumps(found, indent=2))
            return
        table = Table(title=f"{serving.domain.name}, protocol {protocol}, {found['cases']:,} cases")
        for column in ("", "all", *found["strata"]):
            table.add_column(column, justify="right")
        table.add_row("cases", f"{found['cases']:,}", *(f"{part['cases']:,}" for part in found["strata"].values()))
        for name, value in found.items():
            if isinstance(value, float):
                parts = (f"{part[name]:.4f}" if name in part else "" for part in found["strata"].values())
                table.add_row(name, f"{value:.4f}", *parts)
        Console().print(table)


@app.command("key")
def make_key(
    context: typer.Context,
    out: Annotated[Path | None, typer.Option(help="Where to; default the domain's private folder.")] = None,
) -> None:
    """Make this domain's node key: DOMAIN, which never leaves this machine, and DOMAIN.pub, for everybody."""
    with settled():
        from shared.node_key import make_node_key

        given = context.obj
        if not given["domain"]:
            raise ConfigError(UNNAMED)
        private, public = make_node_key(out or given["home"], given["domain"])
        typer.echo(f"{private}: this domain's own, for --key; keep it to yourself")
        typer.echo(f"{public}: give it to the server (certs --public) and to every member (--members)")


if __name__ == "__main__":
    app(prog_name="python -m client")
