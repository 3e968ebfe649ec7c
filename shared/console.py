"""What the command lines share: true exit codes, plain errors, progress bars."""

import errno
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from click.core import ParameterSource
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from shared.config import Table, apply_sets, read_toml
from shared.errors import BaseModelError, ConfigError, DataError, FullError, IsthmusError
from shared.memory import keep_apart
from shared.plan import Plan, read_plan
from shared.processes import SWITCHES
from shared.whole import FULL

FAILED, MISUSED, INTERRUPTED = 1, 2, 130
UNUSABLE = FULL | {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG}
UNUSABLE |= {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT}

SILENT_S = 60.0  # at most, where no bar can be shown
err = Console(stderr=True, highlight=False)

# Options that several commands have in common.
Rounds = Annotated[int | None, typer.Option(help="Federated rounds.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything that is drawn.")]
Family = Annotated[str | None, typer.Option(help="affinity (each its own mixture), ffa (exact) or fedavg (inexact).")]
BaseName = Annotated[str | None, typer.Option(help="minilm, a folder, or a hub id of a BERT checkpoint.")]
Adversarial = Annotated[bool, typer.Option("--adversarial", help="Adversarial training.")]
Epsilon = Annotated[float | None, typer.Option(help="User-level privacy budget of the whole run.")]
Delta = Annotated[float | None, typer.Option(help="Its delta; well below one in the number of users.")]
SettingsFile = Annotated[Path | None, typer.Option(help="TOML file of settings.")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="section.key=value, over the file.")]


def quiet_libraries() -> None:
    """Nothing phones home, and libraries' notes to developers stay off the user's screen.

    A hub id given as ``--base`` may still be fetched unless the user says otherwise.
    """
    for key, value in SWITCHES.items():
        if key != "HF_HUB_OFFLINE":
            os.environ.setdefault(key, value)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # One compiled kernel per shape is kept, and every batch has a shape of its own: a thousand by default.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    keep_apart()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    warnings.filterwarnings("ignore", category=UserWarning, module="opacus")
    # Opacus' hooks: the first layer's input is frozen, which is as it should be.
    warnings.filterwarnings("ignore", category=UserWarning, message="Full backward hook is firing")


@contextmanager
def settled() -> Iterator[None]:
    """Turn what went wrong into one line and an exit status: 2 misuse, 1 failure, 130 interrupted."""
    try:
        yield
    except FullError as error:  # of the DataErrors the one that another try may not meet
        tell(f"error: {error}")
        raise typer.Exit(FAILED) from None
    except (ConfigError, DataError, BaseModelError) as error:
        tell(f"error: {error}")
        raise typer.Exit(MISUSED) from None
    except IsthmusError as error:
        tell(f"error: {error}")
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        tell("interrupted: what was finished is saved")
        raise typer.Exit(INTERRUPTED) from None
    except OSError as error:
        if error.errno in UNUSABLE:
            tell(f"error: cannot use {error.filename or 'a file'}: {error.strerror}")
            raise typer.Exit(FAILED if error.errno in FULL else MISUSED) from None
        raise


def refuse_early(context: typer.Context) -> None:
    """Raises ConfigError for options that stand before a command and count for nothing there."""
    given = {one for one in context.params if context.get_parameter_source(one) is ParameterSource.COMMANDLINE}
    if early := [one.opts[0] for one in context.command.params if one.name in given]:
        raise ConfigError(f"{early[0]} stands before {context.invoked_subcommand}: options of a command come after it")


def tell(line: str) -> None:
    """One line on stderr, however narrow the terminal: a message that is cut cannot be searched for."""
    err.print(line, markup=False, soft_wrap=True)


def plan_from(settings: Path | None, sets: list[str], more: Table, before: Table | None = None) -> Plan:
    """What stands ``before``, then the settings file, then ``--set``, then the options that have names of their own."""
    table = dict(before or {})
    for section, values in (read_toml(settings) if settings is not None else {}).items():
        both = section in table and isinstance(values, dict)
        table[section] = {**table[section], **values} if both else values
    table = apply_sets(table, sets)
    for section, values in more.items():
        table.setdefault(section, {}).update(values)
    return read_plan(table)


def named(
    rounds: int | None = None,
    seed: int | None = None,
    family: str | None = None,
    base: str | None = None,
    adversarial: bool = False,
    epsilon: float | None = None,
    delta: float | None = None,
) -> dict[str, dict[str, Any]]:
    """Options with names of their own as settings."""
    given: dict[str, dict[str, Any]] = {
        "federation": {"rounds": rounds, "seed": seed, "family": family},
        "model": {"base": base},
        "adversary": {"weight": 1.0 if adversarial else None},
        "privacy": {"epsilon": epsilon, "delta": delta},
    }
    return {part: {k: v for k, v in values.items() if v is not None} for part, values in given.items()}


class Bars:
    """One progress bar at a time, with rate and time left, on stderr; where that is no terminal, a line a minute."""

    def __init__(self) -> None:
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=err,
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self.said = time.monotonic()
        self.current: tuple[str, TaskID] | None = None

    def __enter__(self) -> "Bars":
        self.bars.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.bars.stop()

    def tick(self, what: str, done: int, total: int) -> None:
        """Show ``done`` of ``total``; a new ``what`` takes a new bar."""
        if self.bars.disable:
            if time.monotonic() - self.said >= SILENT_S:
                self.say(f"{what}: {done:,} of {total:,}")
            return
        if self.current is None or self.current[0] != what:
            if self.current is not None:
                self.bars.remove_task(self.current[1])
            self.current = (what, self.bars.add_task(what, total=total, rate=""))
        task = self.current[1]
        speed = self.bars.tasks[-1].speed
        self.bars.update(task, completed=done, total=total, rate=f"{speed:.1f}/s" if speed else "")

    def say(self, line: str) -> None:
        """A line that stays, above the bar."""
        self.said = time.monotonic()
        tell(line)
