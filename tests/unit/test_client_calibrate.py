from dataclasses import replace

import numpy as np
import pytest
import torch
from support.tiny_members import tiny_plan

import client.calibrate as calibrate_module
from client.calibrate import calibrate
from client.evaluate import model_score, validate
from client.splits import Histories
from client.train import train
from shared.model import Batch, positions_logits
from shared.neighbours import Neighbours


@pytest.fixture
def bench(members, tiny_base):
    """(model, corpus, private) of a domain that has not trained."""
    plan = tiny_plan(tiny_base)
    model, corpus = members[0].workshop.model(plan), members[0].corpus(plan)
    return model, corpus, corpus.private(model)


def test_what_neighbours_add_by_hand(bench):
    _, corpus, private = bench
    private.near.copy_(torch.tensor([2.0, 10.0, 0.5]))
    batch = Batch(
        torch.tensor([0]), torch.tensor([[3, 1, 2]]), torch.zeros(1, 3, dtype=torch.int64), torch.ones(1, 3) > 0
    )
    at = (torch.tensor([0, 0]), torch.tensor([0, 1]))
    near = torch.zeros(len(corpus.space), len(corpus.space))
    near.scatter_add_(1, corpus.neighbours.rows.long(), corpus.neighbours.cosines)
    wanted = [2 * torch.log1p(10 * near[3]), 2 * torch.log1p(10 * (near[1] + 0.5 * near[3]))]
    torch.testing.assert_close(private.nearness(batch, at), torch.stack(wanted))


