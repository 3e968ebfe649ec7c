from dataclasses import replace

import numpy as np
import pytest
import torch
from support.tiny_members import tiny_plan

import client.train as train_module
from client.dataset import NONE_UNWANTED, Unwanted
from client.evaluate import evaluate, model_score
from client.optimizer import Optimizer
from client.privacy import train_privately
from client.rounds import DomainMember
from client.train import candidates, push_down, refusals, train
from shared.errors import TrainingError
from shared.model import Batch, Recommender, adapter_tensors, load_adapter_tensors, positions_logits, released_names
from shared.prefix import find_base


def fit(members, plan, epochs=2, early_stopping=False, private=True, **more):
    """Train a fresh model on the first domain; (model, corpus, private, outcome)."""
    model = Recommender(plan.model, find_base(plan.model.base), plan.federation.seed)
    corpus = members[0].corpus(plan)
    own = corpus.private(model) if private else None
    outcome = train(model, [corpus], [own], plan, epochs=epochs, place=("t",), early_stopping=early_stopping, **more)
    return model, corpus, own, outcome


def test_training_learns(members, tiny_base):
    plan = tiny_plan(tiny_base)
    start = Recommender(plan.model, find_base(plan.model.base), plan.federation.seed)
    model, corpus, private, outcome = fit(members, plan, epochs=8)
    before = evaluate(start, corpus, corpus.split.test)["ndcg@10"]
    assert evaluate(model, corpus, corpus.split.test, private)["ndcg@10"] > 1.3 * before
    assert np.isfinite(outcome.loss)


def test_every_released_tensor_moves_and_no_other(members, tiny_base):
    plan = tiny_plan(tiny_base)
    fresh = adapter_tensors(Recommender(plan.model, find_base(plan.model.base), plan.federation.seed))
    released = released_names(plan, list(fresh))
    after = adapter_tensors(fit(members, plan, private=False, released=released)[0])
    for name, value in after.items():
        assert (np.abs(value - fresh[name]).max() > 0) == (name in released), name


def test_the_same_seed_is_the_same_training(members, tiny_base):
    plan = tiny_plan(tiny_base, "model.dropout=0.2", "model.lora_dropout=0.1", "train.negatives=0")
    one, two = (adapter_tensors(fit(members, plan)[0]) for _ in range(2))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    other = adapter_tensors(fit(members, tiny_plan(tiny_base, "model.dropout=0.2", "federation.seed=8"))[0])
    assert not np.array_equal(one["user.outward.weight"], other["user.outward.weight"])


def test_a_pull_draws_back_by_hand(tiny_base):
    held, free = (torch.nn.Parameter(torch.tensor([2.0])) for _ in range(2))
    groups = [{"params": [value], "lr": 0.5, "weight_decay": 0.0} for value in (held, free)]
    groups[0]["pull"] = 0.5
    optimizer = Optimizer(groups, 100, tiny_plan(tiny_base, "train.warmup=0"), (0, 1))
    for value in (held, free):
        value.grad = torch.tensor([1.0])
    optimizer.step()  # Adam's first step is as long as its rate
    assert free.item() == pytest.approx(1.5)
    assert held.item() == pytest.approx(1.5 + 0.25 * (2 - 1.5))


def test_a_pull_holds_what_is_shared_and_lets_go_what_is_private(members, tiny_base):
    plan = tiny_plan(tiny_base, "train.lr=0.01", "train.lora_lr=0.01")
    fresh = adapter_tensors(Recommender(plan.model, find_base(plan.model.base), plan.federation.seed))

    def way(pull):
        model, corpus, own, _ = fit(members, plan, pull=pull)
        moved = {name: float(np.linalg.norm(value - fresh[name])) for name, value in adapter_tensors(model).items()}
        return moved, float((own.bias.detach() - corpus.private(model).bias.detach()).norm())

    (loose, bias), (held, bias_held) = way(0.0), way(200.0)
    towers, lora = ([name for name in loose if (".lora_" in name) == which] for which in (False, True))
    for names in (towers, lora):
        assert 0 < sum(held[name] for name in names) < 0.2 * sum(loose[name] for name in names)
    assert bias_held > 0.5 * bias > 0


