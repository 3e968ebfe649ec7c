import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.tiny_members import tiny_plan

import client.gate as gate
from client.evaluate import validate
from client.gate import MARGIN, SHARES, Candidate, alone, better, between
from client.rounds import DomainMember
from client.store import Home
from client.train import Outcome
from shared.model import adapter_tensors, base_fingerprint, initial_state, load_adapter_tensors
from shared.payload import Task


@pytest.mark.parametrize(
    ("federated", "own", "kin", "served"),
    [
        (0.304, 0.3, False, "federated"),
        (0.302, 0.3, False, "alone"),  # one more training of the same data: that much is chance
        (0.302, 0.3, True, "federated"),
        (0.3, 0.3, True, "federated"),
        (0.299, 0.3, True, "alone"),
        (0.29, 0.3, False, "alone"),
        (0.0, 0.0, False, "federated"),  # nothing to tell by
        (float("nan"), float("nan"), True, "federated"),
    ],
)
def test_a_federated_model_must_not_be_worse_and_without_kin_better_than_chance(federated, own, kin, served):
    candidates = Candidate("federated", federated, {}, {}, None), Candidate("alone", own, {}, {}, None)
    assert better(*candidates, kin).name == served


@pytest.fixture
def setting(members, tiny_base, tmp_path):
    plan = tiny_plan(tiny_base)
    model = members[0].workshop.model(plan)
    load_adapter_tensors(model, initial_state(plan)[0])
    return model, members[0].corpus(plan), plan, tmp_path / "alone"


def test_what_is_kept_is_read_back_until_something_changes(setting, monkeypatch):
    model, corpus, plan, folder = setting
    load_adapter_tensors(model, {name: value + 1 for name, value in initial_state(plan)[0].items()})
    found = alone(model, corpus, plan, "loo", folder)  # starts from the adapter as drawn, whatever was loaded
    assert found.valid == pytest.approx(validate(model, corpus, found.put(model, corpus)), abs=1e-3)
    trained: list[int] = []
    real = gate.train
    monkeypatch.setattr(gate, "train", lambda *args, **more: trained.append(1) or real(*args, **more))
    again = alone(model, corpus, plan, "loo", folder)
    assert not trained
    assert again.valid == found.valid
    assert all(np.array_equal(again.adapter[name], found.adapter[name]) for name in found.adapter)
    assert all(torch.equal(again.private[name], found.private[name]) for name in found.private)
    alone(model, corpus, replace(plan, train=replace(plan.train, lr=0.002)), "loo", folder)
    assert trained == [1]
    (folder / "model.safetensors").write_bytes(b"damaged")
    alone(model, corpus, replace(plan, train=replace(plan.train, lr=0.002)), "loo", folder)
    assert trained == [1, 1]


@pytest.mark.parametrize(
    ("curves", "most", "asked", "kept"),
    [
        ([(0.1, 0.2, 0.2019)], 8, [2], 0),
        ([(0.1, 0.2, 0.21)], 3, [2], 0),  # twice as many are more than are allowed
        ([(0.1, 0.2, 0.21), (0.1, 0.2, 0.3, 0.35, 0.351)], 8, [2, 4], 1),
        ([(0.1, 0.2, 0.21), (0.1, 0.2, 0.15, 0.2, 0.2)], 8, [2, 4], 0),  # longer was not better
        ([(0.1, 0.2, 0.21), (0.1, 0.2, 0.3, 0.4, 0.5), (0.6,) * 9], 8, [2, 4, 8], 2),
    ],
)
def test_a_training_that_still_rises_begins_anew_twice_as_long(setting, monkeypatch, curves, most, asked, kept):
    model, corpus, plan, folder = setting
    plan = replace(plan, train=replace(plan.train, most_epochs=most))
    start, epochs = initial_state(plan)[0], []

    def train(model, corpora, privates, plan, **more):
        begun = adapter_tensors(model)
        assert all(np.array_equal(begun[name], start[name]) for name in start)
        assert not privates[0].item.weight.any()
        model.item.outer.bias.data.fill_(float(len(epochs)))
        privates[0].item.weight.data.fill_(float(len(epochs)))
        epochs.append(more["epochs"])
        return Outcome(1, 0.0, curves[len(epochs) - 1])

    monkeypatch.setattr(gate, "train", train)
    found = alone(model, corpus, plan, "loo", folder)
    assert epochs == asked
    for one in (found, alone(model, corpus, plan, "loo", folder)):  # the second as it lies on the disk
        assert (one.adapter["item.outer.bias"] == kept).all()
        assert (one.private["item.weight"] == kept).all()
    assert epochs == asked
    assert json.loads((folder / "alone.json").read_text())["curve"] == list(curves[kept])


