"""``python -m client --domain video passport ...``: a code book for all, a passport for one user; and taking one."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.places import charged, finished
from shared.console import settled
from shared.errors import ConfigError

if TYPE_CHECKING:  # heavy at run time
    import torch

    from client.passport import Border
    from client.recommend import Serving

CodeBookFile = Annotated[Path | None, typer.Option(help="The public code book that the passport was drawn from.")]
passports = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)


@passports.command()
def book(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Where the code book is written; give it to the other domains.")],
    codes: Annotated[int, typer.Option(min=2, help="How many places it has.")] = 128,
    catalogue: Annotated[list[Path] | None, typer.Option(help="More domains' public catalogues, folders.")] = None,
    run: Annotated[Path | None, typer.Option(help="A simulation's run directory.")] = None,
) -> None:
    """Make the public code book: k-means of catalogue texts as the frozen base reads them."""
    with settled():
        import torch

        from client.passport import public_book, public_vectors
        from client.recommend import open_serving
        from client.store import Home
        from shared.catalog import read_catalog

        check_new_file(out, "--out")
        more = [read_catalog(folder)[0] for folder in catalogue or []]
        serving = open_serving(Home(finished(context.obj, run)), context.obj["cache"], context.obj["data"])
        cache = context.obj["cache"]  # each catalogue apart: its states are there already where it was read before
        raw = [public_vectors(serving.model, one.texts, cache) for one in (serving.domain.catalog, *more)]
        made = public_book(torch.cat(raw), codes, serving.kept.base)
        out.write_bytes(made.to_bytes())
        typer.echo(f"{out}: {len(made)} codes, fingerprint {made.fingerprint}")


@passports.command()
def issue(
    context: typer.Context,
    user: Annotated[str, typer.Option(help="The user of this domain who asked for it.")],
    epsilon: Annotated[float, typer.Option(help="What the passport may cost this user.")],
    consent: Annotated[str, typer.Option(help="How the user agreed, in words; kept.")],
    code_book: Annotated[Path, typer.Option(help="The public code book.")],
    out: Annotated[Path, typer.Option(help="Where the passport is written.")],
    codes: Annotated[int, typer.Option(min=1, help="How many codes share epsilon.")] = 1,
    mechanism: Annotated[str, typer.Option(help="near-set, randomised-response or exponential.")] = "near-set",
    run: Annotated[Path | None, typer.Option(help="A simulation's run directory.")] = None,
) -> None:
    """Give one user a signed taste passport; consent and ledger are written before it is."""
    with settled():
        from client.budget import Limits
        from client.passport import Request
        from client.passport import issue as give
        from client.recommend import open_serving
        from client.store import Home
        from shared.passport import read_book

        public = read_book(code_book)
        check_new_file(out, "--out")  # before anything is spent
        home = Home(charged(context.obj, run))
        if not home.about.is_file():
            raise ConfigError(
                f"{home.folder} holds no finished run of this domain, which a passport is drawn by and charged to; "
                "join a federation, or name a simulation with --run"
            )
        serving = open_serving(home, context.obj["cache"], context.obj["data"])
        request = Request(user, epsilon, consent, codes, mechanism)
        limits = Limits(context.obj["max_epsilon"], context.obj["at_delta"], passports=context.obj["for_passports"])
        token = give(home, serving.domain, serving.space(), serving.plan, public, serving.kept.base, request, limits)
        out.write_bytes(token.to_bytes())
        typer.echo(f"{out}: epsilon {epsilon:g}; others check it with {home.folder / 'passport.pub'}")


def check_new_file(path: Path, option: str) -> None:
    """Raises ConfigError where no file can be written at this path."""
    if path.is_dir() or not path.parent.is_dir():
        found = "a folder" if path.is_dir() else f"no folder {path.parent}"
        raise ConfigError(f"{option} {path}: expected the path of a file to write, found {found}")
    if not os.access(place := path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"{option} {path}: {place} may not be written to; check its permissions")


def border_of(issuer_keys: list[Path], code_book: Path | None) -> "Border | None":
    """Whose passports are taken; None for nobody's. Raises ConfigError, PayloadError, DataError."""
    if bool(issuer_keys) != (code_book is not None):
        raise ConfigError("passports need --issuer-key and --code-book, both from the domain that gives them")
    if code_book is None:
        return None
    from client.passport import Border, read_public_key
    from shared.passport import read_book

    for path in (*issuer_keys, code_book):
        if not path.is_file():
            raise ConfigError(f"expected a file at {path}; check the path")
    return Border(tuple(read_public_key(path) for path in issuer_keys), read_book(code_book))


def opened(serving: "Serving", passport: Path, issuer_key: Path, code_book: Path) -> "torch.Tensor":
    """The places of a passport that proves genuine. Raises PayloadError, DataError."""
    from client.passport import accept, read_public_key
    from shared.passport import read_book, read_passport

    token = read_passport(passport)
    key = read_public_key(issuer_key)
    return accept(token, read_book(code_book), serving.kept.base, key, serving.engine.whitening)