def test_scores_hold_them_and_so_do_those_of_some_items(bench):
    model, corpus, private = bench
    cases = corpus.split.valid
    batch = Batch(torch.tensor([0]), torch.tensor([[3, 1]]), torch.zeros(1, 2, dtype=torch.int64), torch.ones(1, 2) > 0)
    at, among = (torch.tensor([0]), torch.tensor([1])), torch.tensor([0, 2, 5])
    model.eval()
    x = model.encode(corpus.space)
    with torch.no_grad():
        v = private.items(model.items(x))
        before = positions_logits(model, corpus.space, x, v, batch, at, private)
        private.near.copy_(torch.tensor([2.0, 10.0, 0.5]))
        after = positions_logits(model, corpus.space, x, v, batch, at, private)
        some = positions_logits(model, corpus.space, x, v[among], batch, at, private, among)
    torch.testing.assert_close(after - before, private.nearness(batch, at), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(some, after[:, among])
    assert model_score(model, corpus, cases, private)(np.arange(2)).shape == (2, len(corpus.space))


def test_they_count_where_they_foretell_what_comes_next(bench):
    model, corpus, private = bench
    # Whoever met an even item next meets the odd one after it, and nothing in the texts says so.
    firsts = [2 * (user % 5) for user in range(40)]
    train_rows = Histories.from_lists([[item, item + 1] for item in firsts])
    valid = replace(
        corpus.split.valid,
        users=np.arange(5, dtype=np.int32),
        histories=Histories.from_lists([[2 * n] for n in range(5)]),
        targets=Histories.from_lists([[2 * n + 1] for n in range(5)]),
    )
    taught = replace(corpus, split=replace(corpus.split, train=train_rows, valid=valid))
    private = taught.private(model)
    assert calibrate(model, taught, private) == 1.0
    assert private.near[0] > 0


def test_they_are_off_where_they_do_not_help(bench):
    model, corpus, private = bench
    strangers = replace(corpus, split=replace(corpus.split, train=Histories.from_lists([[0], [1], [2]])))
    private = strangers.private(model)
    private.near.fill_(1.0)
    calibrate(model, strangers, private)
    assert private.near.tolist() == [0, 0, 0]


def test_the_choice_is_the_best_of_all_that_were_tried(bench, monkeypatch):
    monkeypatch.setattr("client.evaluate.BLOCK_ROWS", 3)
    monkeypatch.setattr(calibrate_module, "BLOCK_ROWS", 3)
    monkeypatch.setattr(calibrate_module, "WEIGHTS", (0.5, 4.0))
    monkeypatch.setattr(calibrate_module, "SHARPNESS", (10.0,))
    monkeypatch.setattr(calibrate_module, "OWN", (0.5, 10.0))
    monkeypatch.setattr(calibrate_module, "SURE", 0.0)
    model, corpus, private = bench
    chosen = calibrate(model, corpus, private)
    found = []
    for near in ((0.0, 0.0, 0.0), *((w, 10.0, d) for w in (0.5, 4.0) for d in (model.plan.recency, 1.0))):
        private.near.copy_(torch.tensor(near))
        found.append(validate(model, corpus, private))
    assert chosen == pytest.approx(max(found), abs=1e-6)


@pytest.mark.parametrize(
    ("usual", "other", "off", "chosen"),
    [
        ([0.5, 0.0, 0.5, 0.0], [0.5, 0.1, 0.5, 0.0], [0.0] * 4, "usual"),  # .025 better, by one standard error .022
        ([0.5, 0.0, 0.5, 0.0], [0.6, 0.1, 0.5, 0.1], [0.0] * 4, "other"),  # .075 by .022
        ([0.5, 0.0, 0.5, 0.0], [0.5, 0.0, 0.5, 0.0], [0.0] * 4, "usual"),
        ([0.1, 0.0, 0.1, 0.0], [0.1, 0.0, 0.0, 0.0], [0.2, 0.1, 0.1, 0.1], "off"),
        ([0.0] * 4, [0.0] * 4, [0.0] * 4, "off"),  # nothing that could be seen
    ],
)
def test_what_is_usual_stays_unless_something_is_better_beyond_chance(bench, monkeypatch, usual, other, off, chosen):
    model, corpus, private = bench
    settings = {"usual": (1.0, 100.0, 0.8), "other": (4.0, 10.0, 1.0), "off": (0, 0, 0)}
    cases = dict(zip(settings.values(), map(np.array, (usual, other, off)), strict=True))
    monkeypatch.setattr(calibrate_module, "_try", lambda *_: cases)
    calibrate_module._choose_near(model, corpus, private, settings["usual"])
    assert private.near.tolist() == pytest.approx(settings[chosen])


def test_training_starts_without_them(bench, tiny_base):
    model, corpus, private = bench
    private.near.fill_(1.0)
    train(
        model, [corpus], [private], tiny_plan(tiny_base), epochs=1, place=("local", corpus.name), early_stopping=False
    )
    assert private.near.tolist() == [0, 0, 0]


def test_without_the_setting_there_are_none(members, tiny_base):
    plan = tiny_plan(tiny_base, "model.neighbours=0")
    model, corpus = members[0].workshop.model(plan), members[0].corpus(plan)
    private = corpus.private(model)
    assert private.neighbours is None
    assert calibrate(model, corpus, private) == pytest.approx(validate(model, corpus, private))


def test_expected_counts_by_hand():
    # Two items unseen, three seen once, one twice, two four times.
    popularity = np.array([0, 0, 1, 1, 1, 2, 4, 4])
    mean = 13 / 8
    wanted = {0: min(1 * (3 + 1) / (2 + 1), mean) / 0.5, 1: min(2 * (1 + 1) / (3 + 1), mean) / 1}
    found = calibrate_module.lift(popularity)
    assert found[popularity == 4].tolist() == [0, 0]
    for n in (0, 1):
        np.testing.assert_allclose(found[popularity == n], np.log(wanted[n]), rtol=1e-6)
    # None was seen three times: 3 * (0 + 1) / (1 + 1) = 1.5 events are to be expected.
    np.testing.assert_allclose(found[popularity == 2], np.log(1.5 / 2), rtol=1e-6)


def test_in_a_catalogue_of_things_nobody_wants_an_unseen_item_gains_nothing():
    popularity = np.array([0] * 1000 + [1] * 20 + [50])
    assert calibrate_module.lift(popularity)[0] == 0


def test_expected_counts_are_added_to_the_scores(bench, monkeypatch):
    monkeypatch.setattr(calibrate_module, "_extra", lambda *_: 0.0)
    monkeypatch.setattr(calibrate_module, "_crowd", lambda *_: 1.0)
    model, corpus, private = bench
    plain = model_score(model, corpus, corpus.split.valid, corpus.private(model))(np.arange(2))
    calibrate(model, corpus, private)
    private.near.zero_()
    raised = model_score(model, corpus, corpus.split.valid, private)(np.arange(2))
    torch.testing.assert_close(raised - plain, torch.from_numpy(calibrate_module.lift(corpus.popularity)).expand(2, -1))


def shown(corpus, monkeypatch, cases):
    """Validation cases (target, gap): item 2 scores that much more than item 0, and all others less."""
    valid = replace(
        corpus.split.valid,
        users=np.arange(len(cases), dtype=np.int32),
        histories=Histories.from_lists([[1]] * len(cases)),
        targets=Histories.from_lists([[target] for target, _ in cases]),
    )

    def score(rows):
        scores = torch.full((len(rows), len(corpus.space)), -9.0)
        scores[:, 0], scores[:, 2] = 0, torch.tensor([gap for _, gap in cases])[rows]
        return scores

    monkeypatch.setattr(calibrate_module, "model_score", lambda *_: score)
    return replace(corpus, split=replace(corpus.split, valid=valid))


def test_items_nobody_met_are_raised_as_far_as_validation_does_not_feel_it(bench, monkeypatch):
    model, corpus, private = bench
    unmet = torch.arange(len(corpus.space)) == 0

    def extra(*cases):
        return calibrate_module._extra(model, shown(corpus, monkeypatch, cases), private, unmet)

    safe, falls, gains = (2, 3.0), (2, 0.4), (0, 0.4)
    assert extra(*[safe] * 9) == 2.0
    assert extra(*[safe] * 9, gains) == 2.0
    assert extra(*[falls] * 9) == 0.0
    # One falls and one gains: nothing is felt. From 1.5 on two more fall to the second place: .74 of 100 cases in
    # all, standard error .52.
    assert extra(*[safe] * 96, falls, gains, (2, 1.2), (2, 1.2)) == 1.0


@pytest.mark.parametrize(("strength", "wanted"), [(0.001, 100.0), (0.03, 10.0), (1.0, 1.0)])
def test_the_crowd_leads_where_validation_finds_it_first(bench, monkeypatch, strength, wanted):
    model, corpus, private = bench
    private.bias.data.zero_()
    private.bias.data[0], private.bias.data[4] = 1.0, 2.0
    private.strength.data.fill_(strength)
    # Asked for is item 0, behind item 2 by .09 or even with it; too much of the crowd brings item 4 before both.
    cases = [(0, 0.0) if wanted == 1 else (0, 0.09)] * 3

    chosen = shown(corpus, monkeypatch, cases)
    score = calibrate_module.model_score()

    def behind(rows):
        scores = score(rows)
        scores[:, 4] = -1.0 if strength == 0.03 else -9.0
        return scores

    monkeypatch.setattr(calibrate_module, "model_score", lambda *_: behind)
    assert calibrate_module._crowd(model, chosen, private) == wanted
    if wanted == 1:
        return
    monkeypatch.setattr(calibrate_module, "_choose_near", lambda *_: None)
    calibrate(model, chosen, private)
    more = private.lift - torch.from_numpy(calibrate_module.lift(corpus.popularity))
    torch.testing.assert_close(more, (wanted - 1) * (private.strength * private.bias).detach(), atol=1e-4, rtol=1e-4)


def test_what_was_met_lately_comes_again_where_validation_says_so(bench):
    model, corpus, private = bench
    lists = [[user % 7, 7 + user % 11, 20 + user % 13] for user in range(60)]
    rows = Histories.from_lists(lists)
    users = np.arange(60, dtype=np.int32) % len(corpus.split.train)

    def asked(targets):
        valid = replace(corpus.split.valid, users=users, histories=rows, targets=Histories.from_lists(targets))
        return replace(corpus, split=replace(corpus.split, valid=valid))

    latest = asked([[history[-1]] for history in lists])  # the last of three: training's weight on repeats cannot tell
    found = calibrate(model, latest, private)
    own = torch.arange(len(corpus.space), dtype=private.neighbours.rows.dtype)
    assert torch.equal(private.neighbours.rows[:, -1], own)
    assert float(private.neighbours.cosines[0, -1]) in calibrate_module.ITSELF
    assert found == pytest.approx(validate(model, latest, private))
    assert found > 0.9
    score = model_score(model, latest, latest.split.valid, private)(np.array([0]))[0]
    assert score[lists[0][2]] > max(score[lists[0][0]], score[lists[0][1]])

    seldom = asked([[(history[-1] + 1) % 40] for history in lists])
    calibrate(model, seldom, private)  # anew: nothing of before stays
    assert torch.equal(private.neighbours.rows, corpus.neighbours.rows)
    assert torch.equal(private.neighbours.cosines, corpus.neighbours.cosines)


def test_an_item_as_its_own_neighbour_by_hand():
    plain = Neighbours(torch.tensor([[1, 2], [0, 2], [0, 1]]), torch.tensor([[0.5, 0.2], [0.5, 0.1], [0.2, 0.1]]))
    found = plain.with_itself(10.0)
    assert found.rows.tolist() == [[1, 0], [0, 1], [0, 2]]
    torch.testing.assert_close(found.cosines, torch.tensor([[0.5, 10.0], [0.5, 10.0], [0.2, 10.0]]))
    assert plain.rows.tolist() == [[1, 2], [0, 2], [0, 1]]


def test_what_nobody_met_gets_it_and_nothing_else_does(bench, monkeypatch):
    model, corpus, private = bench
    monkeypatch.setattr(calibrate_module, "_extra", lambda *_: 1.5)
    monkeypatch.setattr(calibrate_module, "_crowd", lambda *_: 1.0)
    usual = (*calibrate_module.OWN, model.plan.recency)
    monkeypatch.setattr(calibrate_module, "_try", lambda *_: {(0.0, 0.0, 0.0): np.zeros(4), usual: np.ones(4)})
    few = replace(corpus, split=replace(corpus.split, train=Histories.from_lists([[0, 1], [1, 0], [0, 4]])))
    calibrate(model, few, private)
    more = private.lift.numpy() - calibrate_module.lift(few.popularity)
    np.testing.assert_allclose(more, 1.5 * (few.popularity == 0), atol=1e-6)


def test_expected_counts_can_be_left_out(members, tiny_base):
    plan = tiny_plan(tiny_base, "model.expected_counts=false")
    model, corpus = members[0].workshop.model(plan), members[0].corpus(plan)
    private = corpus.private(model)
    calibrate(model, corpus, private)
    assert not private.lift.any()


def test_what_owners_counted_together_takes_the_place_of_ones_own(bench, monkeypatch):
    monkeypatch.setattr(calibrate_module, "_extra", lambda *_: 0.0)
    monkeypatch.setattr(calibrate_module, "_crowd", lambda *_: 1.0)
    model, corpus, private = bench
    met = np.arange(len(corpus.space)) % 5
    met[0] = 9
    _, pairs = corpus.pairs()
    scale = np.float32(1 / 512)  # as a mean over owners' weights comes
    usual: list[calibrate_module.Near] = []
    choose = calibrate_module._choose_near
    monkeypatch.setattr(calibrate_module, "_choose_near", lambda *given: usual.append(given[3]) or choose(*given))
    calibrate(model, corpus, corpus.private(model))
    calibrate(model, corpus, private, {"met": met.astype(np.float32) * scale, "pairs": pairs * scale})
    assert usual == [(*calibrate_module.OWN, 0.8), (*calibrate_module.SHARED, 0.8)]
    np.testing.assert_allclose(private.lift, calibrate_module.lift(met), rtol=1e-6)
    assert not np.array_equal(private.lift, calibrate_module.lift(corpus.popularity))
    assert not torch.equal(private.neighbours.cosines, corpus.neighbours.cosines)


def test_absurd_counts_from_others_cost_no_memory(bench):
    model, corpus, private = bench
    met = np.full(len(corpus.space), 1e30, np.float32)
    met[0] = 1e-30
    _, pairs = corpus.pairs()
    calibrate(model, corpus, private, {"met": met, "pairs": -pairs})
    assert torch.isfinite(private.lift).all()
    assert torch.isfinite(private.neighbours.cosines).all()
