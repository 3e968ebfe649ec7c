"""``python -m server``: one federation from the first round to the last, and what comes of it."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shared.console import (
    Adversarial,
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
    refuse_early,
    settled,
    tell,
)
from shared.errors import ConfigError

if TYPE_CHECKING:  # heavy at run time
    from server.service import CrossDomain

Run = Annotated[Path, typer.Option("--run-dir", help="A run directory: of a server, or of a simulation.")]
Catalogues = Annotated[
    list[Path] | None, typer.Option("--catalogue", help="A domain's published catalogue; may be repeated.")
]
Cache = Annotated[Path, typer.Option(help="Where prefix states are kept.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead.")]
CACHE = Path("var/cache")

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def main(
    context: typer.Context,
    clients: Annotated[int, typer.Option(help="Domains to wait for before the first round.")] = 2,
    rounds: Rounds = None,
    seed: Seed = None,
    family: Family = None,
    base: BaseName = None,
    adversarial: Adversarial = False,
    epsilon: Epsilon = None,
    delta: Delta = None,
    settings: SettingsFile = None,
    sets: Sets = None,
    run_dir: Annotated[Path | None, typer.Option(help="Run directory; default runs/server- and the time.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the last complete round.")] = False,
    host: Annotated[str, typer.Option(help="Address of loopback to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 18000,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the domains.")] = 300.0,
    round_timeout: Annotated[float, typer.Option(help="Seconds for one round.")] = 3600.0,
    certificates: Annotated[
        Path | None, typer.Option(help="Folder made by `certs`; with the members that may join.")
    ] = None,
    http_port: Annotated[int | None, typer.Option(help="Also open the HTTP door here while the run lasts.")] = None,
    catalogue: Catalogues = None,
    cache: Cache = CACHE,
) -> None:
    """Run a federation; ends with status 0 only when every round is done."""
    quiet_libraries()
    if context.invoked_subcommand is not None:
        with settled():
            refuse_early(context)
        return
    with settled():
        more = named(rounds, seed, family, base, adversarial, epsilon, delta)
        plan = plan_from(settings, sets or [], more)
        if resume and run_dir is None:
            raise ConfigError("--resume needs --run-dir FOLDER: which run is to go on?")
        from server.beside import door_from
        from server.certs import certificates_in
        from server.launch import run_server
        from server.registry import plan_of

        if resume and run_dir is not None and not (settings or sets or any(more.values())):
            plan = plan_of(run_dir)  # as it was begun

        door = door_from(http_port, catalogue or [], cache)
        where = run_dir or Path("runs") / time.strftime("server-%Y%m%d-%H%M%S")
        code = run_server(
            plan,
            where,
            clients=clients,
            host=host,
            port=port,
            wait_s=wait,
            round_timeout_s=round_timeout,
            certificates=None if certificates is None else certificates_in(certificates),
            resume=resume,
            door=door,
            say=tell,
        )
        raise typer.Exit(code)


@app.command()
def certs(
    folder: Annotated[Path, typer.Argument(help="Where to write them.")],
    members: Annotated[
        list[str] | None, typer.Option("--member", help="A domain that may join, whose key is made here; repeatable.")
    ] = None,
    public: Annotated[
        list[Path] | None, typer.Option(help="NAME.pub of a domain that made its key at home; repeatable.")
    ] = None,
    hosts: Annotated[
        list[str] | None, typer.Option("--name", help="A name or address of this server; repeatable.")
    ] = None,
) -> None:
    """Make a certificate authority and the server's certificate in FOLDER, and take in or make the members' keys.

    For a FOLDER that has certificates already, only further members are added. Who makes a member's key can sign as
    that member: for secure sums each makes its own (python -m client key).
    """
    with settled():
        from server.certs import make_certificates

        made = make_certificates(folder, members or [], hosts or [], public or [])
        for path in made:
            typer.echo(str(path))
        if not made:
            tell(f"{folder} has certificates already, and no further member was named: --member NAME or --public FILE")


@app.command()
def serve(
    run_dir: Run,
    catalogue: Catalogues = None,
    port: Annotated[int, typer.Option(help="Of the REST door and the page; 0 takes a free one.")] = 8200,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="Of the gRPC door; 0: none.")] = 0,
    host: Annotated[str, typer.Option(help="Address of loopback to listen on.")] = "127.0.0.1",
    cache: Cache = CACHE,
) -> None:
    """Serve the cross-domain recommender over published catalogues, for histories that come along and are not kept.

    Without a catalogue: the federation at a glance alone.
    """
    with settled():
        import threading

        from shared.processes import check_places, free_port

        place, stopped = port or free_port(host), threading.Event()
        check_places(host, place, grpc_port)  # before what takes seconds

        from server.http_api import application
        from shared.http import listen

        service = opened(run_dir, catalogue, cache)
        threading.Thread(target=service.watch, args=(stopped,), kwargs={"say": tell}, daemon=True).start()
        names = ", ".join(f"{name} ({len(engine):,} items)" for name, engine in service.state.engines.items())
        line = f"{names or 'no catalogue'}, model {service.state.version}, at http://{host}:{place}/"
        beside = None
        if grpc_port:
            from server.grpc_api import door

            beside, line = door(service, grpc_port), f"{line} and by gRPC at {host}:{grpc_port}"
        listen(application(service, service.state.version), host, place, lambda: tell(line), beside)
        stopped.set()


@app.command()
def recommend(
    run_dir: Run,
    history: Annotated[str, typer.Option(help='Ids, titles or any words, oldest first: "title; title".')],
    catalogue: Catalogues = None,
    domain: Annotated[list[str] | None, typer.Option(help="Of which domains; may be repeated; none: of all.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many of each.")] = 10,
    cache: Cache = CACHE,
    as_json: AsJson = False,
) -> None:
    """Print items of each domain for a history, by the newest adapter of a run."""
    with settled():
        words = [word.strip() for word in history.split(";") if word.strip()]
        if not words:
            raise ConfigError("--history expects titles with ';' between them, found none")
        if not catalogue:
            raise ConfigError("recommend needs --catalogue FOLDER: what is there to recommend?")
        from server.history import Event
        from server.http_api import spelled
        from shared.http import plain
        from shared.policy import Wish

        found = opened(run_dir, catalogue, cache).recommend([Event(text=word) for word in words], domain, Wish(k))
        if as_json:
            typer.echo(json.dumps(plain(spelled(found)), indent=2, ensure_ascii=False))
            return
        for answer in found.answers:
            table = Table("", "title", "score", title=Text(answer.domain), title_justify="left")
            for item in answer.items:
                table.add_row(str(item.rank), Text(item.title), f"{item.score:.2f}")
            Console().print(table)


@app.command()
def rounds(run_dir: Run, as_json: AsJson = False) -> None:
    """Print what became of a run, round by round: who answered, who was refused and why, seconds, bytes, quality."""
    with settled():
        from server.glance import glance

        found = glance(run_dir)
        if as_json:
            typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
            return
        about = found["plan"]
        title = f"{found['state']}, {found['rounds_done']} of {about['rounds']} rounds, family {about['family']}"
        table = Table(title=title, title_justify="left")
        for column in ("round", "seconds", "MB down", "MB up"):
            table.add_column(column, justify="right")
        for column in ("domains", "refused", "NDCG@10"):
            table.add_column(column)
        for one in found["rounds"]:
            table.add_row(*map(Text, round_cells(one)))
        Console().print(table)
        if found["reason"]:
            typer.echo(found["reason"])


def round_cells(one: dict[str, Any]) -> list[str]:
    """A row of the table of rounds."""
    moved = one.get("bytes", {}).values()
    totals = [f"{sum(part[way] for part in moved) / 2**20:.1f}" if moved else "" for way in ("down", "up")]
    absent = {**one["refused"], **one.get("failed", {})}
    return [
        str(one["round"]),
        f"{one['seconds']:.1f}" if "seconds" in one else "",
        *totals,
        ", ".join(one["domains"]),
        "; ".join(f"{who}: {why}" for who, why in sorted(absent.items())),
        ", ".join(f"{who} {value:.2f}" for who, value in sorted(one.get("quality", {}).items())),
    ]


@app.command()
def export(
    run_dir: Run,
    out: Annotated[Path, typer.Option(help="A new folder.")],
    domain: Annotated[
        str | None, typer.Option(help="That domain's own mixture; none: what an unknown one gets.")
    ] = None,
    number: Annotated[int | None, typer.Option("--round", help="After which round; none: the last.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a run's model: adapters in PEFT's format, towers as safetensors, a manifest with their hashes."""
    with settled():
        from server.export import export as give

        manifest = give(run_dir, out, domain, number)
        if as_json:
            typer.echo(json.dumps(manifest, indent=2))
            return
        for name in (*manifest["sha256"], "manifest.json"):
            typer.echo(str(out / name))


def opened(run_dir: Path, catalogue: list[Path] | None, cache: Path) -> "CrossDomain":
    """Raises ConfigError, DataError for what cannot serve."""
    import torch

    from server.service import CrossDomain

    torch.set_num_threads(1)  # an answer is too small to share; requests are many
    return CrossDomain(run_dir, catalogue or [], cache)


if __name__ == "__main__":
    app(prog_name="python -m server")
