"""A domain's home on disk: final adapter, private parameters, ledger, results. Atomic writes; never leaves."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch

from shared.errors import DataError
from shared.payload import Tensors, dense
from shared.plan import Plan, plan_from_json
from shared.whole import aside, read_json, write_whole

AGAIN = "train again"


@dataclass(frozen=True)
class Home:
    """Paths of one domain's home."""

    folder: Path

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.jsonl"

    @property
    def devices(self) -> Path:
        """The ledger of their users' devices, which federate too; the unit is a device, that is one user."""
        return self.folder / "devices.jsonl"

    @property
    def consents(self) -> Path:
        return self.folder / "consents.jsonl"

    @property
    def about(self) -> Path:
        return self.folder / "home.json"

    @property
    def result(self) -> Path:
        return self.folder / "result.json"

    @property
    def adapter(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def private(self) -> Path:
        return self.folder / "private.safetensors"

    @property
    def alone(self) -> Path:
        return self.folder / "alone"

    @property
    def journal(self) -> Path:
        return self.folder / "journal.jsonl"

    @property
    def rules(self) -> Path:
        return self.folder / "rules.toml"

    @property
    def shown(self) -> Path:
        return self.folder / "shown"

    @property
    def audits(self) -> Path:
        return self.folder / "audits"

    @property
    def forgotten(self) -> Path:
        return self.folder / "forgotten.jsonl"

    @property
    def forgetting(self) -> Path:
        return self.folder / "forgetting.json"

    @property
    def serving(self) -> Path:
        return self.folder / "serving"

    @property
    def rounds(self) -> Path:
        return self.folder / "rounds"

    @property
    def released(self) -> Path:
        return self.folder / "released"


@dataclass(frozen=True)
class Kept:
    """What a finished run left in a home."""

    plan: Plan
    base: str
    data: Path
    domain: str
    protocol: str
    adapter: Tensors
    private: dict[str, torch.Tensor]


def keep(home: Home, kept: Kept, result: dict[str, Any]) -> None:
    """Save a finished run: what it takes to recommend, and the results."""
    home.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    about = {
        "plan": json.loads(kept.plan.to_json()),
        "base": kept.base,
        "data": str(kept.data.resolve()),
        "domain": kept.domain,
        "protocol": kept.protocol,
    }
    save_model(home.folder, kept.adapter, kept.private)
    write_json(home.result, result)
    write_json(home.about, about)  # last: a home without it holds no finished run


def save_model(folder: Path, adapter: Tensors, private: dict[str, torch.Tensor]) -> None:
    """Adapter and private parameters, under the names that a home has for them."""
    with aside(Home(folder).adapter) as path:
        save_file(dense(adapter), path)
    with aside(Home(folder).private) as path:
        save_torch(private, path)


def check_finished(home: Home) -> None:
    """Raises DataError where a home holds no finished run."""
    if not home.about.is_file():
        raise DataError(f"no finished run in {home.folder}; train or adopt first, or pass the run's folder with --run")


def plan_at(home: Home) -> Plan:
    """The plan of the last finished run. Raises DataError when there is none or it is damaged."""
    check_finished(home)
    try:
        return plan_from_json(json.dumps(read_json(home.about, AGAIN)["plan"]))
    except KeyError:
        raise DataError(f"{home.about} is missing or damaged; {AGAIN}") from None


def load(home: Home) -> Kept:
    """Read a finished run. Raises DataError when there is none or it is damaged."""
    check_finished(home)
    try:
        about = json.loads(home.about.read_text(encoding="utf-8"))
        return Kept(
            plan_from_json(json.dumps(about["plan"])),
            about["base"],
            Path(about["data"]),
            about["domain"],
            about["protocol"],
            load_file(home.adapter),
            load_torch(home.private),
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DataError(f"{home.folder} is damaged ({type(error).__name__}); {AGAIN}") from None


def keep_round(home: Home, run: str, number: int, private: dict[str, torch.Tensor]) -> None:
    """Save the private parameters as a round left them, beside those it began with: it may be asked again.

    ``run`` is what ``load_round`` knows the run by.
    """
    home.rounds.mkdir(parents=True, exist_ok=True, mode=0o700)
    with aside(home.rounds / f"{number}.safetensors") as path:
        save_torch(private, path, metadata={"run": run})
    before = _rounds(home, number - 1)
    for path in home.rounds.glob("*.safetensors"):
        if path.stem != str(number) and path not in before[:1]:
            path.unlink(missing_ok=True)


def load_round(home: Home, run: str, number: int) -> dict[str, torch.Tensor] | None:
    """The private parameters after that round of the run, or after the last before it that the domain took part in.

    None where there was none. Raises DataError when they are damaged.
    """
    for path in _rounds(home, number):
        found, about = _read_private(path)
        if about.get("run") == run:
            return found
    return None


def _rounds(home: Home, last: int) -> list[Path]:
    """What rounds left, up to that one, newest first."""
    numbers = [int(path.stem) for path in home.rounds.glob("*.safetensors") if path.stem.isdecimal()]
    return [home.rounds / f"{number}.safetensors" for number in sorted(numbers, reverse=True) if number <= last]


def change_private(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Rewrite a file of private parameters; none where there is none. Raises DataError when it is damaged."""
    if not path.exists():
        return
    found, about = _read_private(path)
    change(found)
    with aside(path) as made:
        save_torch(found, made, metadata=about or None)


def _read_private(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors, and what is told of them. Raises DataError."""
    try:
        with safe_open(path, "pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name).clone() for name in names}, file.metadata() or {}
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}); remove it and train again") from None


def write_json(path: Path, value: dict[str, Any]) -> None:
    """One JSON object, whole or not at all."""
    write_whole(path, json.dumps(value, indent=2).encode())


def write_lines(path: Path, values: Sequence[dict[str, Any]]) -> None:
    """One JSON object a line; all of them or none."""
    write_whole(path, "".join(json.dumps(value) + "\n" for value in values).encode())