@pytest.mark.parametrize("loss", ["softmax", "bce", "mse", "bpr"])
def test_sampled_losses_train(members, tiny_base, loss):
    _, _corpus, _, outcome = fit(members, tiny_plan(tiny_base, f"train.loss={loss}", "train.negatives=16"))
    assert np.isfinite(outcome.loss)
    assert outcome.epochs == 2


@pytest.mark.parametrize("similarity", ["dot", "euclidean"])
def test_other_similarities_train(members, tiny_base, similarity):
    model, corpus, private, outcome = fit(members, tiny_plan(tiny_base, f"model.similarity={similarity}"))
    assert np.isfinite(outcome.loss)
    assert evaluate(model, corpus, corpus.split.test, private)["hr@10"] > 0


def test_adversarial_training_is_another_training(members, tiny_base):
    plain = adapter_tensors(fit(members, tiny_plan(tiny_base))[0])
    model, _, _, outcome = fit(members, tiny_plan(tiny_base, "adversary.weight=1.0"))
    hard = adapter_tensors(model)
    assert np.isfinite(outcome.loss)
    assert not np.allclose(plain["item.outer.weight"], hard["item.outer.weight"], atol=1e-5)


def test_early_stopping_keeps_the_best_and_may_keep_the_start(members, tiny_base, monkeypatch):
    scores = iter([0.5, 0.4, 0.3, 0.2])
    monkeypatch.setattr(train_module, "_validate", lambda *_: next(scores))
    plan = tiny_plan(tiny_base)
    model, _, _, outcome = fit(members, plan, epochs=8, early_stopping=True)
    assert (outcome.epochs, outcome.valid) == (0, (0.5, 0.4, 0.3))  # patience 2
    fresh = adapter_tensors(Recommender(plan.model, find_base(plan.model.base), plan.federation.seed))
    assert all(np.array_equal(value, fresh[name]) for name, value in adapter_tensors(model).items())


def test_the_pushed_gradient_is_the_gradient_through_the_encoder(members, tiny_base, monkeypatch):
    """Gradient caching against the slow truth: one graph from the loss down to the adapters."""
    monkeypatch.setattr("shared.model.BF16", False)
    plan = tiny_plan(tiny_base, "train.encode_items=1000")
    model = Recommender(plan.model, find_base(plan.model.base), 7)
    corpus = members[0].corpus(plan)
    rows = np.arange(len(corpus.space))
    catalogue = train_module._Catalogue(model, corpus, plan)
    model.train()
    target = torch.randn(len(rows), model.dim, generator=torch.Generator().manual_seed(0))
    ((catalogue.leaf - target) ** 2).sum().backward()
    catalogue.steps = 1
    gradients = {}

    class Peek:
        def step(self):
            gradients.update({name: p.grad.clone() for name, p in named.items()})

    named = {name: p for name, p in train_module.shared_parameters(model).items() if ".lora_B." in name}
    catalogue.push(Peek())
    model.zero_grad()
    x = torch.empty(len(rows), model.dim)
    x = corpus.space.whitening(torch.cat([model.encode_part(corpus.space.states, rows[[row]]) for row in rows]))
    ((x - target) ** 2).sum().backward()
    for name, parameter in named.items():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-5)


def test_a_domain_without_two_events_says_so(members, tiny_base):
    from dataclasses import replace

    from client.splits import Histories

    corpus = members[0].corpus(tiny_plan(tiny_base))
    empty = Histories.from_lists([[1]] * len(corpus.split.train))
    bare = replace(corpus, split=replace(corpus.split, train=empty))
    model = members[0].workshop.model(tiny_plan(tiny_base))
    with pytest.raises(TrainingError, match="nothing to learn"):
        train(model, [bare], [None], tiny_plan(tiny_base), epochs=1, place=("t",), early_stopping=False)


