"""Aggregation by affinity: LoRA is everyone's, head and sequence tower are shared among domains that are alike.

A domain's kind shows in the direction of its updates (cosine .4 to .6 among owners of one kind, at most half of
that across kinds). Each domain receives its own mixture of all local towers; one that is not known yet receives the
towers as they were drawn, which is the zero-shot recommender, with everyone's LoRA.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from server.rule import Aggregator
from shared.errors import FederationError
from shared.payload import TABLE, AdapterUpdate, Tensors, common
from shared.seeding import stream

Floats = npt.NDArray[np.float64]
SKETCH = 4096  # numbers that stand for one domain's direction: cosines are right within about 1 / sqrt(SKETCH) = .016
KEEP = 0.95  # of an older direction after each round: towers settle, and what moves last is more and more one's own
# A direction is noisier the fewer users stand behind it: cosine = likeness / sqrt((1 + NOISE / n) (1 + NOISE / m)).
# Measured: four owners of one shop agree at .39 with 2,110 users each and at .55 with 4,280, which is 3,350 both times.
NOISE = 3350.0
FEWEST = 64.0  # users that a domain counts for at least: a tiny declared weight may not make everybody its kin
# Likeness at which two domains are half kin. Over eight rounds of two kinds, four owners each: .65 to 1.2 within, .36
# at most across; with an owner of 100 users .5 at least within, .45 at most across.
KIN, SOFT = 0.5, 0.03


def by_affinity(cap: float) -> Aggregator:
    """The mean of LoRA deltas for all, and for each domain its own mixture of towers.

    The first round mixes all: towers that start out together stay comparable. From the second on,
    tower of domain i: sum over j of a_ij (its tower + its delta), a_ij in proportion to weight_j kin_ij, with
    kin_ij = sigmoid((likeness_ij - KIN) / SOFT) and kin_ii = 1. The table of a catalogue (residuals and biases of its
    items and what was met together, where the plan shares them) is mixed likewise among its owners. Linear in the
    updates once a is known, and LoRA is averaged exactly as in the family ffa. Raises FederationError when no update
    came.
    """

    def apply(memory: Tensors | None, updates: Iterable[AdapterUpdate]) -> tuple[Tensors, Tensors, dict[str, Any]]:
        came = sorted(updates, key=lambda update: update.domain)
        if not came:
            raise FederationError("no usable update this round; keep the last adapter and retry")
        kept = {key: value for key, value in (memory or {}).items() if not _outdated(key, came)}
        names = [update.domain for update in came]
        weights = np.array([min(update.weight, cap) for update in came])
        directions = np.zeros((len(came), SKETCH), np.float32)
        for row, update in enumerate(came):
            place = _key("direction", update.domain)
            directions[row] = KEEP * kept.get(place, np.float32(0)) + sketch(towers(update.delta))
            # The first round tells nothing of kinds: while the rate warms up all move one way from the common start.
            kept[place] = directions[row] if memory else np.zeros(SKETCH, np.float32)
        cosines = cosine_table(directions.astype(np.float64))
        alike = likeness(cosines, np.array([update.weight for update in came]))
        shares = mixture(alike, weights) if memory else np.tile(weights / weights.sum(), (len(came), 1))
        for key in sorted({key for update in came for key in update.delta if ".lora_" not in key}):
            have = [row for row, update in enumerate(came) if key in update.delta]  # all, or owners of one catalogue
            part = shares[np.ix_(have, have)]
            part = part / part.sum(axis=1, keepdims=True)
            moved = [kept.get(_key("tower", names[row], key), np.float32(0)) + came[row].delta[key] for row in have]
            local = np.stack(moved).astype(np.float64)
            mixed = np.einsum("ij,j...->i...", part, local).astype(np.float32)
            kept.update({_key("tower", names[row], key): mixed[place] for place, row in enumerate(have)})
        each = weights / weights.sum()
        lora = {
            key: sum(p * u.delta[key].astype(np.float64) for p, u in zip(each, came, strict=True)).astype(np.float32)
            for key in came[0].delta
            if ".lora_" in key
        }
        facts = {"affinity": _table(names, alike), "cosines": _table(names, cosines), "shares": _table(names, shares)}
        return lora, kept, facts

    def offsets(memory: Tensors | None, domain: str) -> Tensors:
        start = _key("tower", domain, "")
        return {key.removeprefix(start): value for key, value in (memory or {}).items() if key.startswith(start)}

    return Aggregator(lambda: None, apply, "exact: LoRA as in ffa, towers mixed by affinity", offsets)


def _outdated(key: str, came: list[AdapterUpdate]) -> bool:
    """Whether this is the table of a catalogue that its domain has no more: memory may not grow with each change."""
    return any(key.startswith(_key("tower", u.domain, TABLE)) and key.rpartition("\n")[2] not in u.delta for u in came)


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


def mixture(alike: Floats, weights: Floats) -> Floats:
    """How much of domain j goes into domain i: rows sum to 1, (domains, domains)."""
    kin = 1 / (1 + np.exp(np.clip((KIN - alike) / SOFT, -60, 60)))
    np.fill_diagonal(kin, 1.0)
    shares: Floats = kin * weights
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


def _key(*parts: str) -> str:
    """A name in memory; no part but the last may hold a line break, and domain names do not."""
    return "\n".join(parts)


def _table(names: list[str], values: Floats) -> dict[str, dict[str, float]]:
    return {one: {two: round(float(values[i, j]), 4) for j, two in enumerate(names)} for i, one in enumerate(names)}
