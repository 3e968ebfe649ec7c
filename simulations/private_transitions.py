"""Which item follows which, told by devices under a promise: one vector each, one sum, one draw of noise.

A device's vector has a number for each ordered pair of items, how often and how closely the second followed the first
in its history, and length 1. The server adds them up and adds noise of standard deviation ``multiplier`` to every pair,
met or not: a Gaussian release, charged to every device (Dwork & Roth 2014, section A). What is left is many
small numbers under larger noise; it still recommends, for a history reads many of them at once, which gradients of the
same promise, taken in a hundred noised steps, do not come near (simulations/LOG.md). The constants below were chosen on
validation cases of MovieLens-1M at epsilon 8 and are the same for all data; how much the table weighs is learnt.
"""

import math

import numpy as np
import numpy.typing as npt
import torch

from client.chance import Chance, noised
from client.splits import Histories
from shared.errors import ConfigError
from shared.neighbours import Neighbours
from shared.private import Private
from shared.secure_sum import FEWEST, quorum

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

MOST_ITEMS = 10_000  # pairs of them take 400 MB
ROWS = 256  # of them at a time get their noise
REACH, CLOSENESS, BACK = 10, 0.9, 0.3  # events from first to second at most; weight a step further; of the way back
TURNED = 0.3  # of the noised way back, which tells something of the way there
ROW_FLOOR, ROW_POWER = 3.0, 0.7  # how much less a row with many events weighs for each of them
# Of the table in units of its standard deviation, as ``Private.near`` takes it: all but linear at this sharpness.
SHARPNESS, WEIGHT, DECAY = 1e-3, 0.3, 0.75
FOLLOWERS = 1000  # that are kept of an item
ROUNDING = 1e-5  # a length computed in single precision may be above 1 by less


def check_catalogue(items: int) -> None:
    """Raises ConfigError for a catalogue whose pairs are too many to hold."""
    if items > MOST_ITEMS:
        raise ConfigError(
            f"privacy.transitions holds a number for every pair of items, of at most {MOST_ITEMS:,}; "
            f"this catalogue has {items:,}: set privacy.transitions=0"
        )


def check_shares(devices: int) -> None:
    """Raises ConfigError for a secure sum of so few that noise in shares falls short of what is promised."""
    if devices < FEWEST:
        raise ConfigError(f"privacy.noise_by=devices takes {FEWEST} devices at least, found {devices}")


def of_device(history: Ints, items: int) -> tuple[Ints, Floats]:
    """What one device tells: (pairs as first * items + second, their weights), of length 1 or empty."""
    pairs, weights = [], []
    for apart in range(1, min(REACH, len(history) - 1) + 1):
        first, second = history[:-apart], history[apart:]
        other = first != second
        first, second = first[other], second[other]
        pairs += [first * items + second, second * items + first]
        weight = CLOSENESS ** (apart - 1)
        weights += [np.full(len(first), weight, np.float32), np.full(len(first), BACK * weight, np.float32)]
    if not pairs or not sum(map(len, pairs)):
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    met, place = np.unique(np.concatenate(pairs), return_inverse=True)
    told = np.bincount(place, np.concatenate(weights))
    return met, (told / (np.linalg.norm(told) * (1 + ROUNDING))).astype(np.float32)


def summed(histories: Histories, devices: Ints, items: int) -> Floats:
    """The devices' vectors added up, before any noise: (items, items)."""
    total = np.zeros(items * items, np.float32)
    for one in devices:
        met, weights = of_device(histories.row(int(one)).astype(np.int64), items)
        total[met] += weights
    return total.reshape(items, items)


def release(
    histories: Histories, devices: Ints, items: int, multiplier: float, chance: Chance, in_shares: bool = False
) -> torch.Tensor:
    """The noised sum, (items, items). The one place that noise is added in; all that follows reads only this.

    ``in_shares``: as a secure sum of these devices comes out, each of which adds its share of the noise
    (``client/secure_sum.py``; masks cancel, and shares of normal noise add up to one draw). A third of them may be
    gone, so with all there it is more than asked for.
    """
    if in_shares:
        check_shares(len(devices))
        multiplier *= math.sqrt(len(devices) / quorum(len(devices)))
    told = torch.from_numpy(summed(histories, devices, items))
    for some in told.split(ROWS):  # in double precision, which of all of them would take memory
        some.copy_(noised(some, multiplier * chance.normal(tuple(some.shape)), clip=1.0))
    return told


def table(told: torch.Tensor) -> Neighbours:
    """Of each item those that most likely follow it: positive parts, in standard deviations of the whole table."""
    found = told.add(told.T, alpha=TURNED).clamp_(min=0).fill_diagonal_(0)
    rows = told.sum(1).clamp(min=0)
    found /= ((rows / rows.mean().clamp(min=1e-6) + ROW_FLOOR) ** ROW_POWER)[:, None]
    found /= found.std().clamp(min=1e-12)
    best = torch.topk(found, min(FOLLOWERS, len(found)))
    return Neighbours(best.indices.int(), best.values)


def put(private: Private, follows: Neighbours) -> None:
    """Where scores find them: in the place of what one domain's users met together."""
    private.neighbours = follows
    private.near.copy_(torch.tensor([WEIGHT / SHARPNESS, SHARPNESS, DECAY]))


def dense(follows: Neighbours) -> torch.Tensor:
    """The same as a matrix, (items, items)."""
    return torch.zeros(len(follows), len(follows)).scatter_(1, follows.rows.long(), follows.cosines)


def added(follows: torch.Tensor, items: torch.Tensor, mask: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """What ``Private.nearness`` adds after ``put``, for devices side by side: (devices, positions, items).

    ``follows`` is ``dense``, ``items`` and ``mask`` are (devices, events), ``at`` (devices, positions).
    """
    age = at[:, :, None] - torch.arange(items.shape[1])
    weights = torch.where((age >= 0) & mask[:, None], DECAY ** age.clamp(min=0), 0.0)
    return WEIGHT / SHARPNESS * torch.log1p(SHARPNESS * (weights @ follows[items]))