def test_a_loss_that_is_not_finite_stops(members, tiny_base):
    plan = tiny_plan(tiny_base)
    fresh = Recommender(plan.model, find_base(plan.model.base), 7)
    tensors = adapter_tensors(fresh)
    tensors["item.outer.bias"][:] = np.nan
    load_adapter_tensors(fresh, tensors)
    corpus = members[0].corpus(plan)
    with pytest.raises(TrainingError, match=r"the loss is nan.*lower train.lr"):
        train(fresh, [corpus], [None], plan, epochs=1, place=("t",), early_stopping=False)


def test_candidates_estimate_the_whole_softmax():
    draw = np.random.default_rng(0)
    logits = torch.randn(400, generator=torch.Generator().manual_seed(1))
    present = torch.tensor([[3, 7, 7], [0, 5, 3]])
    estimates = []
    for _ in range(2000):
        among, stands_for = candidates(present, torch.arange(400), 60, draw)
        assert len(among) == 60 == len(among.unique())
        assert set(present.flatten().tolist()) <= set(among.tolist())
        assert stands_for[torch.isin(among, present)].abs().max() == 0
        estimates.append(float((logits[among] + stands_for).exp().sum()))
    assert np.mean(estimates) == pytest.approx(float(logits.exp().sum()), rel=0.01)
    among, stands_for = candidates(torch.arange(400)[None], torch.arange(400), 60, draw)
    assert len(among) == 400
    assert stands_for.abs().max() == 0


def test_an_item_that_nobody_met_is_not_passed_over(members, tiny_base):
    base = tiny_plan(tiny_base, "train.user_events=2", "train.candidates=0")  # so few that some items stay unmet
    sampled = ("train.loss=bpr", "train.negatives=16")
    for sets, judged in (
        ((), False),
        (("train.judge_unmet=true",), True),
        (sampled, False),
        ((*sampled, "train.judge_unmet=true"), True),
    ):
        plan = tiny_plan(tiny_base, "train.user_events=2", "train.candidates=0", *sets)
        _, corpus, private, _ = fit([DomainMember(members[0].domain, members[0].home, members[0].workshop)], plan)
        unmet = torch.from_numpy(corpus.popularity == 0)
        assert unmet.any()
        moved = private.bias.detach() != corpus.private(members[0].workshop.model(base)).bias.detach()
        assert bool(moved[unmet].any()) == judged
        assert moved[~unmet].all()


def test_candidates_train_about_as_well_as_the_whole_catalogue(members, tiny_base):
    reached = [
        max(fit(members, tiny_plan(tiny_base, f"train.candidates={count}"), 4, early_stopping=True)[3].valid)
        for count in (0, 60)
    ]
    assert reached[1] > 0.8 * reached[0]


def test_somebody_unknown_is_shown_what_histories_begin_with(members, tiny_base):
    plan = tiny_plan(tiny_base)
    corpus = members[0].corpus(plan)
    train_part = corpus.split.train
    firsts = torch.from_numpy(train_part.items[train_part.offsets[:-1][train_part.lengths >= 2]].astype(np.int64))

    @torch.no_grad()
    def surprise(model, private):
        x = model.encode(corpus.space)
        v = private.items(model.items(x))
        blank = positions_logits(model, corpus.space, x, v, train_module.NOBODY, train_module.NOWHERE, private)
        return float(torch.nn.functional.cross_entropy(blank.expand(len(firsts), -1), firsts))

    start = Recommender(plan.model, find_base(plan.model.base), plan.federation.seed)
    model, _, private, _ = fit(members, plan, epochs=12)
    private.user.weight.data.normal_()  # nobody's residual is nobody's
    assert surprise(model.eval(), private) < surprise(start.eval(), corpus.private(start)) - 0.15


