"""The training loop without privacy; reads from top to bottom.

The catalogue is encoded once per ``encode_every`` user batches; the gradient of the item matrix gathers
meanwhile and is pushed back through the adapted layers in one go (gradient caching, arXiv 2101.06983).
"""

import math
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from client.adversary import worst_case
from client.batches import interleave, pad, shuffled, windows
from client.corpus import Corpus
from client.dataset import Unwanted
from client.evaluate import validate
from client.losses import LOSSES
from client.optimizer import Optimizer, optimizers
from shared.errors import TrainingError
from shared.memory import give_back
from shared.model import Batch, Recommender, Space, positions_logits, shared_parameters
from shared.plan import Plan, TrainPlan
from shared.private import Private
from shared.seeding import stream, torch_stream

Ints = npt.NDArray[np.int64]
BATCH_SCORES = 16_000_000  # most scores of one batch: 64 MB, and some ten times that with gradients
LEAST_BATCH = 16

# An empty history: one event that is masked out, of an unknown user.
_NOTHING = torch.zeros(1, 1, dtype=torch.int64)
NOBODY = Batch(torch.tensor([-1]), _NOTHING, _NOTHING, _NOTHING.bool())
NOWHERE = (torch.tensor([0]), torch.tensor([0]))

Tick = Callable[[str, int, int], None]  # (what, done, total)


@dataclass(frozen=True)
class Outcome:
    """What a training came to."""

    epochs: int  # of the weights that were kept
    loss: float  # mean per position, last epoch
    valid: tuple[float, ...]  # validation NDCG@10: before, then after each epoch; empty without early stopping

    @property
    def best(self) -> float:
        """Validation NDCG@10 of the weights that were kept."""
        return max(self.valid, default=math.nan)


