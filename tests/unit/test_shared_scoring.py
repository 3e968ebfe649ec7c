"""The serving path against the training loop's scores: the slow truth."""

import numpy as np
import pytest
import torch
from support.stirred import stirred_scorer
from support.tiny_members import tiny_plan

from client.batches import met_before, pad
from client.splits import Histories
from shared.model import Space, positions_logits

FIRST = torch.zeros(1, dtype=torch.int64)


@pytest.fixture(params=["cosine", "euclidean"])
def plan(request, tiny_base):
    return tiny_plan(tiny_base, f"model.similarity={request.param}")


@pytest.fixture
def scorer(members, plan):
    return stirred_scorer(members[0], plan)


@pytest.fixture
def space(members, plan):
    return members[0].corpus(plan).space


def ask(scorer, past, user=None, among=None):
    return scorer.scores(scorer.query(past, user), among)


def slow(scorer, rows, kinds, user, space, x):
    """``positions_logits`` at the end of one history, over the catalogue alone, and what is too old to be read."""
    histories, longest = Histories.from_lists([rows], [kinds]), scorer.model.plan.max_history
    batch = pad(histories, np.zeros(1, np.int64), np.array([-1 if user is None else user]), longest)
    last = torch.tensor([max(int(batch.mask.sum()) - 1, 0)])
    v = scorer.private.items(scorer.model.items(scorer.vectors.x))
    among = torch.arange(len(scorer))
    with torch.no_grad():
        scores = positions_logits(scorer.model, space, x, v, batch, (FIRST, last), scorer.private, among)[0]
    scores[met_before(histories, np.zeros(1, np.int64), longest)[1]] += scorer.weights[2].detach()
    return scores


@pytest.mark.parametrize("user", [None, 3])
@pytest.mark.parametrize("length", [0, 1, 2, 7, 40])
def test_scores_are_those_of_the_training_loop(scorer, space, length, user):
    draw = np.random.default_rng(length)
    rows = draw.integers(len(scorer), size=length).tolist()
    kinds = draw.integers(3, size=length).tolist()
    truth = slow(scorer, rows, kinds, user, space, scorer.vectors.x)
    query = scorer.query(scorer.past(rows, kinds), user)
    torch.testing.assert_close(scorer.scores(query), truth, rtol=1e-4, atol=1e-4)
    some = torch.tensor([5, 0, *rows[:3]])
    torch.testing.assert_close(scorer.scores(query, some), truth[some], rtol=1e-4, atol=1e-4)


def test_what_is_too_old_to_be_read_is_known_to_be_met(scorer):
    most = scorer.model.plan.max_history
    recent = [1 + row % 5 for row in range(most)]
    long, short = scorer.past([30, 2, 31, *recent], [0] * (most + 3)), scorer.past(recent, [0] * most)
    more = ask(scorer, long) - ask(scorer, short)
    assert more.nonzero().squeeze(1).tolist() == [30, 31]  # 2 counts once: it stands in what is read
    torch.testing.assert_close(more[[30, 31]], scorer.weights[2].detach().expand(2))


def test_histories_side_by_side_are_those_one_by_one(scorer):
    pasts = [scorer.past(rows, [0] * len(rows)) for rows in ([], [3], [1, 2, 3, 4, 1])]
    for query, past in zip(scorer.queries(pasts, 3), pasts, strict=True):
        torch.testing.assert_close(scorer.scores(query), ask(scorer, past, 3), rtol=1e-5, atol=1e-5)


def test_places_and_question_make_the_score_but_for_repeats_and_nearness(scorer):
    scorer.private.near.zero_()
    query = scorer.query(scorer.past([4, 7], [0, 1]), 2)
    found = scorer.places() @ scorer.question(query)
    found[[4, 7]] += scorer.weights[2]
    if scorer.model.plan.similarity == "euclidean":
        found = found - scorer.weights[0] * (query.user**2).sum() / 2
    torch.testing.assert_close(found, scorer.scores(query), rtol=1e-4, atol=1e-4)


def test_events_that_the_catalogue_does_not_list(scorer, space):
    items, dim = len(scorer), scorer.model.dim
    tuned, plain = torch.randn(2, dim), torch.randn(2, dim)
    past = scorer.past([4], [1]) + scorer.unlisted(tuned, plain, 2) + scorer.past([9], [0])
    wide = Space(space.states, space.whitening, torch.cat([space.base, plain]))
    residual = scorer.private.item
    scorer.private.item = torch.nn.Embedding.from_pretrained(torch.cat([residual.weight, torch.zeros(2, dim)]))
    x = torch.cat([scorer.vectors.x, tuned])
    scorer.private.reads = True
    v_before = scorer.private.items(scorer.model.items(scorer.vectors.x), torch.arange(items))
    histories = Histories.from_lists([[4, items, items + 1, 9]], [[1, 2, 2, 0]])
    batch = pad(histories, np.zeros(1, np.int64), np.array([-1]), scorer.model.plan.max_history)
    with torch.no_grad():
        at = (FIRST, torch.tensor([3]))
        truth = positions_logits(scorer.model, wide, x, v_before, batch, at, scorer.private, torch.arange(items))[0]
    scorer.private.item = residual
    torch.testing.assert_close(ask(scorer, past), truth, rtol=1e-4, atol=1e-4)


def test_a_history_without_one_event(scorer):
    past = scorer.past([1, 2, 3], [0, 1, 2])
    torch.testing.assert_close(ask(scorer, past.without(1)), ask(scorer, scorer.past([1, 3], [0, 2])))
    assert len(past.last(2)) == 2
    assert past.last(2).rows.tolist() == [2, 3]


def test_nothing_is_changed_by_an_answer(scorer):
    before = {name: value.clone() for name, value in scorer.private.state_dict().items()}
    ask(scorer, scorer.past([1, 2], [0, 0]), 1)
    assert all(torch.equal(value, before[name]) for name, value in scorer.private.state_dict().items())
