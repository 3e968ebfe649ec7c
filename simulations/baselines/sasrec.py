"""Self-attention over histories, on ids (SASRec, Kang & McAuley 2018) and on texts (UniSRec, Hou et al. 2022).

Both with a softmax over the whole catalogue, which is stronger than the papers' sampled losses (a large catalogue is
sampled as our own training samples it), and with our learned weight on items already in the history.
"""

import json
import math
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from client.batches import met_before, pad, shuffled, windows
from client.corpus import Corpus
from client.evaluate import Score
from client.splits import Cases
from client.train import BATCH_SCORES, batch_size, candidates
from shared.errors import TrainingError
from shared.memory import give_back
from shared.metrics import Ints
from shared.model import BF16, Batch, seen_pairs
from shared.plan import TrainPlan
from shared.seeding import stream, torch_stream
from shared.towers import CausalBlock
from simulations.baselines import Recommend, Tick, tuned, valid_ndcg
from simulations.baselines.course import Course, keep, resume

WIDTH, BLOCKS, HEADS, DROPOUT, EXPERTS = 128, 2, 2, 0.3, 8
MAX_HISTORY = 50
CANDIDATES = TrainPlan.candidates
RATE, DECAY = 1e-3, 0.01
EPOCHS, PATIENCE = 40, 5


class Ids(nn.Module):
    """An item is a row of a table, with a bias."""

    def __init__(self, items: int) -> None:
        super().__init__()
        self.table = nn.Embedding(items, WIDTH)
        self.bias = nn.Parameter(torch.zeros(items))
        self.scale = nn.Parameter(torch.tensor(1.0))
        nn.init.normal_(self.table.weight, std=0.05)

    def forward(self, rows: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors that histories are made of and vectors that are scored, (items, WIDTH) each; of some rows or all."""
        table = self.table.weight if rows is None else self.table(rows)
        return table, table


class Texts(nn.Module):
    """An item is a mixture of expert maps of its frozen text vector; scored by cosine."""

    x: torch.Tensor

    def __init__(self, x: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("x", x)
        self.gate = nn.Linear(x.shape[1], EXPERTS)
        self.experts = nn.Linear(x.shape[1], EXPERTS * WIDTH)
        self.bias = nn.Parameter(torch.zeros(len(x)))
        self.scale = nn.Parameter(torch.tensor(1 / 0.07))

    def forward(self, rows: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """As for ids."""
        x = F.dropout(self.x if rows is None else self.x[rows], 0.2, self.training)
        gates = self.gate(x).softmax(-1)
        vectors = (self.experts(x).view(len(x), EXPERTS, WIDTH) * gates[..., None]).sum(1)
        return vectors, F.normalize(vectors, dim=-1)


class Sequential(nn.Module):
    """Item vectors, positions and causal blocks; the last state is the user."""

    def __init__(self, items: Ids | Texts) -> None:
        super().__init__()
        self.items = items
        self.place = nn.Embedding(MAX_HISTORY, WIDTH)
        self.blocks = nn.ModuleList(CausalBlock(WIDTH, HEADS, DROPOUT) for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(WIDTH)
        self.dropout = nn.Dropout(DROPOUT)
        self.repeat = nn.Parameter(torch.tensor(-0.8))  # in tens, as in our own model

    def forward(
        self,
        batch: Batch,
        at: tuple[torch.Tensor, torch.Tensor],
        among: torch.Tensor | None = None,
        vectors: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Scores of the whole catalogue at chosen events, or of the items ``among``, which are in order and hold all of
        the batch: (positions, items). ``vectors`` are the items' as they come, where they are at hand."""
        bias = self.items.bias if among is None else self.items.bias[among]
        if among is not None:  # no other item takes part, so no other vector is made
            batch = batch._replace(items=torch.searchsorted(among, batch.items.contiguous()))
        inputs, outputs = vectors or self.items(among)
        known = inputs[batch.items] * batch.mask[..., None]  # a place without an event holds no item
        h = self.dropout(known * WIDTH**0.5 + self.place(torch.arange(batch.items.shape[1])))
        for block in self.blocks:
            h = block(h)
        u = self.norm(h)[at]
        if isinstance(self.items, Texts):
            u = F.normalize(u, dim=-1)
        u = self.items.scale * u  # not the scores: they are many more
        with torch.autocast("cpu", torch.bfloat16, enabled=BF16 and self.training):
            logits = (u @ outputs.T).float() + bias
        position, item = seen_pairs(batch, at)
        scores: torch.Tensor = logits.index_put(
            (position, item), (10 * self.repeat).expand(len(position)), accumulate=True
        )
        return scores


def sasrec(corpus: Corpus, seed: int, tick: Tick | None = None, place: Path | None = None) -> Recommend:
    """SASRec on item ids."""
    return _fit("sasrec", corpus, seed, tick, place)


def unisrec(corpus: Corpus, seed: int, tick: Tick | None = None, place: Path | None = None) -> Recommend:
    """A UniSRec-style text model on the whitened vectors of the frozen base, trained on this domain."""
    return _fit("unisrec", corpus, seed, tick, place)


def _fit(name: str, corpus: Corpus, seed: int, tick: Tick | None, place: Path | None) -> Recommend:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_stream(seed, name, corpus.name).initial_seed())
        model = Sequential(Ids(len(corpus.space)) if name == "sasrec" else Texts(corpus.space.base))
        _train(model, name, corpus, seed, tick, place)
    found = tuned(recommender(model, corpus), corpus)
    if place is not None:
        place.unlink(missing_ok=True)
    return found


