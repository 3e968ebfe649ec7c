"""Attributes as a person would name them, by hand."""

import pytest

from shared.attributes import MOST_WORDS, read_attributes, values_of
from shared.catalog import Catalog


def catalog(**columns):
    count = len(next(iter(columns.values())))
    ids = tuple(f"i{row}" for row in range(count))
    return Catalog("shop", ids, ids, ids, {name: tuple(cells) for name, cells in columns.items()})


@pytest.mark.parametrize("mark", [", ", ";", " | "])
def test_marks_part_values(mark):
    assert values_of((f"Sea Story{mark}Comedy", "", "Comedy")) == [["Sea Story", "Comedy"], [], ["Comedy"]]


def test_a_mark_without_a_value_between_makes_none():
    assert values_of((",Drama,,", ";")) == [["Drama"], []]


def test_words_part_values_where_a_column_repeats_few_of_them():
    # Three different cells of two different words: a list of genres without marks.
    assert values_of(("Drama Comedy", "Comedy", "Drama", "")) == [["Drama", "Comedy"], ["Comedy"], ["Drama"], []]


def test_words_of_names_stay_together():
    # Two cells of four words: each is one name.
    assert values_of(("Blue Note", "Deutsche Grammophon")) == [["Blue Note"], ["Deutsche Grammophon"]]
    many = tuple(f"w{row}" for row in range(MOST_WORDS + 1))
    cells = (*(f"{word} {many[0]}" for word in many), *(f"{many[1]} {word}" for word in many))
    assert values_of(cells)[2] == ["w2 w0"]


def test_a_value_joins_the_items_that_have_it_case_aside():
    found = read_attributes(catalog(genre=("Comedy, Drama", "comedy", "", "War, Drama"), brand=("A", "B", "C", "D")))
    assert found.columns == ["genre"]  # no two items have one brand
    assert found.having("genre", "COMEDY").tolist() == [0, 1]
    assert found.having("genre", "drama").tolist() == [0, 3]
    assert found.of_item == (
        (("genre", "Comedy"), ("genre", "Drama")),
        (("genre", "Comedy"),),
        (),
        (("genre", "Drama"),),
    )


def test_what_nobody_has_or_one_alone_has_no_rows():
    found = read_attributes(catalog(genre=("War", "Comedy", "Comedy")))
    assert not len(found.having("genre", "war"))
    assert not len(found.having("genre", "western"))
    assert not len(found.having("maker", "comedy"))


def test_a_value_told_twice_of_one_item_counts_once():
    found = read_attributes(catalog(genre=("Drama, drama, DRAMA", "War, Comedy", "War, war")))
    assert found.having("genre", "war").tolist() == [1, 2]
    assert not len(found.having("genre", "drama"))  # one item alone has it, whatever its spellings
    assert found.of_item[2] == (("genre", "War"),)


def test_common_values_come_by_how_many_have_them_then_by_name():
    found = read_attributes(catalog(genre=("b,a", "b,c", "a,c", "b,C")))
    assert found.common("genre", 2) == [("b", 3), ("c", 3)]
    assert found.common("genre", 9) == [("b", 3), ("c", 3), ("a", 2)]
    assert found.common("maker", 9) == []
