"""Block-lists and age gates: what the file may say, whom it strikes, and that lists stay full."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.rules import NOBODY, Rules, holds_any, judge, read_rules
from shared.catalog import Catalog, NewItem
from shared.errors import ConfigError

TITLES = ("A gun for hire", "The gunner", "New  York diary", "网上赌博指南", "iPhone枪", "Quiet music")
CATALOG = Catalog(
    "shop",
    tuple("abcdef"),
    TITLES,
    (*TITLES[:5], "quiet music, with a GUN\u200b"),
    {"genre": ("War", "War, Comedy", "", "Horror", "comedy", "Calm"), "brand": ("X", "Y", "X", "X", "X", "X")},
)


def rules_of(tmp_path, text: str) -> Rules:
    path = tmp_path / "rules.toml"
    path.write_text(text, encoding="utf-8")
    return read_rules(path)


@pytest.mark.parametrize(
    ("word", "struck"),
    [
        ("Gun", "af"),
        ("gunner", "b"),
        ("new york", "c"),
        ("赌博", "d"),
        ("枪", "e"),
        ("iphone", "e"),
        ("gun枪", ""),
        ("un", ""),
        ("music,", "f"),
        ("ｇｕｎ", "af"),  # full width
    ],
)
def test_a_word_strikes_where_it_stands_whole(tmp_path, word, struck):
    verdict = judge(rules_of(tmp_path, f'[block]\nwords = ["{word}"]'), CATALOG)
    assert "".join(np.array(CATALOG.ids)[verdict.least_age == NOBODY]) == struck
    assert verdict.counts == {"block.words": len(struck)}


def test_items_categories_and_the_strictest_of_several(tmp_path):
    text = """
    [block]
    items = ["a", "not there"]
    [age.12]
    categories = {genre = ["war"], brand = ["Y"]}
    [age.18]
    categories = {genre = ["Comedy"]}
    words = ["quiet"]
    """
    verdict = judge(rules_of(tmp_path, text), CATALOG)
    assert verdict.least_age.tolist() == [NOBODY, 18, 0, 0, 18, 18]
    names = [rule.name for rule in verdict.rules.rules]
    assert names[:3] == ["block.items", "age.18.words", "age.18.categories.genre"]
    assert verdict.counts["age.12.categories.genre"] == 2  # what a stricter rule strikes too
    assert verdict.counts["age.12.categories.brand"] == 1  # a value that one item alone has
    assert [verdict.gate(age) for age in (None, 11, 12, 17, 18, 99)] == [0, 0, 0, 0, 18, 18]  # nothing is left at 12
    assert [names[by] if by >= 0 else "" for by in verdict.by][1:3] == ["age.18.categories.genre", ""]


def test_new_items_are_judged_as_if_they_had_always_been_there(tmp_path):
    rules = rules_of(tmp_path, '[age.16]\ncategories = {genre = ["War"]}\nwords = ["gun"]\n[block]\nitems = ["n2"]')
    new = [NewItem("n1", "New", "a gun"), NewItem("n2", "New", "new"), NewItem("n3", "x", "x", {"genre": "war, Drama"})]
    more = CATALOG.with_items(new)
    verdict = judge(rules, CATALOG).of_more(more)
    assert verdict.least_age[-3:].tolist() == [16, NOBODY, 16]
    assert [verdict.rules.rules[by].name for by in verdict.by[-3:]] == [
        "age.16.words",
        "block.items",
        "age.16.categories.genre",
    ]
    assert verdict.counts == {"block.items": 1, "age.16.words": 3, "age.16.categories.genre": 3}
    whole = judge(rules, more)
    assert (verdict.least_age.tolist(), verdict.by.tolist()) == (whole.least_age.tolist(), whole.by.tolist())
    assert verdict.for_all.tolist() == [age == 0 for age in whole.least_age]


def test_a_review_blocks_beside_the_file(tmp_path):
    rules = rules_of(tmp_path, '[block]\nwords = ["gun"]')
    more = rules.with_reviewed({"f"})
    assert judge(more, CATALOG).counts == {"review": 1, "block.words": 2}
    assert rules.with_reviewed(()) == rules
    assert len({rules.version, more.version, rules.with_reviewed({"e"}).version, Rules().version}) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[blocked]\nwords = ["a"]', "has no section [blocked]"),
        ('[block]\nword = ["a"]', "[block] has no setting 'word'"),
        ('[block]\nwords = "a"', "block.words: expected a list"),
        ("[block]\nwords = [3]", "block.words: expected str, found 3"),
        ('[block]\nwords = [" "]', "block.words: expected texts that are not empty"),
        ('[block]\ncategories = ["a"]', "block.categories: expected a table"),
        ('[block.categories]\ngenre = "War"', "block.categories.genre: expected a list"),
        ('[age.none]\nwords = ["a"]', "[age.none]: expected years from 1 to 150"),
        ('[age.0]\nwords = ["a"]', "[age.0]: expected years"),
        ("[age]\n18 = 3", "age.18: expected a section"),
        ('words = ["a"]', "'words' stands outside a section"),
        ("[block", "is not a TOML file"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(tmp_path, text, message):
    with pytest.raises(ConfigError) as error:
        rules_of(tmp_path, text)
    assert message in str(error.value)
    assert "rules.toml" in str(error.value)
    assert "\n" not in str(error.value).replace(str(tmp_path), "")


def test_a_column_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"age.9.categories.tag: shop has no column 'tag'; it has genre, brand"):
        judge(rules_of(tmp_path, '[age.9]\ncategories = {tag = ["x"]}'), CATALOG)


def test_no_file_is_no_rule(tmp_path):
    assert judge(read_rules(tmp_path / "none.toml"), CATALOG).least_age.tolist() == [0] * 6


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip), st.text(st.characters(codec="utf-8")))
def test_any_word_is_found_between_spaces_and_none_breaks_the_search(word, text):
    from client.rules import _plain

    if not _plain(word):
        return
    assert holds_any([word])(_plain(f"a {word} b"))
    holds_any([word])(_plain(text))
