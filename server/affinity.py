"""Aggregation by affinity: LoRA is everyone's, head and sequence tower are shared among domains that are alike.

A domain's kind shows in the direction of its updates (``server/likeness.py``). Each domain receives its own mixture of
all local towers; one that is not known yet receives the towers as they were drawn, which is the zero-shot recommender,
with everyone's LoRA.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from server.kinds import Bools, kinds, told
from server.likeness import CALM, Floats, Measure, named
from server.rule import Aggregator
from shared.errors import FederationError
from shared.metrics import Ints
from shared.payload import TABLE, AdapterUpdate, Tensors

Singles = npt.NDArray[np.float32]
SOFT = 0.03  # width of the step from kin to stranger
HALF = 0.5  # kin enough to be caught up with


def by_affinity(cap: float, measure: Measure = CALM) -> Aggregator:
    """The mean of LoRA deltas for all, and for each domain its own mixture of towers.

    Tower of domain i: sum over j of a_ij (its tower + its delta), a_ij in proportion to weight_j kin_ij, with
    kin_ii = 1, kin_ij = 0 across kinds (``server/kinds.py``) and sigmoid((likeness_ij - measure.kin) / SOFT) within,
    but 1 where both are told to be of it, and in the first round: towers that start out together stay comparable.
    Whose towers fewer rounds went into than into its kin's, for it joined late or was away, lets its delta count from
    where they stand, if they weigh no less than its kin who are not ahead and itself: a mean with its own would throw
    them back, and nobody of little weight may move many.
    The table of a catalogue (residuals and biases of its items and what was met together, where the plan shares them)
    is mixed likewise among its owners.
    Linear in the updates once a is known, and LoRA is averaged exactly as in the family ffa. Raises FederationError
    when no update came.
    """

    def apply(memory: Tensors | None, updates: Iterable[AdapterUpdate]) -> tuple[Tensors, Tensors, dict[str, Any]]:
        came = sorted(updates, key=lambda update: update.domain)
        if not came:
            raise FederationError("no usable update this round; keep the last adapter and retry")
        kept = {key: value for key, value in (memory or {}).items() if not _outdated(key, came)}
        names = [update.domain for update in came]
        weights = np.array([min(update.weight, cap) for update in came])
        alike, cosines = measure.take(kept, came, not memory)
        found = kinds(alike, first=not memory)
        # In the first round likeness has no scale yet, so all of a kind are kin.
        likely = alike if memory else np.full_like(alike, np.inf)
        kin = kinship(likely, measure.kin, found, told(alike, found))
        shares = mixture(kin, weights)
        near = np.where(kin >= HALF, weights, 0.0)
        ages = np.array([kept.get(named("age", name), np.zeros(1))[0] for name in names])
        ahead = ages > ages[:, None]
        followed = leaders(near, ahead)
        for key in sorted({key for update in came for key in update.delta if ".lora_" not in key}):
            have = [row for row, update in enumerate(came) if key in update.delta]  # all, or owners of one catalogue
            part = shares[np.ix_(have, have)]
            part = part / part.sum(axis=1, keepdims=True)
            stood = [kept.get(named("tower", names[row], key), np.zeros_like(came[row].delta[key])) for row in have]
            had = np.array([named("tower", names[row], key) in kept for row in have])
            led = leaders(near[np.ix_(have, have)], ahead[np.ix_(have, have)] & had)
            stood = caught_up(stood, np.where(_steps(key, had)[:, None], led, 0.0))
            local = np.stack([at + came[row].delta[key] for at, row in zip(stood, have, strict=True)])
            mixed = np.einsum("ij,j...->i...", part, local.astype(np.float64)).astype(np.float32)
            kept.update({named("tower", names[row], key): mixed[place] for place, row in enumerate(have)})
        for row, update in enumerate(came):
            kept[named("others", update.domain)] = np.array([1 - shares[row, row]], np.float32)
            age = max(ages[row], ages[followed[row] > 0].max(initial=0)) + 1
            kept[named("age", update.domain)] = np.array([age], np.float32)
        each = weights / weights.sum()
        lora = {
            key: sum(p * u.delta[key].astype(np.float64) for p, u in zip(each, came, strict=True)).astype(np.float32)
            for key in came[0].delta
            if ".lora_" in key
        }
        facts = {"affinity": _table(names, alike), "cosines": _table(names, cosines), "shares": _table(names, shares)}
        facts["kinds"] = dict(zip(names, found.tolist(), strict=True))
        return lora, kept, facts

    def offsets(memory: Tensors | None, domain: str) -> Tensors:
        start = named("tower", domain, "")
        return {key.removeprefix(start): value for key, value in (memory or {}).items() if key.startswith(start)}

    def others(memory: Tensors | None, domain: str) -> float:
        return float((memory or {}).get(named("others", domain), np.zeros(1))[0])

    return Aggregator(lambda: None, apply, "exact: LoRA as in ffa, towers mixed by affinity", offsets, others)


def _outdated(key: str, came: list[AdapterUpdate]) -> bool:
    """Whether this is the table of a catalogue that its domain has no more: memory may not grow with each change."""
    return any(key.startswith(named("tower", u.domain, TABLE)) and key.rpartition("\n")[2] not in u.delta for u in came)


def _steps(key: str, had: Bools) -> Bools:
    """For whom what comes under this name is a step from where it stood: a table's bias comes whole from who ``had``
    none, and its counts always do; (domains,)."""
    if not key.startswith(TABLE) or key.endswith(".vectors"):
        return np.ones_like(had)
    return had if key.endswith(".bias") else np.zeros_like(had)


def leaders(near: Floats, ahead: Bools) -> Floats:
    """Of the weights of each domain's kin (domains, domains), itself included, those of kin who are ``ahead`` of it,
    where they are no less than the others' together; else none."""
    led = np.where(ahead, near, 0.0)
    found: Floats = np.where(2 * led.sum(axis=1, keepdims=True) >= near.sum(axis=1, keepdims=True), led, 0.0)
    return found


def caught_up(stood: list[Singles], led: Floats) -> list[Singles]:
    """Where each domain's delta counts from: where it ``stood``, or the mean of those it catches up with, by the
    weights ``led`` (domains, domains)."""
    return [
        np.average(np.stack(stood), axis=0, weights=row).astype(np.float32) if row.any() else own
        for own, row in zip(stood, led, strict=True)
    ]


def kinship(alike: Floats, bound: float, of: Ints, sure: Bools) -> Floats:
    """How much two domains are kin, 0 to 1: by likeness, ``of`` which kinds they are, and which pairs are kin for
    ``sure``; (domains, domains)."""
    kin: Floats = 1 / (1 + np.exp(np.clip((bound - alike) / SOFT, -60, 60)))
    kin[sure] = 1.0
    kin[of[:, None] != of] = 0.0
    np.fill_diagonal(kin, 1.0)
    return kin


def mixture(kin: Floats, weights: Floats) -> Floats:
    """How much of domain j goes into domain i: rows sum to 1, (domains, domains)."""
    shares: Floats = kin * weights
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


def _table(names: list[str], values: Floats) -> dict[str, dict[str, float]]:
    return {one: {two: round(float(values[i, j]), 4) for j, two in enumerate(names)} for i, one in enumerate(names)}