def test_what_a_user_refused_is_found_among_a_batch():
    unwanted = Unwanted(np.array([1, 4, 4]), np.array([7, 2, 9]))
    one = torch.ones(3, 2, dtype=torch.int64)
    rows, items = refusals(Batch(torch.tensor([4, 0, 1]), one, one, one.bool()), unwanted)
    assert rows.tolist() == [0, 0, 2]
    assert items.tolist() == [2, 9, 7]
    assert refusals(Batch(torch.tensor([0, 3]), one[:2], one[:2], one[:2].bool()), unwanted) is None
    assert refusals(Batch(torch.tensor([4]), one[:1], one[:1], one[:1].bool()), NONE_UNWANTED) is None


def test_a_push_down_is_the_pairwise_loss_by_hand():
    # Two users of two predicted events each, the second one's last masked; a newcomer's position behind.
    mask = torch.tensor([[True, True, True], [True, True, False]])
    batch = Batch(
        torch.tensor([5, 6]), torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3, dtype=torch.int64), mask
    )
    logits = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 1.0], [0.0, 0.0, 4.0], [9.0, 9.0, 9.0]])
    wanted = torch.tensor([0, 1, 2, 0])
    refused = (torch.tensor([0, 0, 1]), torch.tensor([1, 2, 0]))
    # First user: leads -1 and -2; 1 is wanted itself, -1. Second: lead 4. Of two refused items each counts half.
    log1p = np.logaddexp(0, np.array([1.0, 2.0, 1.0]))
    expected = log1p.sum() / 2 + np.logaddexp(0, -4.0)
    assert float(push_down(logits, wanted, batch, refused)) == pytest.approx(expected)


@pytest.mark.parametrize("sets", ["train.candidates=0", "train.candidates=24"])
def test_training_moves_what_a_user_refused_down_for_that_user(members, tiny_base, sets):
    """Relative to the same training without it: of users who each refuse the best of what they did not meet."""
    plan = tiny_plan(tiny_base, sets)
    member = members[0]
    model, corpus, private, _ = fit(members, plan)
    asking = corpus.split.test.take(np.arange(24))

    def scores(model, corpus, private):
        return model_score(model, corpus, asking, private)(np.arange(len(asking)))

    before = scores(model, corpus, private)
    new = before.clone()
    for row, user in enumerate(asking.users):
        new[row, torch.from_numpy(corpus.split.train.row(int(user)).astype(np.int64))] = -torch.inf
    pairs = Unwanted(asking.users.astype(np.int64), new.argmax(1).numpy())
    member.domain, member._corpus = replace(member.domain, unwanted=pairs), None
    after = scores(*fit(members, plan)[:3])

    def lead(scores):
        return scores[torch.arange(len(asking)), torch.from_numpy(pairs.items)] - scores.mean(1)

    assert (lead(after) < lead(before)).float().mean() > 0.8
    assert (lead(after) - lead(before)).mean() < -0.1
    assert torch.equal(scores(*fit(members, tiny_plan(tiny_base, sets, "train.unwanted=0.0"))[:3]), before)


def test_what_users_refused_never_enters_private_training(members, tiny_base):
    plan = tiny_plan(tiny_base, "privacy.epsilon=8.0")
    member = members[0]
    fresh = adapter_tensors(Recommender(plan.model, find_base(plan.model.base), 7))

    def released(domain):
        member.domain, member._corpus = domain, None
        model = Recommender(plan.model, find_base(plan.model.base), 7)
        load_adapter_tensors(model, fresh)
        names = released_names(plan, list(fresh))
        train_privately(model, member.corpus(plan), plan, 1.0, names, ("t",), simulated=True)
        return adapter_tensors(model)

    users = np.arange(len(member.domain.interactions.user_ids))
    one = released(member.domain)
    two = released(replace(member.domain, unwanted=Unwanted(users, np.zeros_like(users))))
    assert all(np.array_equal(one[name], two[name]) for name in one)
