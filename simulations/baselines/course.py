"""Where a training of hours stands after an epoch: one that was interrupted goes on there, to the same end."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from shared.whole import write_whole

Tensors = dict[str, torch.Tensor]


@dataclass
class Course:
    """How far it came, and its best state."""

    best: float  # validation NDCG@10
    kept: int  # the epoch that had it
    epoch: int  # the last whole one
    state: Tensors  # of the model, at its best


def keep(
    path: Path, key: str, course: Course, model: nn.Module, optimizer: torch.optim.Optimizer, draw: np.random.Generator
) -> None:
    """All that the next epoch hangs on, torch's own random numbers too. ``key`` names what it is a training of."""
    moments = {
        f"{at} {name}": value for at, part in optimizer.state_dict()["state"].items() for name, value in part.items()
    }
    parts = {"model": model.state_dict(), "best": course.state, "moment": moments, "torch": {"": torch.get_rng_state()}}
    tensors = {f"{part}/{name}": value.contiguous() for part, held in parts.items() for name, value in held.items()}
    about = {"best": course.best, "kept": course.kept, "epoch": course.epoch, "state": {}}
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_whole(
        path, save(tensors, {"key": key, "about": json.dumps(about), "draw": json.dumps(draw.bit_generator.state)})
    )


def resume(
    path: Path, key: str, model: nn.Module, optimizer: torch.optim.Optimizer, draw: np.random.Generator
) -> Course | None:
    """Put everything back as ``keep`` found it; None where nothing of that key lies there that can be read."""
    try:
        with safe_open(path, framework="pt") as file:
            about: dict[str, str] = file.metadata() or {}
            held: dict[str, Tensors] = {"model": {}, "best": {}, "moment": {}, "torch": {}}
            for name in file.keys():  # noqa: SIM118 - no dict
                part, _, own = name.partition("/")
                held[part][own] = file.get_tensor(name)
        if about["key"] != key:
            return None
        course, random = Course(**json.loads(about["about"])), json.loads(about["draw"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None
    model.load_state_dict(held["model"])
    moments: dict[int, dict[str, Any]] = {}
    for name, value in held["moment"].items():
        at, _, own = name.partition(" ")
        moments.setdefault(int(at), {})[own] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    draw.bit_generator.state = random
    torch.set_rng_state(held["torch"][""])
    course.state = held["best"]
    return course
