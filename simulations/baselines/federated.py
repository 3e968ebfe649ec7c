"""Federated recommenders where one user is one client: FedMF, FedNCF and PFedRec, all clients in one process.

A round: every client receives the item vectors (and the score network, where it is shared), draws new negatives,
makes local steps of SGD, keeps what is private and gives back what changed. What the server sees of a user is
therefore what the papers let it see; nothing is encrypted or noised here.

Clients with about as many items are stacked, so that one tensor operation is a local step of all of them.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch.nn import functional as F

from client.corpus import Corpus
from client.evaluate import Score
from client.splits import Cases, Histories
from shared.errors import TrainingError
from shared.memory import give_back
from shared.metrics import Ints
from shared.seeding import stream, torch_stream
from simulations.baselines import Recommend, Tick, struck, valid_ndcg

Tensors = dict[str, torch.Tensor]

DIM = 32
HIDDEN = (16, 8)  # of FedNCF's network, which is DIM + DIM -> 16 -> 8 -> 1
NEGATIVES = 4  # for each positive, drawn anew each round
BATCH = 51  # positives in a local batch: with their negatives about the 256 samples of the papers' code
ROUNDS, CHECK_EVERY, PATIENCE = 150, 5, 4  # patience in checks; FedNCF still rises after 100
STACKED = 65_536  # samples of one stack of clients: its vectors take 8 MB


class Method(NamedTuple):
    """What tells one paper from another."""

    private: Callable[[int, torch.Generator], Tensors]  # users -> what stays at home, a row for each user
    shared: Callable[[torch.Generator], Tensors]  # what is averaged over all clients
    score: Callable[[Tensors, torch.Tensor], torch.Tensor]
    rate: float  # of private parameters, for the mean loss of a batch
    item_rate: float  # of item vectors, for the loss of one sample
    item_scale: float  # standard deviation of the first item vectors
    shared_rate: float = 0.0  # of shared parameters, for the mean loss of a batch
    epochs: int = 1  # local passes in a round
    keeps_items: bool = False  # whether a client answers with the item vectors that it tuned itself


class State(NamedTuple):
    """Everything that is learnt. Never changed in place."""

    items: torch.Tensor  # (items, DIM) at the server
    shared: Tensors  # at the server
    private: Tensors  # (users, ...) each row at home
    home: csr_matrix | None  # (users, items) scores of the items that a client tuned, where it keeps them


class Stack(NamedTuple):
    """Clients that take their local steps together, and the samples of one round."""

    users: torch.Tensor  # (clients,)
    items: torch.Tensor  # (clients, positives, 1 + NEGATIVES) the positive first
    mask: torch.Tensor  # the same shape; False where nothing stands. No client has an item twice


def dot(parameters: Tensors, vectors: torch.Tensor) -> torch.Tensor:
    """Logits (clients, n) of item vectors (clients, n, DIM); one side may have a single client."""
    logits = torch.einsum("cnd,cd->cn", vectors, parameters["user"])
    return logits + parameters["bias"] if "bias" in parameters else logits


def network(parameters: Tensors, vectors: torch.Tensor) -> torch.Tensor:
    """The same by a network on the user's and the item's vector, end to end."""
    p = parameters
    h = F.relu(vectors @ p["of_item"] + (p["user"][:, None] @ p["of_user"] + p["bias_1"]))
    h = F.relu(h @ p["inner"] + p["bias_2"])
    return (h @ p["outer"]).squeeze(-1)


def network_parameters(draw: torch.Generator) -> Tensors:
    """Weights as variance-preserving normals, biases zero; the leading axis is for clients."""
    first, second = HIDDEN

    def weights(rows: int, columns: int, fan_in: int) -> torch.Tensor:
        return torch.randn(1, rows, columns, generator=draw) * math.sqrt(2 / fan_in)

    return {
        "of_user": weights(DIM, first, 2 * DIM),
        "of_item": weights(DIM, first, 2 * DIM),
        "bias_1": torch.zeros(1, 1, first),
        "inner": weights(first, second, first),
        "bias_2": torch.zeros(1, 1, second),
        "outer": weights(second, 1, second),
    }


def user_vectors(scale: float) -> Callable[[int, torch.Generator], Tensors]:
    """First private vectors, normal."""
    return lambda users, draw: {"user": torch.randn(users, DIM, generator=draw) * scale}


def linear_layers(users: int, draw: torch.Generator) -> Tensors:
    """First private score functions: one linear layer DIM -> 1 for each user, all the same, as the server hands it."""
    weight = (2 * torch.rand(1, DIM, generator=draw) - 1) / math.sqrt(DIM)
    return {"user": weight.repeat(users, 1), "bias": torch.zeros(users, 1)}


# The best on validation of 4 to 7 settings tried on 1,500 users of MovieLens-1M.
FEDMF = Method(user_vectors(0.1), lambda draw: {}, dot, rate=8.0, item_rate=1.0, item_scale=0.1)
FEDNCF = Method(user_vectors(0.3), network_parameters, network, 10.0, item_rate=8.0, item_scale=0.3, shared_rate=0.5)
PFEDREC = Method(linear_layers, lambda draw: {}, dot, rate=4.0, item_rate=2.0, item_scale=0.1, keeps_items=True)


def fedmf(corpus: Corpus, seed: int, tick: Tick | None = None, place: Path | None = None) -> Recommend:
    """Federated matrix factorisation (Chai et al. 2021, without its encryption): a user's vector never leaves."""
    return _fit("fedmf", FEDMF, corpus, seed, tick)


