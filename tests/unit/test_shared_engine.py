"""An engine finds its items, reads any words, and is opened again from what it kept."""

from dataclasses import replace

import pytest
import torch
from support.stirred import stirred_scorer
from support.tiny_members import tiny_plan

import shared.engine
from client.dataset import read_domain
from client.rounds import DomainMember
from client.store import Home
from client.workshop import Workshop
from shared.catalog import NewItem
from shared.engine import NO_TITLE, VECTORS, VIEW, Engine, engine_key, open_engine
from shared.errors import DataError, UnknownError
from shared.index import Index
from shared.model import shared_parameters
from shared.neighbours import Neighbours
from shared.scoring import UNLISTED, Scorer, _of_new_items


@pytest.fixture(scope="module")
def member(tiny_world, cache, tmp_path_factory):
    home = Home(tmp_path_factory.mktemp("home"))
    return DomainMember(read_domain(tiny_world["video"]), home, Workshop(cache), simulated=True)


@pytest.fixture(scope="module")
def engine(member, tiny_base):
    plan = tiny_plan(tiny_base)
    scorer = stirred_scorer(member, plan)
    whitening = member.corpus(plan).space.whitening
    return Engine(member.domain.catalog, scorer, whitening, Index(len(scorer)), "0" * 12)


def scores(engine, past):
    return engine.scorer.scores(engine.scorer.query(past))


def test_an_item_goes_by_its_id_and_by_its_title_case_and_spaces_aside(engine):
    catalog = engine.catalog
    row = catalog.titled[next(reversed(catalog.titled))]
    assert engine.item(catalog.ids[row]) == row
    assert engine.item("  " + catalog.titles[row].upper().replace(" ", "   ")) == row
    with pytest.raises(UnknownError, match=f"the catalogue of {engine.name} has no item 'ghost'; give its id or"):
        engine.item("ghost")


def test_an_item_without_a_title_is_called_so(engine):
    named = replace(engine.catalog, titles=("", *engine.catalog.titles[1:]))
    assert replace(engine, catalog=named).title(0) == NO_TITLE
    assert replace(engine, catalog=named).find("") is None


def test_search_wants_all_the_words_in_any_order(engine):
    title = next(title for title in engine.catalog.titles if len(title.split()) > 1)
    words = title.split()
    found = engine.search(" ".join(reversed(words)).upper())
    assert engine.catalog.titles.index(title) in found
    assert all(word.casefold() in engine.title(row).casefold() for row in found for word in words)
    assert engine.search("") == list(range(len(engine)))
    assert engine.search(f"{words[0]} zzzz") == []


def test_alike_is_by_cosine_without_the_item_itself(engine):
    v = engine.scorer.vectors.v
    cosines = torch.nn.functional.cosine_similarity(v, v[5][None]).tolist()
    truth = sorted((row for row in range(len(engine)) if row != 5), key=lambda row: -cosines[row])
    assert engine.alike(5, 4) == truth[:4]
    assert sorted(engine.alike(5, 10_000)) == sorted(truth)


def test_a_told_history_is_that_of_the_items_where_the_catalogue_has_them(engine):
    catalog = engine.catalog
    past = engine.told([catalog.ids[4], catalog.titles[9].upper()])
    same = engine.scorer.past([4, catalog.titled[" ".join(catalog.titles[9].split()).casefold()]], [VIEW] * 2)
    assert torch.equal(past.rows, same.rows)
    assert torch.equal(scores(engine, past), scores(engine, same))


def test_other_words_are_read_where_they_stand(engine):
    words = [engine.catalog.ids[4], "a quiet film about the sea", "jazz piano", engine.catalog.ids[9]]
    past = engine.told(words)
    assert past.rows.tolist() == [4, UNLISTED, UNLISTED, 9]
    assert past.behaviours.tolist() == [VIEW] * 4
    alone = engine.told(words[1:2])
    torch.testing.assert_close(past.tuned[1:2], alone.tuned)
    torch.testing.assert_close(past.plain[1:2], alone.plain)


def test_a_listed_text_is_read_as_the_catalogue_was(engine):
    """Vectors of words are those that the same words have as an item, but for what the domain knows of that item."""
    _, tuned = engine._read([engine.catalog.texts[6]])
    torch.testing.assert_close(tuned[0], engine.scorer.vectors.x[6], atol=2e-3, rtol=2e-2)


def test_nobodys_words_are_no_history(engine):
    assert len(engine.told([])) == 0


def test_a_new_item_counts_as_those_that_nobody_met_with_another(engine, monkeypatch):
    private = engine.scorer.private
    own = (private.strength * private.bias + private.lift).detach()
    cosines = private.neighbours.cosines.clamp(min=0.1)
    monkeypatch.setattr(private, "neighbours", Neighbours(private.neighbours.rows, cosines))
    assert _of_new_items(own, private) == float(own.min())
    cosines[[5, 8]] = 0
    assert _of_new_items(own, private) == pytest.approx(float(own[[5, 8]].mean()))
    monkeypatch.setattr(private, "neighbours", None)
    assert _of_new_items(own, private) == float(own.min())


