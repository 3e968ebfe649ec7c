"""The serving path against the training loop's scores: the slow truth."""

import numpy as np
import pytest
import torch
from support.stirred import stirred_scorer
from support.tiny_members import tiny_plan

from client.batches import pad
from client.splits import Histories
from shared.model import Space, positions_logits

FIRST = torch.zeros(1, dtype=torch.int64)


@pytest.fixture(params=["cosine", "euclidean"])
def scorer(request, members, tiny_base):
    return stirred_scorer(members[0], tiny_plan(tiny_base, f"model.similarity={request.param}"))


def slow(scorer, rows, kinds, user, space, x):
    """``positions_logits`` at the end of one history, over the catalogue alone."""
    histories = Histories.from_lists([rows], [kinds])
    batch = pad(
        histories, np.zeros(1, np.int64), np.array([-1 if user is None else user]), scorer.model.plan.max_history
    )
    last = torch.tensor([max(int(batch.mask.sum()) - 1, 0)])
    v = scorer.private.items(scorer.model.items(scorer.x))
    among = torch.arange(len(scorer.space))
    with torch.no_grad():
        return positions_logits(scorer.model, space, x, v, batch, (FIRST, last), scorer.private, among)[0]


@pytest.mark.parametrize("user", [None, 3])
@pytest.mark.parametrize("length", [0, 1, 2, 7, 40])
def test_scores_are_those_of_the_training_loop(scorer, length, user):
    draw = np.random.default_rng(length)
    rows = draw.integers(len(scorer.space), size=length).tolist()
    kinds = draw.integers(3, size=length).tolist()
    truth = slow(scorer, rows, kinds, user, scorer.space, scorer.x)
    torch.testing.assert_close(scorer.scores(scorer.past(rows, kinds), user), truth, rtol=1e-4, atol=1e-4)


def test_events_that_the_catalogue_does_not_list(scorer):
    items, dim = len(scorer.space), scorer.model.dim
    tuned, plain = torch.randn(2, dim), torch.randn(2, dim)
    past = scorer.past([4], [1]) + scorer.unlisted(tuned, plain, 2) + scorer.past([9], [0])
    wide = Space(scorer.space.states, scorer.space.whitening, torch.cat([scorer.space.base, plain]))
    residual = scorer.private.item
    scorer.private.item = torch.nn.Embedding.from_pretrained(torch.cat([residual.weight, torch.zeros(2, dim)]))
    x = torch.cat([scorer.x, tuned])
    scorer.private.reads = True
    v_before = scorer.private.items(scorer.model.items(scorer.x), torch.arange(items))
    histories = Histories.from_lists([[4, items, items + 1, 9]], [[1, 2, 2, 0]])
    batch = pad(histories, np.zeros(1, np.int64), np.array([-1]), scorer.model.plan.max_history)
    with torch.no_grad():
        at = (FIRST, torch.tensor([3]))
        truth = positions_logits(scorer.model, wide, x, v_before, batch, at, scorer.private, torch.arange(items))[0]
    scorer.private.item = residual
    torch.testing.assert_close(scorer.scores(past), truth, rtol=1e-4, atol=1e-4)


def test_a_history_without_one_event(scorer):
    past = scorer.past([1, 2, 3], [0, 1, 2])
    torch.testing.assert_close(scorer.scores(past.without(1)), scorer.scores(scorer.past([1, 3], [0, 2])))
    assert len(past.last(2)) == 2
    assert past.last(2).rows.tolist() == [2, 3]


def test_nothing_is_changed_by_an_answer(scorer):
    before = {name: value.clone() for name, value in scorer.private.state_dict().items()}
    scorer.scores(scorer.past([1, 2], [0, 0]), 1)
    assert all(torch.equal(value, before[name]) for name, value in scorer.private.state_dict().items())
