from dataclasses import replace

import numpy as np
import pytest
import torch

from client.evaluate import rank_cases
from client.splits import Histories
from shared.errors import ConfigError
from shared.metrics import ranking_metrics
from shared.model import Batch
from simulations.baselines import BASELINES, crowded, find_baseline, raised, tuned, valid_ndcg
from simulations.baselines.neighbours import matrix
from simulations.baselines.sasrec import Ids, Sequential, Texts, recommender


def ndcg(recommend, corpus):
    cases = corpus.split.test
    found = rank_cases(cases, len(corpus.space), recommend(cases))
    return ranking_metrics(found.ranks, cases.targets.offsets, found.candidates)["ndcg@10"]


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_beats_chance_and_repeats_itself(name, members, plan, monkeypatch):
    monkeypatch.setattr("simulations.baselines.sasrec.EPOCHS", 4)
    monkeypatch.setattr("simulations.baselines.sasrec.WIDTH", 32)
    monkeypatch.setattr("simulations.baselines.federated.ROUNDS", 15)
    corpus = members[0].corpus(plan)
    draw = np.random.default_rng(0)
    items = len(corpus.space)
    table = torch.from_numpy(draw.normal(size=(len(corpus.split.test), items)).astype(np.float32))
    chance = ndcg(lambda cases: lambda rows: table[torch.from_numpy(rows)], corpus)
    found = find_baseline(name)(corpus, 3, None, None)
    assert ndcg(found, corpus) > chance
    assert ndcg(find_baseline(name)(corpus, 3, None, None), corpus) == pytest.approx(ndcg(found, corpus))


def test_a_training_that_was_interrupted_goes_on_to_the_same_end(members, plan, monkeypatch, tmp_path):
    monkeypatch.setattr("simulations.baselines.sasrec.EPOCHS", 4)
    monkeypatch.setattr("simulations.baselines.sasrec.WIDTH", 32)
    corpus, place = members[0].corpus(plan), tmp_path / "baselines" / "sasrec.safetensors"
    trained: list[str] = []

    def stop(what, done, total):
        trained.append(what)
        if what.endswith("epoch 3") and done == 2:
            raise KeyboardInterrupt

    whole = find_baseline("sasrec")(corpus, 3, None, None)
    with pytest.raises(KeyboardInterrupt):
        find_baseline("sasrec")(corpus, 3, stop, place)
    assert {what[-1] for what in trained} == {"1", "2", "3"}
    trained.clear()
    found = find_baseline("sasrec")(corpus, 3, lambda what, *_: trained.append(what), place)
    assert {what[-1] for what in trained} == {"3", "4"}
    rows = np.arange(len(corpus.split.test))
    torch.testing.assert_close(found(corpus.split.test)(rows), whole(corpus.split.test)(rows), rtol=0, atol=0)
    assert not place.exists()  # it came to its end
    place.write_bytes(b"of a disk that broke")
    trained.clear()
    find_baseline("sasrec")(corpus, 3, lambda what, *_: trained.append(what), place)
    assert {what[-1] for what in trained} == {"1", "2", "3", "4"}


@pytest.mark.parametrize("name", ["sasrec", "unisrec"])
def test_a_large_catalogue_is_sampled_in_training_and_ranked_whole(name, members, plan, monkeypatch):
    monkeypatch.setattr("simulations.baselines.sasrec.EPOCHS", 2)
    monkeypatch.setattr("simulations.baselines.sasrec.WIDTH", 32)
    monkeypatch.setattr("simulations.baselines.sasrec.batch_size", lambda windows, train: 4)
    corpus = members[0].corpus(plan)
    whole = ndcg(find_baseline(name)(corpus, 3, None, None), corpus)
    monkeypatch.setattr("simulations.baselines.sasrec.CANDIDATES", 20)
    sampled = ndcg(find_baseline(name)(corpus, 3, None, None), corpus)
    assert sampled != whole
    assert sampled == pytest.approx(whole, rel=0.5)