def test_new_items_stand_behind_the_others_whose_scores_stay(engine):
    text = engine.catalog.texts[6]
    more = engine.with_items([NewItem("n1", "New one", text), NewItem("n2", "", "a puzzle game")])
    assert (len(engine), len(more)) == (60, 62)
    past = engine.scorer.past([3, 7], [VIEW] * 2)
    torch.testing.assert_close(scores(more, past)[:60], scores(engine, past))
    assert more.item("new ONE") == 60
    # As an item that nobody met: what its text scores, and the bias of the least popular one.
    private = engine.scorer.private
    least = (private.strength * private.bias + private.lift).detach().min()
    torch.testing.assert_close(more.scorer.own[60:], least.expand(2))
    assert more.attributes.of_item[60:] == ((), ())
    assert more.told(["n1"]).rows.tolist() == [60]
    with pytest.raises(DataError, match="has an item 'n1' already"):
        more.with_items([NewItem("n1", "", "x")])
    with pytest.raises(DataError, match="has an item 'twice' already"):
        engine.with_items([NewItem("twice", "", "x"), NewItem("twice", "", "y")])
    assert engine.with_items([]) is engine


@pytest.fixture
def opened(member, plan, cache, tmp_path):
    """How an engine is opened over a model, in a folder of its own."""

    def make(scorer):
        return open_engine(scorer.model, member.domain.catalog, scorer.private, tmp_path / "serving", cache)

    return make


def never(*what):
    raise AssertionError("read again although it was kept")


def test_what_was_computed_once_is_opened_again(member, plan, opened, monkeypatch):
    scorer = stirred_scorer(member, plan)
    first = opened(scorer)
    monkeypatch.setattr(type(scorer.model), "encode", never)
    again = opened(scorer)
    assert again.version == first.version
    past = first.scorer.past([3, 7], [VIEW] * 2)
    assert torch.equal(scores(again, past), scores(first, past))
    torch.testing.assert_close(again._read(["jazz"])[1], first._read(["jazz"])[1])


def test_two_processes_that_compute_one_catalogue_at_once_leave_it_whole(member, plan, opened, tmp_path, monkeypatch):
    scorer, plain, inside = stirred_scorer(member, plan), shared.engine.save_file, []

    def while_another_does(tensors, path, metadata):
        if not inside:
            inside.append(path)
            opened(scorer)  # begins and ends while the first has its file half written
        plain(tensors, path, metadata)

    monkeypatch.setattr(shared.engine, "save_file", while_another_does)
    first = opened(scorer)
    assert [path.name for path in (tmp_path / "serving").iterdir()] == [VECTORS]
    monkeypatch.setattr(type(scorer.model), "encode", never)
    past = first.scorer.past([3, 7], [VIEW] * 2)
    assert torch.equal(scores(opened(scorer), past), scores(first, past))


def test_the_version_names_model_and_private_parameters_but_no_user(member, plan):
    scorer, catalog = stirred_scorer(member, plan), member.domain.catalog
    first = engine_key(scorer.model, catalog, scorer.private)
    with torch.no_grad():
        scorer.private.user.weight.add_(1)
        assert engine_key(scorer.model, catalog, scorer.private) == first
        scorer.private.bias[0] += 1
    second = engine_key(scorer.model, catalog, scorer.private)
    next(iter(shared_parameters(scorer.model).values())).data.add_(1e-3)
    third = engine_key(scorer.model, catalog, scorer.private)
    fourth = engine_key(scorer.model, catalog.first(59), scorer.private)
    assert len({first, second, third, fourth, engine_key(scorer.model, catalog, None)}) == 5


def test_another_models_vectors_are_not_taken(member, plan, opened):
    scorer = stirred_scorer(member, plan)
    first = opened(scorer)
    with torch.no_grad():
        scorer.private.bias.add_(torch.arange(len(scorer.private.bias)))
    second = opened(scorer)
    assert second.version != first.version
    torch.testing.assert_close(second.scorer.own, Scorer(scorer.model, second.scorer.vectors, scorer.private).own)


@pytest.mark.parametrize("damage", ["torn", "no file", "bytes of something else"])
def test_damaged_vectors_are_computed_anew(member, plan, opened, tmp_path, damage):
    scorer = stirred_scorer(member, plan)
    first = opened(scorer)
    path = tmp_path / "serving" / VECTORS
    raw = path.read_bytes()
    path.unlink()
    if damage != "no file":
        path.write_bytes(raw[: len(raw) // 2] if damage == "torn" else b"\xff" * 64)
    again = opened(scorer)
    torch.testing.assert_close(again.scorer.vectors.v, first.scorer.vectors.v)
    assert path.stat().st_size == len(raw)


def test_a_folder_that_takes_no_file_is_said(member, plan, opened, tmp_path):
    (tmp_path / "serving").write_text("a file where a folder should be")
    with pytest.raises(DataError, match=r"cannot write .*vectors\.safetensors.*free space there"):
        opened(stirred_scorer(member, plan))
