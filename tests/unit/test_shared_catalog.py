import polars as pl
import pytest

from shared.catalog import BEHAVIOURS, Catalog, behaviour_code, read_catalog
from shared.errors import DataError

BOOKS = "item_id:token\ttitle:token_seq\tauthor:token\tpages:float\nb1\tDune\tHerbert\t600\nb2\tEmma\t\t400\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "books").mkdir()
    return tmp_path / "books"


def catalog(folder, text=BOOKS, **how):
    (folder / "books.item").write_bytes(text.encode() if isinstance(text, str) else text)
    return read_catalog(folder, **how)


def kinds(report):
    return {p.kind: (p.count, p.lines) for p in report.problems}


def test_default_text_is_the_title_and_every_other_column_of_text(folder):
    books, report = catalog(folder)
    assert books.texts == ("Dune. Herbert", "Emma")
    assert (books.domain, books.ids, books.titles, len(books)) == ("books", ("b1", "b2"), ("Dune", "Emma"), 2)
    assert books.row == {"b1": 0, "b2": 1}
    assert (report.rows_read, report.rows_kept, report.problems) == (2, 2, ())


@pytest.mark.parametrize(
    ("template", "texts"),
    [
        ("{title} ({author})", ("Dune (Herbert)", "Emma")),
        ("{author}: {title}", ("Herbert: Dune", "Emma")),
        ("Book {title}, by {author}, {pages} pages.", ("Book Dune, by Herbert, 600 pages.", "Book Emma, 400 pages.")),
        ("{title}\n  {author}", ("Dune Herbert", "Emma")),
    ],
)
def test_templates_leave_no_stray_punctuation(folder, template, texts):
    assert catalog(folder, template=template)[0].texts == texts


def test_domain_toml_names_the_domain_and_its_text(folder):
    (folder / "domain.toml").write_text('name = "novels"\ntext = "{author}"\n')
    books, _ = catalog(folder)
    assert (books.domain, books.texts) == ("novels", ("Herbert", ""))
    assert catalog(folder, name="mine", template="{title}")[0].domain == "mine"


@pytest.mark.parametrize("template", ["{colour}", "{title", "no column", "{}"])
def test_a_template_that_makes_no_sense_is_refused(folder, template):
    with pytest.raises(DataError, match="text template"):
        catalog(folder, template=template)


@pytest.mark.parametrize("name", ["../../evil", "a/b", ".hidden", ""])
def test_a_domain_is_not_named_by_a_place(folder, name):
    """Its folder in a run directory has this name."""
    (folder / "domain.toml").write_text(f'name = "{name}"\n')
    with pytest.raises(DataError, match="expected a name that a folder can have"):
        catalog(folder)


@pytest.mark.parametrize("settings", ["text = ", "text = 3", 'colour = "red"'])
def test_a_broken_domain_toml_is_refused(folder, settings):
    (folder / "domain.toml").write_text(settings)
    with pytest.raises(DataError, match=r"domain\.toml"):
        catalog(folder)


def test_bad_rows_are_dropped_or_kept_by_rule(folder):
    rows = b"b1\tDune\nb1\tDune again\n\tnameless\nb\xff\tbroken id\nb2\t\nb3\tcaf\xe9\n"
    books, report = catalog(folder, b"item_id:token\ttitle:token_seq\n" + rows)
    assert books.ids == ("b1", "b2", "b3")
    assert books.texts == ("Dune", "", "caf\ufffd")
    assert kinds(report) == {
        "text that is not UTF-8": (2, (5, 7)),
        "item without an id": (1, (4,)),
        "item id that is not UTF-8": (1, (5,)),
        "item listed again": (1, (3,)),
        "item without text": (1, (6,)),
    }
    assert (report.rows_read, report.rows_kept) == (6, 3)


def test_no_item_at_all_is_an_error(folder):
    with pytest.raises(DataError, match="at least one item"):
        catalog(folder, "item_id:token\ttitle:token_seq\n")


def test_csv_and_parquet_say_the_same(folder):
    frame = pl.DataFrame({"item_id": ["1", "2"], "title": ['A "b", c', None], "kind": ["x", "y"], "price": [1.5, None]})
    frame.write_csv(folder / "items.csv")
    from_csv, _ = read_catalog(folder)
    (folder / "items.csv").unlink()
    frame.write_parquet(folder / "items.parquet")
    from_parquet, _ = read_catalog(folder)
    assert from_csv == from_parquet
    assert from_csv.texts == ('A "b", c. x', "y")
    assert from_csv.domain == "books"


def test_fingerprint_hears_ids_and_texts_and_not_the_domain():
    one = Catalog("a", ("1", "2"), ("t", "t"), ("x", "y"))
    assert one.fingerprint == Catalog("b", ("1", "2"), ("other", "t"), ("x", "y")).fingerprint
    assert one.fingerprint != Catalog("a", ("1", "2"), ("t", "t"), ("x", "z")).fingerprint
    assert one.fingerprint != Catalog("a", ("2", "1"), ("t", "t"), ("x", "y")).fingerprint
    assert Catalog("a", ("1", "2"), ("", ""), ("xy", "")).fingerprint != one.fingerprint


def test_behaviours_have_codes():
    assert len(BEHAVIOURS) == len(set(BEHAVIOURS)) == 16
    assert [behaviour_code(name) for name in BEHAVIOURS] == list(range(16))
    assert behaviour_code(" Buy ") == behaviour_code("buy")
    assert behaviour_code("teleport") == 0