def fedncf(corpus: Corpus, seed: int, tick: Tick | None = None, place: Path | None = None) -> Recommend:
    """Federated neural collaborative filtering (Perifanis & Efraimidis 2022): the score network is averaged too."""
    return _fit("fedncf", FEDNCF, corpus, seed, tick)


def pfedrec(corpus: Corpus, seed: int, tick: Tick | None = None, place: Path | None = None) -> Recommend:
    """PFedRec (Zhang et al., IJCAI 2023): a private score function, and item vectors tuned at home, for each user."""
    return _fit("pfedrec", PFEDREC, corpus, seed, tick)


def _fit(name: str, method: Method, corpus: Corpus, seed: int, tick: Tick | None) -> Recommend:
    """Rounds until validation stops rising; the best state answers. Raises TrainingError on a state not finite."""
    train, first = corpus.split.train, torch_stream(seed, name, corpus.name, "start")
    vectors = method.item_scale * torch.randn(len(corpus.space), DIM, generator=first)
    state = State(vectors, method.shared(first), method.private(len(train), first), None)
    known, barred = positives(train, len(corpus.space)), held_out(corpus)
    best, kept, chosen = -math.inf, 0, recommender(method, state)
    for number in range(1, ROUNDS + 1):
        check = number % CHECK_EVERY == 0 or number == ROUNDS
        draw = stream(seed, name, corpus.name, "round", number)
        state = one_round(method, state, stacks(known, len(corpus.space), draw, barred), check and method.keeps_items)
        if not torch.isfinite(state.items).all():
            raise TrainingError(f"{name}: item vectors are not finite after round {number}")
        if tick is not None:
            tick(f"{corpus.name} {name}: round", number, ROUNDS)
        if not check:
            continue
        plain = recommender(method, state)
        # A client knows all that it trained on, so it may strike that, where validation says so.
        tried = [(valid_ndcg(one, corpus), one) for one in (struck(plain, train), plain)]
        found, either = max(tried, key=lambda pair: pair[0])
        give_back()
        if found > best:
            best, kept, chosen = found, number, either
        elif number - kept >= PATIENCE * CHECK_EVERY:
            break
    return chosen


def recommender(method: Method, state: State) -> Recommend:
    """The state as a baseline: the server's vectors and a user's own parameters; where the client tuned an item
    itself and keeps it, the client's score stands instead."""

    def recommend(cases: Cases) -> Score:
        @torch.no_grad()
        def score(rows: Ints) -> torch.Tensor:
            users = cases.users[rows].astype(np.int64)
            own = {key: value[torch.from_numpy(users)] for key, value in state.private.items()}
            scores = method.score({**state.shared, **own}, state.items[None])
            if state.home is not None:
                tuned = state.home[users].tocoo()
                at = torch.from_numpy(tuned.row).long(), torch.from_numpy(tuned.col).long()
                scores[at] = torch.from_numpy(tuned.data)
            return scores

        return score

    return recommend


