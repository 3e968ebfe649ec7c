import pytest

from shared.catalog import Catalog
from shared.errors import DataError
from shared.knowledge import Knowledge, read_knowledge

ITEMS = ("i1", "i2", "i3")
CATALOG = Catalog("shop", ITEMS, ITEMS, ITEMS)
HEAD = "head_id:token\trelation_id:token\ttail_id:token\n"


def write(folder, facts, link=None):
    (folder / "shop.kg").write_bytes(HEAD.encode() + facts)
    if link is not None:
        (folder / "shop.link").write_text("item_id:token\tentity_id:token\n" + link)
    return read_knowledge(folder, "shop", CATALOG)


def test_facts_of_items_either_way_round(tmp_path):
    known, _ = write(tmp_path, b"i1\tbrand\tYamaha\nyamaha\tbrand\ti2\ni3\tbrand\tKorg\ni1\tgoes with\ti3\n")
    assert known.of_item(0) == known.of_item(1) == (("brand", "Yamaha"),)
    assert known.of_item(2) == ()  # nobody shares Korg
    assert known.of_item(3) == ()  # an item that came later
    assert known.links == {0: (("goes with", 2),), 2: (("goes with", 0),)}


def test_a_link_says_which_entity_an_item_is(tmp_path):
    facts = b"m.01\tartist\tm.09\nm.02\tartist\tm.09\ni3\tartist\tm.09\n"
    known, reports = write(tmp_path, facts, "i1\tm.01\ni2\tm.02\nnone\tm.03\n")
    assert known.facts.having("artist", "M.09").tolist() == [0, 1]
    assert [report.file for report in reports] == ["shop.link", "shop.kg"]
    assert reports[0].problems[0].kind == "item that is not in the catalogue"
    assert (reports[1].problems[0].kind, reports[1].problems[0].count) == ("fact that touches no item", 1)


def test_bad_rows_are_counted_and_left_out(tmp_path):
    facts = b"i1\tbrand\tA\ni2\tbrand\tA\ni1\tbrand\tA\ni3\t\tA\ni3\tbrand\n\xff\tbrand\ti3\n"
    known, (report,) = write(tmp_path, facts)
    assert known.facts.having("brand", "a").tolist() == [0, 1]
    assert (report.rows_read, report.rows_kept) == (6, 2)
    counts = {problem.kind: (problem.count, problem.lines) for problem in report.problems}
    assert counts["row given again"] == (1, (4,))
    assert counts["id missing"] == (1, (5,))
    assert counts["row with a wrong number of fields"] == (1, (6,))
    assert counts["id that is not UTF-8"] == (1, (7,))


def test_no_file_is_no_knowledge_and_a_wrong_one_an_error(tmp_path):
    assert read_knowledge(tmp_path, "shop", CATALOG) == (Knowledge(), ())
    (tmp_path / "shop.kg").write_text("head\ttail\na\tb\n")
    with pytest.raises(DataError, match="expected the columns head_id, relation_id, tail_id"):
        read_knowledge(tmp_path, "shop", CATALOG)


def test_more_facts_than_fit_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("shared.knowledge.MOST_FACTS", 1)
    with pytest.raises(DataError, match="at most 1 facts, found 2"):
        write(tmp_path, b"i1\tbrand\tA\ni2\tbrand\tA\n")
