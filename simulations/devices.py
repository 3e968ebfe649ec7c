"""Every user a client of their own: one device holds one history, and gives one gradient when it is called.

In each step the server calls a cohort of devices. A device takes one window of its own history (at most
``model.max_history`` + 1 events), computes the gradient of its summed loss at the server's parameters and the
catalogue's vectors, and sends that; its user residual stays and moves at home. The server adds the gradients up,
divides by the cohort's positions and makes one step of AdamW (FedSGD with a server optimiser, arXiv 2003.00295);
what arrives for the catalogue's vectors it pushes through the adapters itself.

With one local step the sum of the devices' gradients is the gradient of their sum, so a cohort is computed side by
side, as one batch of the training loop. ``device_losses`` is the slow truth that a test holds it against.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch.nn import functional as F

from client.batches import pad, windows
from client.corpus import Corpus
from client.train import Outcome, Tick, answers, predictions, train
from shared.model import Private, Recommender
from shared.plan import Plan


def train_devices(model: Recommender, corpus: Corpus, plan: Plan, tick: Tick | None = None) -> tuple[Private, Outcome]:
    """Rounds until the devices' mean validation NDCG@10 stops rising: (what is beside the adapter, how it went).

    Item bias and item residual are the server's here; nobody counts popularity, so the bias starts at zero.
    """
    private = corpus.private(model)
    with torch.no_grad():
        private.bias.zero_()
    # A sample of the catalogue that contains the items of the cohort would tell them: each device ranks all items.
    whole = replace(plan, train=replace(plan.train, candidates=0))
    place = ("devices", corpus.name)
    epochs = plan.train.epochs
    return private, train(model, [corpus], [private], whole, epochs=epochs, place=place, early_stopping=True, tick=tick)


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