def recommender(model: Sequential, corpus: Corpus) -> Recommend:
    """The model as a baseline; whose history is empty, which it never learnt from, is told what is popular."""
    popular = torch.from_numpy(np.log1p(corpus.popularity)).float()

    def recommend(cases: Cases) -> Score:
        model.eval()
        with torch.no_grad():
            vectors = model.items()  # once for all

        @torch.no_grad()
        def score(rows: Ints) -> torch.Tensor:
            batch = pad(cases.histories, rows, cases.users[rows], MAX_HISTORY)
            last = (torch.arange(len(rows)), (batch.mask.sum(1) - 1).clamp(min=0))
            scores: torch.Tensor = model(batch, last, vectors=vectors)
            scores[~batch.mask.any(1)] = popular
            older = met_before(cases.histories, rows, MAX_HISTORY)
            return scores.index_put(older, (10 * model.repeat).expand(len(older[0])), accumulate=True)

        return score

    return recommend


def _train(
    model: Sequential, name: str, corpus: Corpus, seed: int, tick: Tick | None, place: Path | None = None
) -> None:
    """Until validation stops rising; the best state is kept. Raises TrainingError on a loss that is not finite."""
    draw = stream(seed, name, corpus.name, "batches")
    rows, users, _ = windows(corpus.split.train, MAX_HISTORY)
    if not len(rows):
        raise TrainingError(f"{corpus.name}: no user has two training events; nothing to learn")
    size = batch_size(len(users), TrainPlan())
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY, betas=(0.9, 0.98))
    key = json.dumps([name, corpus.name, seed, size, RATE, DECAY, CANDIDATES, WIDTH, BLOCKS, HEADS, MAX_HISTORY])
    course = None if place is None else resume(place, key, model, optimizer, draw)
    course = course or Course(-math.inf, 0, 0, deepcopy(model.state_dict()))
    while course.epoch < EPOCHS and course.epoch - course.kept < PATIENCE:
        epoch = course.epoch + 1
        batches = shuffled(rows.lengths, size, max(1, BATCH_SCORES // min(len(corpus.space), CANDIDATES)), draw)
        for done, picked in enumerate(batches, 1):
            model.train()
            batch = pad(rows, picked, users[picked], MAX_HISTORY + 1)
            at = batch.mask[:, 1:].nonzero(as_tuple=True)
            past = Batch(batch.users, batch.items[:, :-1], batch.behaviours[:, :-1], batch.mask[:, :-1])
            wanted, among, stands_for = batch.items[:, 1:][at], None, torch.zeros(())
            if len(corpus.space) > CANDIDATES:
                among, stands_for = candidates(batch.items, torch.arange(len(corpus.space)), CANDIDATES, draw)
                wanted = torch.searchsorted(among, wanted)
            loss = F.cross_entropy(model(past, at, among) + stands_for, wanted)
            if not torch.isfinite(loss):
                raise TrainingError(f"{name}: the loss is {float(loss)} in epoch {epoch}")
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            if tick is not None:
                tick(f"{corpus.name} {name}: epoch {epoch}", done, len(batches))
        give_back()
        course.epoch = epoch
        if (found := valid_ndcg(recommender(model, corpus), corpus)) > course.best:
            course.best, course.kept, course.state = found, epoch, deepcopy(model.state_dict())
        if place is not None:
            keep(place, key, course, model, optimizer, draw)
    model.load_state_dict(course.state)
    model.eval()
