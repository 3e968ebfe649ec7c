import sys

import pytest
import torch
from support.stirred import person, stirred_engine
from support.tiny_members import tiny_plan

from shared import words
from shared.errors import ConfigError
from shared.words import TOLERANCE, item_words, told_words

SENTENCE = "a guitar song of the night"


@pytest.fixture
def engine(members, tiny_base, tmp_path):
    return stirred_engine(members[0], tiny_plan(tiny_base), tmp_path)


def served(engine, who, row):
    return float(engine.scorer.scores(engine.scorer.query(who.past, who.user), torch.tensor([row]))[0])


def bound(found):
    return TOLERANCE * max(abs(found.score), abs(found.blank), abs(found.score - found.blank))


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_words_add_up_to_the_score(similarity, members, tiny_base, tmp_path):
    engine = stirred_engine(members[0], tiny_plan(tiny_base, f"model.similarity={similarity}"), tmp_path)
    who = person(engine, *engine.catalog.ids[2:5], SENTENCE, *engine.catalog.ids[5:9])
    for row in (0, 7):
        found = item_words(engine, who, row)
        assert found.score == pytest.approx(served(engine, who, row), abs=0.05)  # the cache is bfloat16
        assert sum(word.weight for word in found.words) == pytest.approx(
            found.score - found.blank + found.gap, abs=0.01
        )
        assert abs(found.gap) <= bound(found)
        read = " ".join(word.word for word in found.words)
        assert " ".join(engine.catalog.texts[row].split()).startswith(read)  # this base reads 24 word pieces
    found = told_words(engine, who, 11, 3)
    assert found.score == pytest.approx(served(engine, who, 11), abs=0.05)
    assert abs(found.gap) <= bound(found)
    assert [word.word for word in found.words] == SENTENCE.split()
    assert told_words(engine, who, 11, 0) is None  # an item of the catalogue


def test_a_sentence_too_old_to_be_read_has_no_words(engine):
    who = person(engine, SENTENCE, *engine.catalog.ids[: engine.scorer.model.plan.max_history])
    assert told_words(engine, who, 11, 0) is None


def test_pieces_join_to_words_and_signs():
    text = "Yamaha P-45 电子琴"
    spans = [(0, 0), (0, 4), (4, 6), (7, 8), (8, 9), (9, 11), (12, 13), (13, 14), (0, 0)]
    found = words._joined(text, spans, [9.0, 1.0, 2.0, 0.5, 0.25, 0.25, -1.0, 3.0, 9.0])
    assert [(one.word, one.weight) for one in found] == [("Yamaha", 3.0), ("P-45", 1.0), ("电", -1.0), ("子", 3.0)]


def test_explaining_leaves_the_model_as_it_was(engine):
    who = person(engine, *engine.catalog.ids[2:9])
    before = engine.scorer.scores(engine.scorer.query(who.past))
    item_words(engine, who, 1)
    assert torch.equal(engine.scorer.scores(engine.scorer.query(person(engine, *engine.catalog.ids[2:9]).past)), before)
    assert all(parameter.grad is None for parameter in engine.scorer.model.parameters())


def test_without_captum_there_is_a_message(engine, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ConfigError, match=r"\.\[explain\]"):
        item_words(engine, person(engine, engine.catalog.ids[2]), 1)