def train(
    model: Recommender,
    corpora: Sequence[Corpus],
    privates: Sequence[Private | None],
    plan: Plan,
    *,
    epochs: int,
    place: tuple[str | int, ...],
    early_stopping: bool,
    released: frozenset[str] | None = None,
    part: tuple[int, int] = (0, 1),
    pull: float = 0.0,
    tick: Tick | None = None,
) -> Outcome:
    """Train in place on one domain, or on several pooled.

    ``place`` names the random streams. ``part`` (i, n) makes this the i-th of n trainings, counted from 0, that share
    one course of the learning rate: one warm-up, one decay. Shared parameters are drawn back by ``pull`` to where they
    start. With ``early_stopping`` the best state by mean validation NDCG@10 is kept, the start included. Raises
    TrainingError on a loss that is not finite.
    """
    seed = plan.federation.seed
    draw = stream(seed, *place, "batches")
    data = [windows(corpus.split.train, model.plan.max_history) for corpus in corpora]
    most = [max(1, BATCH_SCORES // min(len(corpus.space), plan.train.candidates or sys.maxsize)) for corpus in corpora]
    sizes = [batch_size(len(part.users), plan.train) for part in data]

    def one_epoch() -> list[list[Ints]]:
        return [
            shuffled(rows.lengths, size, events, draw)
            for (rows, *_), size, events in zip(data, sizes, most, strict=True)
        ]

    for private in privates:
        if private is not None:
            private.uncalibrate()
    queues = one_epoch()
    total = epochs * sum(len(queue) for queue in queues)
    if total == 0:
        raise TrainingError(f"{', '.join(c.name for c in corpora)}: no user has two training events; nothing to learn")
    towers, lora = optimizers(model, privates, plan, total, released, part, pull)
    catalogues = [_Catalogue(model, corpus, plan) for corpus in corpora]
    valid = [_validate(model, catalogues, privates)] if early_stopping else []
    best = _snapshot(model, privates) if early_stopping else None
    kept = done = 0
    loss = math.nan
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_stream(seed, *place, "dropout").initial_seed())
        for epoch in range(1, epochs + 1):
            queues = queues if epoch == 1 else one_epoch()
            sums = np.zeros(2)
            for which in interleave([len(queue) for queue in queues], draw):
                rows, users, opening = data[which]
                picked = queues[which].pop()
                batch = pad(rows, picked, users[picked], model.plan.max_history + 1)
                first = batch.items[torch.from_numpy(opening[picked]), 0]
                model.train()
                sums += _batch_step(model, catalogues[which], privates[which], batch, first, plan, draw, towers)
                if catalogues[which].steps >= plan.train.encode_every:
                    catalogues[which].push(lora)
                done += 1
                if tick is not None:
                    tick(f"epoch {epoch}/{epochs}", min(done, total), total)
            if epoch == epochs:
                for catalogue in catalogues:
                    catalogue.push(lora)
            loss = float(sums[0] / max(sums[1], 1))
            give_back()
            if not math.isfinite(loss):
                raise TrainingError(f"the loss is {loss} in epoch {epoch}; lower train.lr or train.lora_lr")
            if best is None:
                kept = epoch
                continue
            valid.append(_validate(model, catalogues, privates))
            if valid[-1] > max(valid[:-1]):
                best, kept = _snapshot(model, privates), epoch
            elif epoch - kept >= plan.train.patience:
                break
    if best is not None:
        _restore(model, privates, best)
    model.eval()
    return Outcome(kept, loss, tuple(valid))


def batch_size(windows: int, train: TrainPlan) -> int:
    """A small domain takes smaller batches, so that an epoch still has enough steps to learn from."""
    return min(train.batch_users, max(LEAST_BATCH, windows // train.least_steps))


def _batch_step(
    model: Recommender,
    catalogue: "_Catalogue",
    private: Private | None,
    batch: Batch,
    first: torch.Tensor,
    plan: Plan,
    draw: np.random.Generator,
    towers: Optimizer,
) -> tuple[float, int]:
    """One step of everything above the encoder; (sum of the losses, positions).

    ``first`` (newcomers,) are the items that histories began with: what to show somebody of whom nothing is known.
    """
    wanted = answers(batch, first)
    refused = refusals(batch, catalogue.corpus.domain.unwanted) if plan.train.unwanted else None
    negatives = among = None
    if plan.train.negatives:
        picked = draw.integers(len(catalogue.rivals), size=plan.train.negatives)
        negatives = catalogue.rivals[torch.from_numpy(picked)]
    elif len(catalogue.rivals) < len(catalogue.leaf) or 0 < plan.train.candidates < len(catalogue.leaf):
        most = plan.train.candidates or len(catalogue.leaf)
        present = batch.items if refused is None else torch.cat([batch.items.flatten(), refused[1]])
        among, stands_for = candidates(present, catalogue.rivals, most, draw)
        wanted = torch.searchsorted(among, wanted)
        refused = None if refused is None else (refused[0], torch.searchsorted(among, refused[1]))

    def loss_at(x: torch.Tensor) -> torch.Tensor:
        logits = predictions(model, catalogue.space, x, private, batch, len(first), among)
        found = _loss(logits if among is None else logits + stands_for, wanted, negatives, plan.train.loss)
        return found if refused is None else found + plan.train.unwanted * push_down(logits, wanted, batch, refused)

    loss = loss_at(catalogue.leaf)
    whole = loss
    if plan.adversary.weight:
        shift = worst_case(loss_at, catalogue.leaf, plan.adversary.radius)
        whole = loss + plan.adversary.weight * loss_at(catalogue.leaf + shift)
    positions = len(wanted)
    (whole / max(positions, 1)).backward()
    towers.step()
    catalogue.steps += 1
    return float(loss.detach()), positions


def predictions(
    model: Recommender,
    space: Space,
    x: torch.Tensor,
    private: Private | None,
    batch: Batch,
    newcomers: int,
    among: torch.Tensor | None = None,
) -> torch.Tensor:
    """Scores of the catalogue, or of the items ``among``, at every position that ``answers`` lists: (positions, items).

    ``x`` (items, dim) are the catalogue's whitened vectors; an event's score knows the events before it.
    """
    v = model.items(x if among is None else x[among])
    v = v if private is None else private.items(v, among)
    past = Batch(batch.users, batch.items[:, :-1], batch.behaviours[:, :-1], batch.mask[:, :-1])
    row, event = batch.mask[:, 1:].nonzero(as_tuple=True)
    logits = positions_logits(model, space, x, v, past, (row, event), private, among)
    # Nobody's history is the same for all: one row of scores, repeated for each newcomer.
    blank = positions_logits(model, space, x, v, NOBODY, NOWHERE, private, among)
    return torch.cat([logits, blank.expand(newcomers, -1)])


def answers(batch: Batch, first: torch.Tensor) -> torch.Tensor:
    """Each event after the first of its row, then ``first``, the items that histories began with: (positions,)."""
    return torch.cat([batch.items[:, 1:][batch.mask[:, 1:]], first])


def refusals(batch: Batch, unwanted: Unwanted) -> tuple[torch.Tensor, torch.Tensor] | None:
    """What the batch's users hid or called harmful: (row of the batch, item), (pairs,) each; None for nothing.

    Such a pair is in no history, so nothing else in the loss speaks of it.
    """
    if not len(unwanted.users):
        return None
    users = batch.users.numpy()
    start, stop = np.searchsorted(unwanted.users, users), np.searchsorted(unwanted.users, users, side="right")
    if not (stop > start).any():
        return None
    rows = np.repeat(np.arange(len(users)), stop - start)
    places = np.concatenate([np.arange(a, b) for a, b in zip(start, stop, strict=True)])
    return torch.from_numpy(rows), torch.from_numpy(unwanted.items[places])


def push_down(
    logits: torch.Tensor, wanted: torch.Tensor, batch: Batch, refused: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """The pairwise loss of BPR (Rendle et al. 2009) with what a user refused below what they did, at each position.

    ``logits`` (positions, items) and ``wanted`` (positions,) as ``predictions`` and ``answers`` have them, ``refused``
    as ``refusals``. A user's term has the mean of their refused items: as heavy as one more negative, however many.
    """
    row = batch.mask[:, 1:].nonzero(as_tuple=True)[0]  # whose each position is; newcomers come behind and are nobody
    rows, items = refused
    at, pair = (row[:, None] == rows[None, :]).nonzero(as_tuple=True)
    lead = logits[at, wanted[at]] - logits[at, items[pair]]
    other = items[pair] != wanted[at]  # who did it once, and hid it later, did it
    share = 1 / torch.bincount(rows, minlength=len(batch.users))[row[at]]
    return (F.softplus(-lead.float()) * share * other).sum()


def candidates(
    present: torch.Tensor, rivals: torch.Tensor, most: int, draw: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Items that stand for ``rivals``, all that compete, in one batch's softmax, in order, and what to add to logits.

    Those of the batch itself are all there; of the others a sample, each standing for as many as were left out:
    log(others / sampled), which keeps the estimate of the partition sum unbiased (Bengio & Senecal 2008).
    """
    certain = present.unique()
    others = rivals[~torch.isin(rivals, certain)]
    size = min(len(others), max(most - len(certain), most // 2))
    picked = others[torch.from_numpy(draw.choice(len(others), size, replace=False, shuffle=False))]
    among = torch.cat([certain, picked]).sort().values
    return among, torch.where(torch.isin(among, certain), 0.0, math.log(max(len(others), 1) / max(size, 1)))


def _loss(logits: torch.Tensor, targets: torch.Tensor, negatives: torch.Tensor | None, name: str) -> torch.Tensor:
    """Sum over positions; without ``negatives`` the softmax runs over the whole catalogue."""
    if negatives is None:
        return F.cross_entropy(logits, targets, reduction="sum")
    positive = logits.gather(1, targets[:, None]).squeeze(1)
    return LOSSES[name](positive, logits[:, negatives], negatives != targets[:, None]).sum()


class _Catalogue:
    """Item vectors of one domain as a leaf of the graph, and the way back into the encoder."""

    def __init__(self, model: Recommender, corpus: Corpus, plan: Plan) -> None:
        self.model, self.corpus, self.space = model, corpus, corpus.space
        self.part = min(plan.train.encode_items, len(corpus.space))
        # An item that nobody met yet may not have been there: that no history holds it says nothing against it.
        known = torch.from_numpy(corpus.popularity > 0)
        self.rivals = (known if not plan.train.judge_unmet else torch.ones_like(known)).nonzero().squeeze(1)
        self.still = plan.train.lora_lr == 0
        self.steps = 0
        self._leaf: torch.Tensor | None = None

    @property
    def leaf(self) -> torch.Tensor:
        """The catalogue's vectors under the adapters as they are, (items, dim); encoded when somebody asks."""
        if self._leaf is None:
            self._leaf = self.model.encode(self.space).requires_grad_(not self.still)
        return self._leaf

    def push(self, optimizer: Optimizer | None) -> None:
        """Send the gathered gradient of some items through the adapted layers and step; vectors are then encoded anew.

        The items with the largest gradients go: most of a catalogue has next to none.
        """
        if self.still or self.steps == 0 or self.leaf.grad is None or optimizer is None:
            return
        grad = self.leaf.grad / self.steps
        rows = torch.topk(grad.norm(dim=1), self.part).indices.sort().values.numpy()
        for part in self.space.states.batches(rows):
            x = self.space.whitening(self.model.encode_part(self.space.states, part))
            x.backward(grad[part])
        optimizer.step()
        self._leaf = None
        self.steps = 0


def _validate(model: Recommender, catalogues: Sequence["_Catalogue"], privates: Sequence[Private | None]) -> float:
    """Mean NDCG@10 over the domains' validation cases; never a test case."""
    scores = [
        validate(model, own.corpus, private, own.leaf.detach())
        for own, private in zip(catalogues, privates, strict=True)
    ]
    return float(np.mean(scores))


Snapshot = tuple[dict[str, torch.Tensor], list[dict[str, torch.Tensor] | None]]


def _snapshot(model: Recommender, privates: Sequence[Private | None]) -> Snapshot:
    shared = {name: value.detach().clone() for name, value in shared_parameters(model).items()}
    return shared, [None if private is None else deepcopy(private.state_dict()) for private in privates]


def _restore(model: Recommender, privates: Sequence[Private | None], kept: Snapshot) -> None:
    for name, value in shared_parameters(model).items():
        value.data.copy_(kept[0][name])
    for private, state in zip(privates, kept[1], strict=True):
        if private is not None and state is not None:
            private.load_state_dict(state)
