"""Was this interaction learnt from? Asked of a model that answers with scores, for users who took part.

Each user's last event of training stands against the event that was held out for the test: how likely did the model
think it, after what came before? What other models, in which the user took no part, think of the same event is
taken off (difficulty calibration, Watson et al. 2022).
"""

import numpy as np
import numpy.typing as npt
import torch

from client.batches import in_order
from client.corpus import Corpus
from client.evaluate import BLOCK_ROWS, model_score
from client.splits import Cases, Histories
from shared.metrics import Floats
from shared.model import Recommender
from shared.private import Private
from simulations.devices import asked_of


def events_of(corpus: Corpus, users: npt.NDArray[np.int64]) -> tuple[Cases, Cases]:
    """(learnt from, held out): one event of each user, after what that user did before. ``loo`` only."""
    held = asked_of(corpus.split.test, users.astype(np.int32))
    train = corpus.split.train.take(held.users.astype(np.int64))
    last = train.offsets[1:] - 1
    stays = np.ones(len(train.items), bool)
    stays[last] = False
    before = Histories(train.offsets - np.arange(len(train) + 1), train.items[stays], train.behaviours[stays])
    targets = Histories(np.arange(len(train) + 1), train.items[last], train.behaviours[last])
    return Cases(held.users, before, targets, None), held


def confidence(model: Recommender, corpus: Corpus, cases: Cases, private: Private | None = None) -> Floats:
    """log(p / (1 - p)) of each case's event among the whole catalogue, (cases,); ``private`` knows its users."""
    score = model_score(model, corpus, cases, private)
    found = []
    for rows in in_order(len(cases), BLOCK_ROWS):
        scores = score(rows).double()
        wanted = torch.from_numpy(cases.targets.items[rows].astype(np.int64))[:, None]
        own = scores.gather(1, wanted).squeeze(1)
        found.append(own - scores.scatter(1, wanted, -torch.inf).logsumexp(1))
    return torch.cat(found).numpy()