def test_a_longer_training_that_was_interrupted_goes_on_from_the_one_before(setting, monkeypatch):
    model, corpus, plan, folder = setting
    plan, epochs = replace(plan, train=replace(plan.train, most_epochs=8)), []

    def train(model, corpora, privates, plan, **more):
        epochs.append(more["epochs"])
        if len(epochs) == 2:
            raise KeyboardInterrupt
        model.item.outer.bias.data.fill_(float(len(epochs)))
        return Outcome(1, 0.0, (0.1, 0.2, 0.3) if len(epochs) == 1 else (0.1, 0.25, 0.25))

    monkeypatch.setattr(gate, "train", train)
    with pytest.raises(KeyboardInterrupt):
        alone(model, corpus, plan, "loo", folder)
    found = alone(model, corpus, plan, "loo", folder)
    assert epochs == [2, 4, 4]
    assert (found.adapter["item.outer.bias"] == 1).all()  # the longer one was no better
    alone(model, corpus, plan, "loo", folder)
    assert epochs == [2, 4, 4]


def test_between_two_models_lies_their_mean_in_the_shares_that_validate_best(setting, monkeypatch):
    model, corpus, plan, folder = setting
    own = alone(model, corpus, plan, "loo", folder)
    other = replace(
        own,
        name="federated",
        adapter={name: value + np.float32(4) for name, value in own.adapter.items()},
        private={name: value + 4 for name, value in own.private.items()},
    )
    monkeypatch.setattr(gate, "calibrate", lambda model, corpus, private, counted: 0.5)
    for best in SHARES:
        some = next(iter(own.adapter))
        asked: list[float] = []

        def valid(model, corpus, private, some=some, asked=asked, best=best):
            asked.append(round(1 - float((adapter_tensors(model)[some] - own.adapter[some]).mean()) / 4, 3))
            return 1 - abs(asked[-1] - best)

        monkeypatch.setattr(gate, "validate", valid)
        found = between(model, corpus, other, own)
        assert asked == list(SHARES)
        assert (found.name, found.valid) == ("between", 0.5)
        for name, value in own.adapter.items():
            np.testing.assert_allclose(found.adapter[name], value + 4 * (1 - best), rtol=1e-5, atol=1e-5)
        for name, value in own.private.items():
            torch.testing.assert_close(found.private[name], value + 4 * (1 - best))


def test_the_mean_of_a_model_with_itself_is_itself(setting):
    model, corpus, plan, folder = setting
    own = alone(model, corpus, plan, "loo", folder)
    assert between(model, corpus, own, own).valid == pytest.approx(own.valid, abs=1e-6)


@pytest.mark.parametrize("damage", [0.0, 3.0])
def test_a_federated_model_that_is_worse_is_not_served(members, tiny_base, tmp_path, monkeypatch, damage):
    monkeypatch.setattr("client.calibrate._crowd", lambda *_: 1.0)
    plan = tiny_plan(tiny_base, "train.personal_epochs=0", "model.neighbours=0")
    member = DomainMember(members[0].domain, Home(tmp_path), members[0].workshop)
    model = member.workshop.model(plan)
    corpus = member.corpus(plan)
    own = alone(model, corpus, plan, "loo", member.home.alone)
    draw = np.random.default_rng(0)
    own.put(model, corpus)
    noisy = adapter_tensors(model)
    federated = {k: v + damage * draw.normal(size=v.shape).astype(np.float32) for k, v in noisy.items()}
    load_adapter_tensors(model, federated)
    before = validate(model, corpus, corpus.private(model))
    task = Task("finish", 1, plan, federated, base_fingerprint(plan.model, model.base))
    private, facts = member.serve_best(model, task)
    assert facts["valid"]["federated"] == pytest.approx(before)
    assert facts["valid"]["federated"] < own.valid
    assert validate(model, corpus, private) == pytest.approx(facts["valid"][facts["served"]], abs=1e-3)
    assert facts["served"] == ("alone" if facts["valid"]["between"] <= (1 + MARGIN) * own.valid else "between")
    if damage:
        assert facts["served"] == "alone"
    _, facts = member.serve_best(model, replace(task, plan=replace(plan, train=replace(plan.train, mix=False))))
    assert facts["served"] == "alone"
    assert "between" not in facts["valid"]
    _, facts = member.serve_best(model, replace(task, plan=replace(plan, train=replace(plan.train, gate=False))))
    assert facts["served"] == "federated"