def positives(train: Histories, items: int) -> tuple[Ints, Ints]:
    """Different items of each user: (offsets, items), as in Histories."""
    users = np.repeat(np.arange(len(train)), train.lengths)
    keys = np.unique(users * items + train.items)
    counts = np.bincount(keys // items, minlength=len(train))
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), keys % items


def held_out(corpus: Corpus) -> tuple[Ints, Ints] | None:
    """What is asked later, where it is never drawn as a negative: under loo-99, which is the papers' own protocol.

    Their code draws no item that a user ever met, the test item included, though its 99 rivals in the ranking are
    drawn: a client that tunes its own item vectors so learns which items are *not* the answer. Figures of loo-99 are
    there to be compared with the papers' and nothing else; full ranking draws from all that a user did not train on.
    """
    if corpus.split.test.rivals is None:
        return None
    users = len(corpus.split.train)
    met = np.concatenate([part.users.astype(np.int64) for part in (corpus.split.valid, corpus.split.test)])
    items = np.concatenate([part.targets.items.astype(np.int64) for part in (corpus.split.valid, corpus.split.test)])
    order = np.argsort(met, kind="stable")
    counts = np.bincount(met, minlength=users)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), items[order]


def stacks(
    known: tuple[Ints, Ints], items: int, draw: np.random.Generator, barred: tuple[Ints, Ints] | None = None
) -> Iterator[Stack]:
    """All clients with a positive, like numbers of them together, each client's in a random order of its own.

    ``known`` comes from ``positives``. Negatives are a stretch of a random permutation of the catalogue that starts
    elsewhere for each client: none comes twice, and each item is as likely as any other, the held-out ones too unless
    they are ``barred`` (offsets, items). A draw that hits a positive or a barred item counts as nothing.
    """
    offsets, flat = known
    counts = np.diff(offsets)
    order = np.argsort(counts, kind="stable")
    order = order[counts[order] > 0]
    at = 0
    while at < len(order):
        size = max(1, min(STACKED // (int(counts[order[at]]) * (1 + NEGATIVES)), 256 * STACKED // items))
        while size > 1 and size * int(counts[order[min(at + size, len(order)) - 1]]) * (1 + NEGATIVES) > STACKED:
            size = size * 4 // 5
        users = order[at : at + size]
        at += size
        lengths = counts[users]
        width = int(lengths.max())
        there = np.arange(width) < lengths[:, None]
        shuffle = np.argsort(np.where(there, draw.random(there.shape), 2), axis=1)
        own = flat[np.where(there, offsets[users][:, None] + np.minimum(shuffle, lengths[:, None] - 1), 0)]
        taken = np.zeros((len(users), items), np.bool_)
        taken[np.nonzero(there)[0], own[there]] = True
        if barred is not None:
            taken[barred_of(barred, users)] = True
        places = np.arange(width * NEGATIVES)
        drawn = draw.permutation(items)[(draw.integers(items, size=(len(users), 1)) + places) % items]
        open_ = ~np.take_along_axis(taken, drawn, 1) & (places < np.minimum(lengths[:, None] * NEGATIVES, items))
        shape = (len(users), width, NEGATIVES)
        yield Stack(
            torch.from_numpy(users),
            torch.from_numpy(np.concatenate([own[..., None], drawn.reshape(shape)], 2)),
            torch.from_numpy(np.concatenate([there[..., None], open_.reshape(shape)], 2)),
        )


def barred_of(barred: tuple[Ints, Ints], users: Ints) -> tuple[Ints, Ints]:
    """(row, item) of what is barred for each of some users, whose rows are counted from 0."""
    offsets, flat = barred
    counts = offsets[users + 1] - offsets[users]
    places = np.concatenate([np.arange(offsets[user], offsets[user + 1]) for user in users])
    return np.repeat(np.arange(len(users)), counts), flat[places]


def one_round(method: Method, state: State, clients: Iterator[Stack], keep: bool = False) -> State:
    """Every client trains from the same state; the server averages.

    An item vector moves by the mean over the clients that *touched* it, not over all: those that did not would
    send zero, and a popular item would learn faster only because more people hold it. PFedRec's code averages over
    all and multiplies the clients' rate by the number of items instead; the mean over the touching needs no rate
    that depends on the catalogue, and lets a client's own step be of a size that does not overfit at home. The
    shared network moves by the mean over all clients.
    """
    total, touched = torch.zeros_like(state.items), torch.zeros(len(state.items))
    shared = {key: torch.zeros_like(value) for key, value in state.shared.items()}
    private = {key: value.clone() for key, value in state.private.items()}
    clients_seen, home = 0, []
    for stack in clients:
        vectors, own, common = local_steps(method, state, stack)
        fold(total, touched, stack, vectors - state.items[stack.items])
        for key, value in own.items():
            private[key][stack.users] = value
        for key, value in common.items():
            shared[key] += (value - state.shared[key]).sum(0, keepdim=True)
        clients_seen += len(stack.users)
        if keep:
            flat = method.score({**common, **own}, vectors.flatten(1, 2)).view(stack.mask.shape)
            who = stack.users[:, None, None].expand(stack.mask.shape)
            home.append(tuple(part[stack.mask].numpy() for part in (flat, who, stack.items)))
    if keep:
        # Only scores of the tuned are kept, for nothing else is asked of those vectors. What a client did not tune
        # is scored with the server's next vectors; PFedRec's code takes those from before the round.
        scores, users, items = (np.concatenate(part) for part in zip(*home, strict=True))
        known = csr_matrix((scores, (users, items)), shape=(len(next(iter(private.values()))), len(state.items)))
    return State(
        state.items + total / touched.clamp(min=1)[:, None],
        {key: value + shared[key] / max(clients_seen, 1) for key, value in state.shared.items()},
        private,
        known if keep else None,
    )


def fold(total: torch.Tensor, touched: torch.Tensor, stack: Stack, deltas: torch.Tensor) -> None:
    """Add what clients changed (clients, positives, 1 + NEGATIVES, DIM) to the running sums, in place."""
    places = stack.items[stack.mask]
    total.index_add_(0, places, deltas[stack.mask])
    touched += torch.bincount(places, minlength=len(touched))


def local_steps(method: Method, state: State, stack: Stack) -> tuple[torch.Tensor, Tensors, Tensors]:
    """Each client's own passes over its samples: (item vectors, private, shared) as they are afterwards.

    A sample is the only one of its item, so a client's copy of an item vector is the sample's.
    """
    vectors = state.items[stack.items]
    own = {key: value[stack.users] for key, value in state.private.items()}
    common = {key: value.expand(len(stack.users), *value.shape[1:]) for key, value in state.shared.items()}
    rates = [method.rate] * len(own) + [method.shared_rate] * len(common)
    for _ in range(method.epochs):
        for at in range(0, vectors.shape[1], BATCH):
            mask = stack.mask[:, at : at + BATCH].flatten(1).float()
            part = vectors[:, at : at + BATCH]
            leaves = [one.detach().requires_grad_() for one in (part.flatten(1, 2), *own.values(), *common.values())]
            parameters = dict(zip((*own, *common), leaves[1:], strict=True))
            labels = torch.zeros_like(part[..., 0])
            labels[..., 0] = 1
            logits = method.score(parameters, leaves[0])
            losses = F.binary_cross_entropy_with_logits(logits, labels.flatten(1), weight=mask, reduction="none")
            # The sum: a client's parameters take part in its own samples only, so gradients stay per client.
            slopes = torch.autograd.grad(losses.sum(), leaves)
            vectors[:, at : at + BATCH] -= method.item_rate * slopes[0].view(part.shape)
            counts = mask.sum(1).clamp(min=1)
            moved = [
                leaf.detach() - slope * (rate / counts).view(-1, *[1] * (leaf.dim() - 1))
                for leaf, slope, rate in zip(leaves[1:], slopes[1:], rates, strict=True)
            ]
            own, common = dict(zip(own, moved, strict=False)), dict(zip(common, moved[len(own) :], strict=True))
    return vectors, own, common
