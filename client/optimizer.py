"""How trainable numbers move: rates that warm up and decay, clipped gradients, decay to zero or back to the start."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from shared.model import Recommender, shared_parameters
from shared.plan import Plan
from shared.private import Private

# A user's row gets one gradient an epoch, and SparseAdam moves it then only, not while its momentum dies away.
SPARSE_RATE = 5.0


class Optimizer:
    """AdamW with linear warm-up and decay, gradients clipped to length 1 and cleared after each step.

    Tables whose gradients are sparse go through SparseAdam: no decay, no clipping. A group with ``pull`` is drawn back
    to where it started as weight decay draws to zero: the proximal term of Ditto (Li et al. 2021, eq. 2), decoupled.
    """

    def __init__(
        self,
        groups: list[dict[str, object]],
        steps: int,
        plan: Plan,
        part: tuple[int, int],
        sparse: Sequence[torch.Tensor] = (),
    ) -> None:
        self.inner = torch.optim.AdamW(groups, betas=(0.9, 0.98))
        self.all: list[torch.optim.Optimizer] = [self.inner]
        if sparse and plan.train.lr:
            self.all.append(torch.optim.SparseAdam(list(sparse), lr=SPARSE_RATE * plan.train.lr, betas=(0.9, 0.98)))
        before, course = part[0] * steps, part[1] * steps
        warm = max(1, int(plan.train.warmup * course))

        def rate(step: int) -> float:
            at = before + step
            return min((at + 1) / warm, max(0.05, 1 - (at - warm) / max(course - warm, 1)))

        self.schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, rate) for optimizer in self.all]
        pulled = [group for group in self.inner.param_groups if group.get("pull")]
        self.pulled = [(group, [value.detach().clone() for value in group["params"]]) for group in pulled]

    def step(self) -> None:
        for group in self.inner.param_groups:
            nn.utils.clip_grad_norm_(group["params"], 1.0)
        rates = [group["pull"] * group["lr"] for group, _ in self.pulled]
        for optimizer, schedule in zip(self.all, self.schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for (group, starts), rate in zip(self.pulled, rates, strict=True):
                for value, start in zip(group["params"], starts, strict=True):
                    value.lerp_(start, min(rate, 1.0))


def optimizers(
    model: Recommender,
    privates: Sequence[Private | None],
    plan: Plan,
    steps: int,
    released: frozenset[str] | None,
    part: tuple[int, int],
    pull: float,
) -> tuple[Optimizer, Optimizer | None]:
    """Of everything above the encoder and of the adapters; None where these hold still.

    Shared parameters train where they are ``released`` (None: all), others have no gradient from here on. ``steps``,
    ``part`` and ``pull`` as ``client.train.train`` has them.
    """
    named = shared_parameters(model)
    for name, parameter in named.items():
        parameter.requires_grad_(released is None or name in released)
    free = {name: value for name, value in named.items() if value.requires_grad}
    decay, rate = plan.train.weight_decay, plan.train.lr
    groups: list[dict[str, object]] = [
        {"params": [v for n, v in free.items() if ".lora_" not in n], "lr": rate, "weight_decay": decay, "pull": pull}
    ]
    own = [private for private in privates if private is not None]
    if own:
        bias = [p for private in own for p in (private.bias, private.strength)]
        groups.append({"params": bias, "lr": 10 * rate, "weight_decay": 0.0})
        tables = [private.item.weight for private in own if private.item is not None]
        groups.append({"params": tables, "lr": rate, "weight_decay": decay})
    sparse = [private.user.weight for private in own if private.user is not None]
    lora = [value for name, value in free.items() if ".lora_" in name]
    if not lora or plan.train.lora_lr == 0:
        return Optimizer(groups, steps, plan, part, sparse), None
    pushes = math.ceil(steps / plan.train.encode_every)
    return Optimizer(groups, steps, plan, part, sparse), Optimizer(
        [{"params": lora, "lr": plan.train.lora_lr, "pull": pull}], pushes, plan, part
    )
