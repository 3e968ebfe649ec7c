"""What a taste passport is worth to a newcomer: users of two domains, their whole history in the second one hidden.

Each user's last event there is the test target, the one before it the validation target; what they did there counts
neither as history nor towards popularity. Nothing is trained: the score is the similarity of the frozen base's
whitened text vectors plus a weight times log popularity; the weight is chosen on validation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from client.dataset import Domain, read_domain
from client.evaluate import target_ranks
from client.passport import places, public_book, similarity_utilities, wishes
from client.splits import Histories, split
from client.train import Tick
from client.workshop import Workshop
from shared.errors import DataError
from shared.metrics import Floats, Ints
from shared.model import Recommender, Space, base_fingerprint
from shared.passport import draw_codes
from shared.plan import ModelPlan
from shared.prefix import find_base
from shared.seeding import stream
from shared.towers import recency_mean
from simulations.summary import interval, resampled

WEIGHTS = (0.1, 0.2, 0.4, 0.8, 1.6, 1e6)  # the last: popularity alone, similarity breaks ties
BLOCK = 256
Say = Callable[[str], None]


@dataclass(frozen=True)
class Newcomers:
    """Users of both domains, in one order."""

    source: list[Ints]  # rows of the first catalogue, oldest first
    hidden: list[Ints]  # training rows of the second: taken out of popularity
    valid: Histories
    test: Histories
    popularity: torch.Tensor  # (items,) training interactions of everybody in the second domain


def newcomers(source: Domain, target: Domain) -> Newcomers:
    """Raises DataError when nobody is in both."""
    parts = split(target.interactions, "loo")
    known = {user: row for row, user in enumerate(source.interactions.user_ids)}
    pairs = [
        (place, known[target.interactions.user_ids[user]])
        for place, user in enumerate(parts.test.users)
        if target.interactions.user_ids[user] in known
    ]
    if not pairs:
        raise DataError(f"{source.name} and {target.name} share no user with three events in {target.name}")
    starts = np.searchsorted(source.interactions.users, np.arange(len(known) + 1))
    items = source.interactions.items.astype(np.int64)
    counts = np.bincount(parts.train.items, minlength=len(target.catalog))
    return Newcomers(
        [items[starts[user] : starts[user + 1]] for _, user in pairs],
        [parts.train.row(int(parts.test.users[place])).astype(np.int64) for place, _ in pairs],
        Histories.from_lists([parts.valid.targets.row(place).tolist() for place, _ in pairs]),
        Histories.from_lists([parts.test.targets.row(place).tolist() for place, _ in pairs]),
        torch.from_numpy(counts).float(),
    )


def ranks(
    people: Newcomers, targets: Histories, tastes: torch.Tensor, base: torch.Tensor, weights: Sequence[float]
) -> Ints:
    """Rank of each target in the whole catalogue under each weight of log popularity: (weights, users)."""
    found = np.zeros((len(weights), len(targets)), np.int64)
    for start in range(0, len(targets), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(targets)))
        similarity = tastes[rows] @ base.T
        counts = people.popularity.repeat(len(rows), 1)
        for place, row in enumerate(rows):
            own = torch.from_numpy(people.hidden[row])
            counts[place].index_add_(0, own, -torch.ones(len(own)))
        logs = counts.log1p_()
        for place, weight in enumerate(weights):
            found[place, rows] = target_ranks(similarity + weight * logs, targets, rows)
    return found


def figures(found: Ints) -> dict[str, Floats]:
    """HR@10 and NDCG@10 of each user from ranks of one target each; same shape."""
    hit = found <= 10
    return {"hr@10": hit.astype(np.float64), "ndcg@10": np.where(hit, 1 / np.log2(found + 1.0), 0.0)}


def chosen(people: Newcomers, tastes: torch.Tensor, base: torch.Tensor) -> float:
    """The weight of the best validation NDCG@10."""
    means = figures(ranks(people, people.valid, tastes, base, WEIGHTS))["ndcg@10"].mean(1)
    return WEIGHTS[int(means.argmax())]


def measure(
    from_folder: Path,
    to_folder: Path,
    plan: ModelPlan,
    cache: Path,
    epsilons: Sequence[float] = (1.0, 2.0, 4.0, 8.0),
    codes: int = 1,
    size: int = 128,
    mechanism: str = "near-set",
    draws: int = 3,
    seed: int = 7,
    say: Say = print,
    tick: Tick | None = None,
) -> dict[str, Any]:
    """NDCG@10 and HR@10 of popularity, passports, unprivatised codes and the raw history. Raises DataError."""
    source, target = read_domain(from_folder), read_domain(to_folder)
    people = newcomers(source, target)
    model = Recommender(plan, find_base(plan.base), seed)
    told = Workshop(cache, tick).progress
    one, two = (
        model.space(domain.catalog.texts, cache, told(f"{domain.name}: reading texts")) for domain in (source, target)
    )
    raw = torch.cat([model.encode_plain(space.states) for space in (one, two)])
    book = public_book(raw, size, base_fingerprint(plan, model.base))
    here, there = places(book, one.whitening), places(book, two.whitening)
    utilities = np.stack([_utilities(one, items, plan, codes, here) for items in people.source])

    def taken(drawn: Ints) -> torch.Tensor:
        return recency_mean(there[torch.from_numpy(drawn)], plan.recency)[:, -1]

    # The other domain's own vectors are unknown to the receiver's whitening: translated like the code book.
    translated = two.whitening(raw[: len(one)])
    history = torch.stack(
        [recency_mean(translated[i[-plan.max_history :]][None], plan.recency)[0, -1] for i in people.source]
    )
    nobody = torch.zeros(1, two.base.shape[1]).expand(len(people.source), -1)
    runs: dict[str, list[torch.Tensor]] = {"popularity": [nobody]}
    for epsilon in epsilons:
        runs[f"epsilon {epsilon:g}"] = [
            taken(_drawn(utilities, epsilon, mechanism, stream(seed, "passport", str(epsilon), number)))
            for number in range(draws + 1)
        ]
    runs["no noise"] = [taken(utilities.argmax(2))]
    runs["raw history"] = [history]
    cells: dict[str, dict[str, Floats]] = {}
    weights: dict[str, float] = {}
    for name, tastes in runs.items():
        weights[name] = 1.0 if name == "popularity" else chosen(people, tastes[0], two.base)
        asked = [
            figures(ranks(people, people.test, one_draw, two.base, [weights[name]])[0])
            for one_draw in tastes[1:] or tastes
        ]  # the first draw chose the weight
        cells[name] = {metric: np.stack([cell[metric] for cell in asked]) for metric in asked[0]}
        say(f"{name}: NDCG@10 {cells[name]['ndcg@10'].mean():.4f}, weight {weights[name]:g}")
    return {
        "from": source.name,
        "to": target.name,
        "users": len(people.source),
        "items": len(two),
        "codes": codes,
        "book": len(book),
        "mechanism": mechanism,
        "draws": draws,
        "figures": {name: _spelt(cell, cells["popularity"], weights[name]) for name, cell in cells.items()},
    }


def _utilities(space: Space, items: Ints, plan: ModelPlan, codes: int, all_places: torch.Tensor) -> Floats:
    recent = space.base[torch.from_numpy(items[-plan.max_history :])]
    return similarity_utilities(wishes(recent, codes, plan.recency), all_places)


def _drawn(utilities: Floats, epsilon: float, mechanism: str, draw: np.random.Generator) -> Ints:
    return np.array([draw_codes(one, epsilon, mechanism, draw.random) for one in utilities])


def _spelt(cell: dict[str, Floats], popularity: dict[str, Floats], weight: float) -> dict[str, Any]:
    """Means over draws and users, and what is gained over popularity with its interval over users."""
    gain = (cell["ndcg@10"] - popularity["ndcg@10"]).mean(0)
    low, high = interval(resampled(gain, stream(0, "bootstrap")))
    means = {metric: float(values.mean()) for metric, values in cell.items()}
    return {**means, "weight": weight, "gain": float(gain.mean()), "gain_low": low, "gain_high": high}
