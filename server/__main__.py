"""``python -m server``: one federation from the first round to the last."""

import time
from pathlib import Path
from typing import Annotated

import typer

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
    settled,
    tell,
)
from shared.errors import ConfigError

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
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 18000,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the domains.")] = 300.0,
    round_timeout: Annotated[float, typer.Option(help="Seconds for one round.")] = 3600.0,
    certificates: Annotated[Path | None, typer.Option(help="Folder made by `certs`; needed off loopback.")] = None,
) -> None:
    """Run a federation; ends with status 0 only when every round is done."""
    quiet_libraries()
    if context.invoked_subcommand is not None:
        return
    with settled():
        more = named(rounds, seed, family, base, adversarial, epsilon, delta)
        plan = plan_from(settings, sets or [], more)
        if resume and run_dir is None:
            raise ConfigError("--resume needs --run-dir FOLDER: which run is to go on?")
        from server.certs import certificates_in
        from server.launch import run_server

        where = run_dir or Path("runs") / time.strftime("server-%Y%m%d-%H%M%S")
        tell(f"run directory: {where}")
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
            say=tell,
        )
        raise typer.Exit(code)


@app.command()
def certs(
    folder: Annotated[Path, typer.Argument(help="Where to write them.")],
    members: Annotated[list[str] | None, typer.Option("--member", help="A domain that may join; repeatable.")] = None,
    hosts: Annotated[
        list[str] | None, typer.Option("--name", help="A name or address of this server; repeatable.")
    ] = None,
) -> None:
    """Make a certificate authority, the server's certificate, and one key per member, in FOLDER.

    For a FOLDER that has certificates already, only the keys of further members are made.
    """
    with settled():
        from server.certs import make_certificates

        for path in make_certificates(folder, members or [], hosts or []):
            typer.echo(str(path))


if __name__ == "__main__":
    app(prog_name="python -m server")
