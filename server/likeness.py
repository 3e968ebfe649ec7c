"""How alike two domains are, by the directions in which their towers move.

``of_users`` is for updates without noise on purpose: what hides a direction there is how few users stand behind it,
which their number tells. ``of_halves`` is for updates under a promise of privacy, nearly all of whose length is noise:
how much of a domain's direction is not, it tells itself, by how far two halves of its rounds agree.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shared.payload import AdapterUpdate, Tensors, common
from shared.seeding import stream

Floats = npt.NDArray[np.float64]
SKETCH = 4096  # numbers that stand for one domain's direction: cosines are right within about 1 / sqrt(SKETCH) = .016
KEEP = 0.95  # of an older direction after each round: towers settle, and what moves last is more and more one's own
# A direction is noisier the fewer users stand behind it: cosine = likeness / sqrt((1 + NOISE / n) (1 + NOISE / m)).
# Measured: four owners of one shop agree at .39 with 2,110 users each and at .55 with 4,280, which is 3,350 both times.
NOISE = 3350.0
FEWEST = 64.0  # users that a domain counts for at least: a tiny declared weight may not make everybody its kin
LEAST_TURNS = 3  # rounds after the first, before halves are compared: of one or two they tell nothing yet
SURE = 3.0  # standard errors that halves are taken to agree by at least: a domain of pure noise has no kin


class Measure(NamedTuple):
    """``take(kept, came) -> (likeness, cosines)``, both (domains, domains), in the order of ``came``.

    It keeps what it must know of a domain in ``kept``, under names that begin with another word than "tower".
    ``kin`` is the likeness at which two domains are half kin.
    """

    take: Callable[[Tensors, Sequence[AdapterUpdate], bool], tuple[Floats, Floats]]
    kin: float


def of_users(kept: Tensors, came: Sequence[AdapterUpdate], first: bool) -> tuple[Floats, Floats]:
    """By sketched directions over all rounds, and the number of users behind them."""
    directions = np.zeros((len(came), SKETCH), np.float32)
    for row, update in enumerate(came):
        place = named("direction", update.domain)
        directions[row] = KEEP * kept.get(place, np.float32(0)) + sketch(towers(update.delta))
        # The first is not kept: while the rate warms up all move one way from the common start.
        kept[place] = np.zeros(SKETCH, np.float32) if first else directions[row]
    cosines = cosine_table(directions.astype(np.float64))
    return likeness(cosines, np.array([update.weight for update in came])), cosines


def of_halves(kept: Tensors, came: Sequence[AdapterUpdate], first: bool) -> tuple[Floats, Floats]:
    """By whole directions, freed of noise by the agreement of each domain's odd rounds with its even ones.

    Noise is fresh in each round, so two halves agree by what is no noise: cos(h0, h1) = r, and 2r / (1 + r) of the
    direction h0 + h1 (Spearman 1910, Brown 1910). A domain of fewer than LEAST_TURNS rounds is like nobody,
    and so are all where a direction has too few numbers to tell agreement from chance.
    """
    halves = [_turn(kept, update, first) for update in came]
    sums = np.stack([one + two for one, two, _ in halves])
    cosines = cosine_table(sums)
    least = SURE / np.sqrt(sums.shape[1])
    agree = [max(float(cosine_table(np.stack([one, two]))[0, 1]), least) for one, two, _ in halves]
    whole = np.array([2 * r / (1 + r) for r in agree])
    known = np.array([turns >= LEAST_TURNS and least < 1 for _, _, turns in halves])
    alike = np.where(np.outer(known, known), cosines / np.sqrt(np.outer(whole, whole)), 0.0)
    return alike, cosines


def _turn(kept: Tensors, update: AdapterUpdate, first: bool) -> tuple[Floats, Floats, int]:
    """The two halves of a domain's rounds, this one included, and how many they are; the very first is in neither."""
    moved = np.concatenate([value.ravel() for _, value in sorted(towers(update.delta).items())])
    places = [named(half, update.domain) for half in ("even", "odd")]
    turns = 0 if first else int(kept.get(named("turns", update.domain), np.zeros(1, np.float32))[0])
    for place in places:
        kept.setdefault(place, np.zeros_like(moved))
    if not first:
        kept[places[turns % 2]] = kept[places[turns % 2]] + moved
        turns += 1
    kept[named("turns", update.domain)] = np.array([turns], np.float32)
    even, odd = (kept[place].astype(np.float64) for place in places)
    return even, odd, turns


# Likeness at which two domains are half kin. Without noise, over eight rounds of two kinds, four owners each: .65 to
# 1.2 within, .36 at most across; with an owner of 100 users .5 at least within, .45 at most across.
CALM = Measure(of_users, kin=0.5)
# At epsilon 8, the same owners, from the third round on: .38 to 1.5 within, .19 at most across.
NOISED = Measure(of_halves, kin=0.3)


def towers(delta: Tensors) -> Tensors:
    """What is shared among kin only, whatever their catalogues."""
    return {key: value for key, value in common(delta).items() if ".lora_" not in key}


def sketch(tensors: Tensors) -> Floats:
    """A random projection (count sketch) of all the tensors together; the same for everybody, (SKETCH,)."""
    found = np.zeros(SKETCH)
    for key, value in sorted(tensors.items()):
        draw = stream(0, "sketch", key)
        place = draw.integers(SKETCH, size=value.size)
        sign = draw.integers(2, size=value.size) * 2.0 - 1
        found += np.bincount(place, weights=sign * value.ravel(), minlength=SKETCH)
    return found


def cosine_table(directions: Floats) -> Floats:
    """All pairs, (domains, domains); 0 for a direction of no length."""
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    unit = directions / np.maximum(lengths, 1e-30)
    table: Floats = unit @ unit.T
    return table


def likeness(cosines: Floats, users: Floats) -> Floats:
    """Cosines freed of what noise takes from them (correction for attenuation, Spearman 1904), (domains, domains).

    ``users`` (domains,) are the declared weights. Two domains of one kind come out near 1 whatever their size.
    """
    reliable = np.sqrt(1 + NOISE / np.maximum(users, FEWEST))
    table: Floats = cosines * np.outer(reliable, reliable)
    return table


def named(*parts: str) -> str:
    """A name in memory; no part but the last may hold a line break, and domain names do not."""
    return "\n".join(parts)