@pytest.mark.parametrize("items", [Ids(30), Texts(torch.randn(30, 12, generator=torch.Generator().manual_seed(0)))])
def test_scores_of_some_items_are_those_of_the_whole_catalogue(items):
    model = Sequential(items).eval()
    met = torch.tensor([[3, 17, 3, 0], [29, 4, 0, 0]])
    batch = Batch(torch.arange(2), met, torch.zeros_like(met), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool())
    at = torch.tensor([0, 0, 1]), torch.tensor([1, 3, 1])
    among = torch.tensor([0, 3, 4, 9, 17, 29])
    whole = model(batch, at)
    assert whole.shape == (3, 30)
    torch.testing.assert_close(model(batch, at, among), whole[:, among])


def test_what_is_done_with_items_already_met_is_what_validation_says(members, plan):
    corpus = members[0].corpus(plan)
    known = matrix(corpus.split.valid.histories, len(corpus.space)).toarray()

    def old(cases):
        history = torch.from_numpy(matrix(cases.histories, len(corpus.space)).toarray())
        return lambda rows: history[torch.from_numpy(rows)].clone()

    def oracle(cases):
        targets = torch.from_numpy(matrix(cases.targets, len(corpus.space)).toarray())
        history = torch.from_numpy(matrix(cases.histories, len(corpus.space)).toarray())
        return lambda rows: (targets + 2 * history)[torch.from_numpy(rows)].clone()

    assert known.any()
    assert valid_ndcg(tuned(oracle, corpus), corpus) > valid_ndcg(oracle, corpus)
    assert valid_ndcg(tuned(old, corpus), corpus) >= valid_ndcg(old, corpus)


def test_a_baseline_may_raise_what_was_met_lately_and_what_is_popular(members, plan):
    corpus = members[0].corpus(plan)
    cases = corpus.split.valid
    flat = lambda cases: lambda rows: torch.zeros(len(rows), len(corpus.space))  # noqa: E731
    history = cases.histories.row(0)
    scores = raised(flat, 2.0)(cases)(np.array([0]))[0]
    assert float(scores[history[-1]]) == 2.0
    last = {int(item): len(history) - 1 - place for place, item in enumerate(history)}  # events since it was met last
    for item, age in last.items():
        assert float(scores[item]) == pytest.approx(2.0 * 0.9**age)
    assert int((scores != 0).sum()) == len(last)
    crowd = crowded(flat, 3.0, corpus)(cases)(np.array([0, 1]))
    assert float(crowd[0].std(correction=0)) == pytest.approx(3.0, rel=1e-5)
    assert torch.equal(crowd[0].argsort(), torch.from_numpy(np.log1p(corpus.popularity)).float().argsort())
    popular = lambda cases: lambda rows: torch.from_numpy(corpus.popularity).float().repeat(len(rows), 1)  # noqa: E731
    assert valid_ndcg(tuned(flat, corpus), corpus) >= valid_ndcg(popular, corpus)  # what it lacked it is given


def test_whose_history_is_empty_is_told_what_is_popular(members, plan):
    corpus = members[0].corpus(plan)
    torch.manual_seed(0)
    model = Sequential(Ids(len(corpus.space)))
    nobody = Histories(np.zeros(2, np.int64), np.empty(0, np.int32), np.empty(0, np.int8))
    cases = replace(corpus.split.valid, users=np.array([-1]), histories=nobody)
    scores = recommender(model, corpus)(cases)(np.array([0]))[0]
    np.testing.assert_allclose(scores, np.log1p(corpus.popularity), rtol=1e-6)


def test_neighbours_by_hand():
    from client.splits import Histories

    histories = Histories.from_lists([[2, 0, 2], [], [1]])
    found = matrix(histories, 3).toarray()
    assert histories.items.tolist() == [2, 0, 2, 1]  # and the histories keep their order
    assert found.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_a_missing_library_is_named(members, plan, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "implicit.nearest_neighbours", None)
    monkeypatch.delitem(sys.modules, "simulations.baselines.neighbours", raising=False)
    with pytest.raises(ConfigError, match="baseline item_knn needs implicit"):
        find_baseline("item_knn")
