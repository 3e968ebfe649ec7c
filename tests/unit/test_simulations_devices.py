from dataclasses import replace

import numpy as np
import torch
from support.tiny_members import tiny_plan
from torch.nn import functional as F

from client.batches import pad, windows
from client.corpus import build_corpus
from client.train import answers, predictions
from shared.catalog import BEHAVIOURS
from shared.model import Recommender, shared_parameters
from shared.prefix import find_base
from simulations.devices import asked_of, device_losses, join, train_devices, train_together


def opened(members, base):
    plan = tiny_plan(base)
    corpus = members[0].corpus(plan)
    model = Recommender(plan.model, find_base(plan.model.base), 7).eval()
    with torch.no_grad():  # away from the start, where what lies below a zero layer has no gradient
        for parameter in shared_parameters(model).values():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return plan, corpus, model


def test_a_cohorts_gradient_is_the_sum_of_its_devices_gradients(members, tiny_base):
    _, corpus, model = opened(members, tiny_base)
    private = corpus.private(model)
    x = model.encode(corpus.space).requires_grad_(True)
    leaves = [
        x,
        private.bias,
        private.item.weight,
        *(p for n, p in shared_parameters(model).items() if "lora" not in n),
    ]

    total, positions = [torch.zeros_like(leaf) for leaf in leaves], 0
    for loss, count in device_losses(model, corpus, private, x):
        positions += count
        for at, slope in enumerate(torch.autograd.grad(loss, leaves)):
            total[at] += slope

    rows, users, opening = windows(corpus.split.train, model.plan.max_history)
    everyone = torch.arange(len(users)).numpy()
    batch = pad(rows, everyone, users, model.plan.max_history + 1)
    first = batch.items[torch.from_numpy(opening), 0]
    wanted = answers(batch, first)
    together = F.cross_entropy(predictions(model, corpus.space, x, private, batch, len(first)), wanted, reduction="sum")
    assert positions == len(wanted)
    for one, other in zip(total, torch.autograd.grad(together, leaves), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_the_server_knows_no_popularity_and_no_sample_of_a_cohorts_items(members, tiny_base, monkeypatch):
    plan, corpus, model = opened(members, tiny_base)
    seen = {}

    def spy(model, corpora, privates, plan, **more):
        seen.update(bias=privates[0].bias.detach().clone(), candidates=plan.train.candidates)

    monkeypatch.setattr("simulations.devices.train", spy)
    train_devices(model, corpus, plan)
    assert not seen["bias"].any()
    assert seen["candidates"] == 0


def test_devices_learn(members, tiny_base):
    plan, corpus, model = opened(members, tiny_base)
    _, outcome = train_devices(model, corpus, plan)
    assert outcome.epochs
    assert outcome.best > outcome.valid[0]


def without_dates(domain):
    return replace(domain, interactions=replace(domain.interactions, times=np.arange(float(len(domain.interactions)))))


def test_what_was_done_elsewhere_after_what_is_asked_is_no_history(members):
    target, other = members[0].domain, members[1].domain
    own, more = target.interactions, other.interactions
    data = join(target, [other]).interactions
    left_out = 0
    for user in set(own.user_ids) & set(more.user_ids):
        mine, its = own.users == own.user_ids.index(user), more.users == more.user_ids.index(user)
        asked = own.times[mine][-2] if mine.sum() > 1 else np.inf
        events = [(time, 1, item) for time, item in zip(own.times[mine], own.items[mine], strict=True)]
        events += [
            (time, 0, item + len(target.catalog))
            for time, item in zip(more.times[its], more.items[its], strict=True)
            if time < asked
        ]
        left_out += len(own.times[mine]) + int(its.sum()) - len(events)
        rows = data.users == data.user_ids.index(user)
        assert data.items[rows].tolist() == [item for _, _, item in sorted(events)]
    assert left_out > 0


def test_joined_domains_by_hand(members):
    target, other = members[0].domain, without_dates(members[1].domain)
    both = join(target, [other])
    data, own, more = both.interactions, target.interactions, other.interactions
    assert data.user_ids[: len(own.user_ids)] == own.user_ids
    assert set(data.user_ids) == {*own.user_ids, *more.user_ids}
    assert len(data) == len(own) + len(more)
    assert both.catalog.texts == (*target.catalog.texts, *other.catalog.texts)
    shared = next(user for user in own.user_ids if user in more.user_ids)
    rows = data.users == data.user_ids.index(shared)
    first = more.items[more.users == more.user_ids.index(shared)] + len(target.catalog)
    then = own.items[own.users == own.user_ids.index(shared)]
    assert data.items[rows].tolist() == [*first, *then]
    away = data.items[rows] >= len(target.catalog)
    assert (data.behaviours[rows] >= len(BEHAVIOURS)).tolist() == away.tolist()


def test_devices_that_read_all_they_hold_answer_the_same_cases(members, tiny_base):
    plan = tiny_plan(tiny_base)
    corpus = members[0].corpus(plan)
    ranked, outcome = train_together(members[0].workshop, corpus, [members[1].domain], plan)
    assert len(ranked.ranks) == len(corpus.split.test.targets.items)
    assert ranked.candidates.max() == len(corpus.space)
    assert ranked.top.max() < len(corpus.space)
    assert len(set(outcome.valid)) > 1  # it learnt; whether for the better, two epochs on few users do not tell
    joined = build_corpus(join(corpus.domain, [without_dates(members[1].domain)]), "loo", corpus.space, plan)
    asked = asked_of(joined.split.test, corpus.split.test.users)
    assert asked.users.tolist() == corpus.split.test.users.tolist()
    assert asked.targets.items.tolist() == corpus.split.test.targets.items.tolist()
    for row in range(len(asked)):
        own = corpus.split.test.histories.row(row).tolist()
        assert asked.histories.row(row).tolist()[-len(own) :] == own
