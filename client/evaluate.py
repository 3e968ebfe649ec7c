"""Full ranking of the whole catalogue for each case; the numbers stay at home."""

import numpy as np
import numpy.typing as npt
import torch

from client.batches import in_order, pad
from client.corpus import Corpus
from client.splits import Cases, Histories
from shared.metrics import ranking_metrics
from shared.model import Private, Recommender, positions_logits

BLOCK_SCORES = 4_000_000  # scores held at a time: 16 MB
BLOCK_ROWS = 256  # histories held at a time: their vectors take 20 MB, ten times over


@torch.no_grad()
def case_ranks(
    model: Recommender, corpus: Corpus, cases: Cases, private: Private | None = None, x: torch.Tensor | None = None
) -> npt.NDArray[np.int64]:
    """1-based rank of each target among all items, in the order of ``cases.targets.items``.

    Ties count against the target, so that a constant scorer earns nothing. Items of the user's training
    history are out of the running where the protocol masks them. ``x`` are the catalogue's current
    vectors where the caller has them; else they are encoded.
    """
    model.eval()
    space = corpus.space
    x = model.encode(space) if x is None else x
    v = model.items(x) if private is None else private.items(model.items(x))
    ranks = np.zeros(len(cases.targets.items), np.int64)
    lengths = np.minimum(np.diff(cases.histories.offsets), model.plan.max_history)
    order = np.argsort(lengths, kind="stable")  # like lengths together: little padding
    for block in in_order(len(cases), max(1, min(BLOCK_ROWS, BLOCK_SCORES // len(space)))):
        rows = order[block]
        scores = history_scores(model, corpus, x, v, cases.histories, rows, cases.users[rows], private)
        if cases.seen is not None:
            mask_rows(scores, cases.seen, cases.users[rows])
        places = np.concatenate([np.arange(*cases.targets.offsets[[row, row + 1]]) for row in rows])
        ranks[places] = target_ranks(scores, cases.targets, rows)
    return ranks


def history_scores(
    model: Recommender,
    corpus: Corpus,
    x: torch.Tensor,
    v: torch.Tensor,
    histories: Histories,
    rows: npt.NDArray[np.int64],
    users: npt.NDArray[np.int32],
    private: Private | None,
) -> torch.Tensor:
    """Scores after each history's last event: (rows, items)."""
    batch = pad(histories, rows, users, model.plan.max_history)
    last = (batch.mask.sum(1) - 1).clamp(min=0)
    return positions_logits(model, corpus.space, x, v, batch, (torch.arange(len(rows)), last), private)


def mask_rows(scores: torch.Tensor, seen: Histories, users: npt.NDArray[np.int32]) -> None:
    """Put what each user has seen out of the running, in place."""
    for place, user in enumerate(users):
        scores[place, torch.from_numpy(seen.row(int(user)).astype(np.int64))] = -torch.inf


def target_ranks(scores: torch.Tensor, targets: Histories, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many items score at least as high as each target, itself included."""
    counts = np.diff(targets.offsets)[rows]
    place = torch.from_numpy(np.repeat(np.arange(len(rows)), counts))
    items = np.concatenate([targets.row(int(row)) for row in rows]).astype(np.int64)
    ranks = torch.empty(len(items), dtype=torch.int64)
    for at in range(0, len(items), len(rows)):  # as many targets at a time as there are rows
        some = slice(at, at + len(rows))
        own = scores[place[some], torch.from_numpy(items[some])]
        ranks[some] = (scores[place[some]] >= own[:, None]).sum(1)
    return ranks.numpy()


def evaluate(
    model: Recommender, corpus: Corpus, cases: Cases, private: Private | None = None, x: torch.Tensor | None = None
) -> dict[str, float]:
    """HR@10, NDCG@10, recall@10, MRR over the cases."""
    return ranking_metrics(case_ranks(model, corpus, cases, private, x), cases.targets.offsets)
