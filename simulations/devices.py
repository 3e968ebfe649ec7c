"""Every user a client of their own: one device holds one history, and gives one gradient when it is called.

In each step the server calls a cohort of devices. A device takes one window of its own history (at most
``model.max_history`` + 1 events), computes the gradient of its summed loss at the server's parameters and the
catalogue's vectors, and sends that; its user residual stays and moves at home. The server adds the gradients up,
divides by the cohort's positions and makes one step of AdamW (FedSGD with a server optimiser, arXiv 2003.00295);
what arrives for the catalogue's vectors it pushes through the adapters itself.

With one local step the sum of the devices' gradients is the gradient of their sum, so a cohort is computed side by
side, as one batch of the training loop. ``device_losses`` is the slow truth that a test holds it against.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from client.batches import pad, windows
from client.corpus import Corpus, build_corpus
from client.dataset import Domain, Interactions
from client.evaluate import TOP, Ranked, model_score, rank_cases
from client.splits import Cases, dated
from client.telltale import without_telltales
from client.train import Outcome, Tick, answers, predictions, train
from client.workshop import Workshop
from shared.catalog import BEHAVIOURS, Catalog
from shared.errors import ConfigError
from shared.model import Recommender
from shared.plan import Plan
from shared.private import Private


def train_devices(model: Recommender, corpus: Corpus, plan: Plan, tick: Tick | None = None) -> tuple[Private, Outcome]:
    """Rounds until the devices' mean validation NDCG@10 stops rising: (what is beside the adapter, how it went).

    Item bias and item residual are the server's here; nobody counts popularity, so the bias starts at zero.
    Adds no noise: raises ConfigError under a plan that promises some.
    """
    if plan.private:
        raise ConfigError("this training of devices adds no noise; under privacy.epsilon it is private_devices.py's")
    private = corpus.private(model)
    with torch.no_grad():
        private.bias.zero_()
    # A sample of the catalogue that contains the items of the cohort would tell them: each device ranks all items.
    whole = replace(plan, train=replace(plan.train, candidates=0))
    place = ("devices", corpus.name)
    epochs = plan.train.epochs
    return private, train(model, [corpus], [private], whole, epochs=epochs, place=place, early_stopping=True, tick=tick)


def join(target: Domain, others: Sequence[Domain]) -> Domain:
    """What devices hold of several domains, as one: the target's items and users first, in their order.

    Users are matched by their id. Where all have dates, a history is in their order, without what the user did
    elsewhere after the first of the two events that are asked. No clock is common to domains of which only the order is
    known, so there it is what they did in the others, then what they did in the target. An event's domain stands in its
    behaviour code: the target's codes as they are, those of the k-th other moved by k times their number.
    """
    parts = [*others, target]  # in the order of a history
    numbers = [*range(1, len(parts)), 0]
    ids = list(target.interactions.user_ids)
    known = set(ids)
    for other in others:
        ids += [user for user in other.interactions.user_ids if user not in known]
        known.update(other.interactions.user_ids)
    place = {user: row for row, user in enumerate(ids)}
    sizes = [len(one.catalog) for one in (target, *others)]
    shift = {number: sum(sizes[:number]) for number in numbers}
    columns: dict[str, list[Any]] = {name: [] for name in ("users", "items", "behaviours", "weights", "times", "part")}
    for at, (part, number) in enumerate(zip(parts, numbers, strict=True)):
        data = without_telltales(part)[0] if part is target else part.interactions
        columns["users"].append(np.array([place[user] for user in data.user_ids], np.int32)[data.users])
        columns["items"].append((data.items + shift[number]).astype(np.int32))
        columns["behaviours"].append((data.behaviours + number * len(BEHAVIOURS)).astype(np.int8))
        columns["weights"].append(data.weights)
        columns["times"].append(data.times)
        columns["part"].append(np.full(len(data), at))
    users, items, behaviours, weights, times, part_of = (np.concatenate(column) for column in columns.values())
    order = np.lexsort((np.arange(len(users)), part_of, users))
    if all(dated(part.interactions) for part in parts):
        asked = _asked_from(users[part_of == len(others)], times[part_of == len(others)], len(ids))
        order = np.lexsort((np.arange(len(users)), part_of, times, users))
        order = order[(part_of[order] == len(others)) | (times[order] < asked[users[order]])]
    name = f"{target.name} and {', '.join(other.name for other in others)}"
    catalogs = [target.catalog, *(other.catalog for other in others)]
    catalog = Catalog(
        name,
        tuple(f"{one.domain}/{item}" for one in catalogs for item in one.ids),
        tuple(title for one in catalogs for title in one.titles),
        tuple(text for one in catalogs for text in one.texts),
    )
    positions = np.arange(len(order), dtype=np.float64)
    data = Interactions(tuple(ids), users[order], items[order], behaviours[order], positions, weights[order])
    return Domain(name, target.folder, catalog, data, ())


def _asked_from(users: npt.NDArray[np.int32], times: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    """When each user did the first of the last two things, of those who did two; others never, (size,). Sorted rows."""
    counts = np.bincount(users, minlength=size)
    asked = np.full(size, np.inf)
    some = np.flatnonzero(counts >= 2)
    asked[some] = times[np.cumsum(counts)[some] - 2]
    return asked


def asked_of(cases: Cases, users: npt.NDArray[np.int32]) -> Cases:
    """The cases of some users, who all must be there."""
    return cases.take(np.flatnonzero(np.isin(cases.users, users)))


def train_together(
    workshop: Workshop, target: Corpus, others: Sequence[Domain], plan: Plan, tick: Tick | None = None
) -> tuple[Ranked, Outcome]:
    """Devices that read all they hold: how the target's own test cases rank among the target's own items.

    Protocol loo only. The cases are the target's, their histories begin in the other domains.
    """
    wide = replace(plan, model=replace(plan.model, domains=1 + len(others)))
    model, domain = workshop.model(wide), join(target.domain, others)
    corpus = build_corpus(domain, "loo", workshop.space(wide, domain), wide)
    askers = target.split.test.users
    split = replace(corpus.split, valid=asked_of(corpus.split.valid, askers), test=asked_of(corpus.split.test, askers))
    corpus = replace(corpus, split=split)
    private, outcome = train_devices(model, corpus, wide, tick)
    own = len(target.space)
    score = model_score(model, corpus, split.test, private)
    return rank_cases(split.test, own, lambda rows: score(rows)[:, :own], TOP), outcome


def device_losses(
    model: Recommender, corpus: Corpus, private: Private | None, x: torch.Tensor
) -> Iterator[tuple[torch.Tensor, int]]:
    """(summed loss, positions) of each window of each device, one at a time; ``x`` (items, dim) is the catalogue."""
    rows, users, opening = windows(corpus.split.train, model.plan.max_history)
    for row in range(len(users)):
        picked = torch.tensor([row]).numpy()
        batch = pad(rows, picked, users[picked], model.plan.max_history + 1)
        first = batch.items[torch.from_numpy(opening[picked]), 0]
        wanted = answers(batch, first)
        logits = predictions(model, corpus.space, x, private, batch, len(first))
        yield F.cross_entropy(logits, wanted, reduction="sum"), len(wanted)
