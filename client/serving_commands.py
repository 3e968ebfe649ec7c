"""The commands that open a domain to others: to its own users, and, of its catalogue alone, to a server."""

from pathlib import Path
from typing import Annotated

import typer

from client.passport_commands import CodeBookFile, border_of
from client.places import UNNAMED, finished
from shared.console import Bars, settled, tell
from shared.errors import ConfigError

RulesFile = Annotated[Path | None, typer.Option(help="Block-lists and age gates; default rules.toml at home.")]


def add_commands(app: typer.Typer) -> None:
    """Into the client's own."""
    app.command()(serve)
    app.command()(publish)
    app.command()(adopt)


def serve(
    context: typer.Context,
    port: Annotated[int, typer.Option(help="Of the REST door and the page; 0 takes a free one.")] = 8100,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="Of the gRPC door; 0: none.")] = 0,
    host: Annotated[str, typer.Option(help="Address of loopback to listen on.")] = "127.0.0.1",
    rules: RulesFile = None,
    audit_every: Annotated[
        float | None, typer.Option(min=0.1, help="Hours between audits; none: by hand alone.")
    ] = None,
    log_mb: Annotated[int, typer.Option(min=1, help="Largest size of the log of what was shown.")] = 64,
    issuer_keys: Annotated[
        list[Path] | None,
        typer.Option("--issuer-key", help="passport.pub of whom passports are taken; repeatable."),
    ] = None,
    code_book: CodeBookFile = None,
    run: Annotated[Path | None, typer.Option(help="A simulation's run directory.")] = None,
) -> None:
    """Serve this domain's own users from the last finished run: REST, gRPC and a page, until interrupted."""
    with settled():
        import threading

        from shared.processes import check_places, free_port

        place, stopped = port or free_port(host), threading.Event()
        check_places(host, place, grpc_port)  # before what takes seconds

        import torch

        from client.http_api import application
        from client.rules import check_rules
        from client.service import HomeService
        from client.store import Home
        from shared.http import listen

        torch.set_num_threads(1)  # an answer is too small to share; requests are many
        check_rules(rules)
        home = Home(finished(context.obj, run))
        service = HomeService(home, context.obj["cache"], context.obj["data"], rules, log_mb * 2**20, tell)
        service.border = border_of(issuer_keys or [], code_book)
        threading.Thread(target=service.watch, args=(stopped,), kwargs={"say": tell}, daemon=True).start()
        name, engine = service.serving.domain.name, service.serving.engine
        audits = []
        if audit_every is not None:
            from client import audit_clock

            words = audit_clock.command(home, name, context.obj["cache"], context.obj["data"], rules)
            clock = (home, audit_every, words, stopped, tell)
            audits.append(threading.Thread(target=audit_clock.audit_every, args=clock, daemon=True))
            audits[0].start()
        line = f"{name}: {len(engine):,} items, model {engine.version}, at http://{host}:{place}/"
        beside = None
        if grpc_port:
            from client.grpc_api import door

            beside, line = door(service, grpc_port), f"{line} and by gRPC at {host}:{grpc_port}"
        app = application(service, engine.version, context.obj["max_epsilon"])
        reading = threading.Thread(target=service.warm, daemon=True)

        def ready() -> None:
            tell(line)
            reading.start()

        listen(app, host, place, ready, beside)
        stopped.set()
        service.close()
        for audit in audits:
            audit.join(timeout=5)


def publish(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(help="Where the catalogue is written; give that folder to the server.")],
    popularity: Annotated[
        bool, typer.Option("--popularity", help="Also which items are met by most users: three groups, no counts.")
    ] = False,
    rules: RulesFile = None,
) -> None:
    """Write this domain's public catalogue: ids, titles, texts, attributes; nothing of any user.

    Of the files in --data, or those of the last finished run, and the items that came in since. What a rule strikes,
    for everybody or below an age, stays out.
    """
    with settled():
        given = context.obj
        if not given["domain"]:
            raise ConfigError(UNNAMED)
        from client.publish import publish as give
        from client.rules import check_rules
        from client.store import Home, load

        home = Home(given["home"])
        if given["data"] is None and not home.about.is_file():
            raise ConfigError("publish needs the domain's files: --data FOLDER before the command")
        check_rules(rules)
        found, struck = give(given["data"] or load(home).data, given["domain"], home, out, popularity, rules)
        left = f" ({struck:,} more stay at home by its rules)" if struck else ""
        about = f"{len(found.catalog):,} items of {found.domain}{left}"
        typer.echo(f"{out}: {about}, fingerprint {found.catalog.fingerprint[:16]}")


def adopt(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="The folder that `python -m server export` wrote.")],
) -> None:
    """Serve from a federation's model without training: needs --data; texts, and what is counted at home."""
    with settled():
        given = context.obj
        if not given["domain"]:
            raise ConfigError(UNNAMED)
        if given["data"] is None:
            raise ConfigError("adopting a model needs --data FOLDER with this domain's files")
        from shared.exported import read_exported

        exported = read_exported(model)  # before what takes minutes
        with Bars() as bars:
            from client.adopt import ADOPTED
            from client.adopt import adopt as take
            from client.rounds import open_member

            member = open_member(
                given["data"],
                given["domain"],
                given["home"],
                cache=str(given["cache"]),
                protocol=given["protocol"],
                base=given["base"],
            )
            member.workshop.tick = bars.tick
            bars.say(member.domain.describe())
            bars.say("reading its texts, counting what its users met")
            found = take(member, exported)
        if found["served"] != ADOPTED:
            tell("texts validate better here without the federation's adapter, so that is left out")
        for name, figures in (
            ("the federation's model", found["federated"]),
            ("with what is counted", found["personal"]),
        ):
            typer.echo(f"{name}: HR@10 {figures['hr@10']:.4f}, NDCG@10 {figures['ndcg@10']:.4f}")
        typer.echo(f"now: python -m client --domain {given['domain']} serve")
