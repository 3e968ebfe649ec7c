"""The graph against exact search, and what is kept of it on disk."""

import json

import pytest
import torch

import shared.index
from shared.errors import DataError
from shared.index import Index, Turn, _graph, build, fit_turn, recall


@pytest.fixture
def places():
    """Clustered, as vectors of texts are: 1,500 items around 30 centres, the last number an offset."""
    draw = torch.Generator().manual_seed(0)
    centres = torch.randn(30, 24, generator=draw)
    return centres.repeat(50, 1) + 0.3 * torch.randn(1500, 24, generator=draw)


def test_a_small_catalogue_is_searched_exactly(places, tmp_path):
    index = build(places, tmp_path, "a" * 16)
    assert index.exact
    assert index.candidates(places[0], 5, 1500).tolist() == list(range(1500))
    assert not list(tmp_path.iterdir())


def test_the_graph_finds_what_exact_search_finds(places, tmp_path):
    index = build(places, tmp_path, "a" * 16, exact_items=0)
    assert not index.exact
    assert recall(index, places, places[:40] + 0.1, k=10, count=100) >= 0.97


def test_lengths_count_not_angles_alone(tmp_path):
    """Products, not cosines: of two items in one direction the longer one wins."""
    draw = torch.Generator().manual_seed(1)
    places = torch.randn(600, 8, generator=draw)
    places[599] = 4 * places[0]
    index = build(places, tmp_path, "b" * 16, exact_items=0)
    assert 599 in index.candidates(places[0], 5, 600).tolist()


def test_the_turn_keeps_the_order_of_products(places):
    turn = fit_turn(places)
    question = places[3] - 0.2
    found = turn.places(places) @ turn.question(question)
    assert torch.equal(
        torch.argsort(found, descending=True)[:50], torch.argsort(places @ question, descending=True)[:50]
    )
    torch.testing.assert_close(turn.places(places).norm(dim=1), torch.ones(1500))


def test_items_that_came_later_are_always_candidates(places, tmp_path):
    index = build(places, tmp_path, "a" * 16, exact_items=0)
    found = index.candidates(places[0], 20, 1503).tolist()
    assert {1500, 1501, 1502} <= set(found)
    assert len(found) == len(set(found)) == 23


def test_all_rows_where_half_of_them_are_asked_for(places, tmp_path):
    index = build(places, tmp_path, "a" * 16, exact_items=0)
    assert index.candidates(places[0], 751, 1500).tolist() == list(range(1500))


def test_what_is_kept_is_opened_again_and_another_key_builds_anew(places, tmp_path):
    first = build(places, tmp_path, "a" * 16, exact_items=0)
    graph = next(tmp_path.glob("*.usearch"))
    made = graph.stat().st_mtime_ns
    again = build(places, tmp_path, "a" * 16, exact_items=0)
    assert graph.stat().st_mtime_ns == made
    asked = first.candidates(places[5], 30, 1500).tolist(), again.candidates(places[5], 30, 1500).tolist()
    assert sorted(asked[0]) == sorted(asked[1])
    build(places, tmp_path, "c" * 16, exact_items=0)
    assert {path.name.split(".")[0] for path in tmp_path.iterdir()} == {"index-" + "c" * 16}


def test_two_processes_that_build_one_index_at_once_leave_it_whole(places, tmp_path, monkeypatch):
    plain, inside = shared.index.save_file, []

    def while_another_does(tensors, path):
        if not inside:
            inside.append(path)
            build(places, tmp_path, "a" * 16, exact_items=0)
        plain(tensors, path)

    monkeypatch.setattr(shared.index, "save_file", while_another_does)
    made = build(places, tmp_path, "a" * 16, exact_items=0)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors", ".usearch"]
    monkeypatch.setattr(shared.index, "fit_turn", None)  # what is there is opened
    again = build(places, tmp_path, "a" * 16, exact_items=0)
    asked = [sorted(one.candidates(places[5], 30, 1500).tolist()) for one in (made, again)]
    assert asked[0] == asked[1]


def test_a_graph_of_an_earlier_shape_is_built_anew(places, tmp_path):
    build(places, tmp_path, "a" * 16, exact_items=0)
    about, graph = next(tmp_path.glob("*.json")), next(tmp_path.glob("*.usearch"))
    old = json.loads(about.read_text())
    about.write_text(json.dumps(old | {"shape": [384, 16, 128]}))
    made = graph.stat().st_mtime_ns
    assert not build(places, tmp_path, "a" * 16, exact_items=0).exact
    assert graph.stat().st_mtime_ns > made
    assert json.loads(about.read_text()) == old


@pytest.mark.parametrize(("items", "effort"), [(1_500, 384), (500_000, 500), (1_000_000, 1000), (5_000_000, 2048)])
def test_more_items_are_searched_with_more_effort(items, effort):
    assert _graph(8, items).expansion_search == effort


@pytest.mark.parametrize("part", ["json", "safetensors", "usearch"])
def test_a_damaged_file_is_built_anew(places, tmp_path, part):
    build(places, tmp_path, "a" * 16, exact_items=0)
    path = next(tmp_path.glob(f"*.{part}"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    index = build(places, tmp_path, "a" * 16, exact_items=0)
    assert recall(index, places, places[:10], k=5, count=100) >= 0.95


def test_a_file_of_fewer_items_than_it_says_is_built_anew(places, tmp_path):
    build(places, tmp_path, "a" * 16, exact_items=0)
    mark = next(tmp_path.glob("*.json"))
    mark.write_text(json.dumps(json.loads(mark.read_text()) | {"built": 1499}))
    assert build(places, tmp_path, "a" * 16, exact_items=0).built == 1500


def test_a_folder_that_cannot_be_written_is_said(places, tmp_path):
    taken = tmp_path / "file"
    taken.write_text("")
    with pytest.raises(DataError, match="cannot write the index"):
        build(places, taken, "a" * 16, exact_items=0)


def test_an_index_without_a_graph_is_exact():
    assert Index(3).exact
    assert not Index(3, Turn(torch.zeros(1), torch.zeros(1, 1), torch.tensor(1.0)), object()).exact
