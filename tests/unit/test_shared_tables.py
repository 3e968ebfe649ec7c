import json

import numpy as np
import polars as pl
import pytest

from shared.errors import DataError
from shared.tables import Problem, Report, drop_rows, find_table, first_of_each, problem, read_table


def write(path, data):
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def read(path, data, required=("a",)):
    return read_table(write(path, data), required)


def test_atomic_gives_columns_types_and_lines(tmp_path):
    table = read(tmp_path / "x.item", "a:token\tb:token_seq\tc:float\td:float_seq\n1\tone two\t3.5\t1 2\n2\t\t\t\n")
    assert table.texts("b") == ["one two", ""]
    assert dict(table.types) == {"a": "text", "b": "text", "c": "number", "d": "number"}
    assert table.lines.tolist() == [2, 3]
    assert (len(table), table.rows_read, table.problems) == (2, 2, ())


def test_bom_and_crlf_are_tolerated(tmp_path):
    table = read(tmp_path / "x.item", "\ufeffa:token\tb:token\r\n1\tx\r\n2\ty\r\n\r\n")
    assert table.texts("b") == ["x", "y"]


def test_rows_with_a_wrong_number_of_fields_are_counted_by_line(tmp_path):
    table = read(tmp_path / "x.inter", "a:token\tb:token\n1\tx\n2\n\n3\tx\ty\n4\tz\n")
    assert table.texts("a") == ["1", "4"]
    assert table.lines.tolist() == [2, 6]
    assert table.problems == (Problem("row with a wrong number of fields", "dropped", 3, (3, 4, 5)),)
    assert table.rows_read == 5


def test_a_file_of_bad_rows_only_is_empty_not_broken(tmp_path):
    assert len(read(tmp_path / "x.inter", "a:token\tb:token\n1\n2\n")) == 0
    assert len(read(tmp_path / "y.inter", "a:token\tb:token")) == 0
    assert len(read(tmp_path / "z.csv", 'a,"b"\n')) == 0


@pytest.mark.parametrize("name", ["x.inter", "x.csv"])
def test_bytes_that_are_not_utf8_are_replaced_and_counted(tmp_path, name):
    separator = b"," if name == "x.csv" else b"\t"
    table = read(tmp_path / name, b"a:token|b:token\n1|caf\xe9\n2|caf\xc3\xa9\n".replace(b"|", separator), ())
    second = table.texts(list(table.types)[1])
    assert second == ["caf\ufffd", "café"]
    assert table.problems[0].lines == (2,)
    assert table.damaged(list(table.types)[1]).tolist() == [True, False]


def test_csv_takes_quotes_and_many_lines_in_a_cell(tmp_path):
    table = read(tmp_path / "x.csv", 'a,b\n1,"one, two"\n2,"say ""hi""\nand go"\n3,x,y\n4,z\n')
    assert table.texts("b") == ["one, two", 'say "hi"\nand go', "z"]
    assert table.lines.tolist() == [2, 4, 6]
    assert table.problems[0].lines == (5,)


def test_csv_columns_of_numbers_or_vectors_only_are_numbers(tmp_path):
    table = read(tmp_path / "x.csv", "a,b,c,d\nx,1.5,0.1 -2e3,[1 2]\ny,,3,4\n")
    assert dict(table.types) == {"a": "text", "b": "number", "c": "number", "d": "number"}


def test_parquet_gives_text_and_unix_seconds_and_leaves_vectors_and_durations_out(tmp_path):
    when = pl.Series("t", [0, 86_400_000_000], dtype=pl.Int64).cast(pl.Datetime("us"))
    frame = pl.DataFrame({"a": [7, None], "b": ["x", " y "], "v": [[1.0], [2.0]], "t": when, "d": when - when})
    frame.write_parquet(tmp_path / "x.parquet")
    table = read_table(tmp_path / "x.parquet", ("a",))
    assert table.texts("a") == ["7", ""]
    assert table.texts("b") == ["x", "y"]
    assert table.numbers("t")[0].tolist() == [0.0, 86_400.0]
    assert dict(table.types) == {"a": "number", "b": "text", "t": "number"}


def test_numbers_say_what_is_unreadable_and_not_what_is_empty(tmp_path):
    table = read(tmp_path / "x.inter", "a:token\tn:float\nu\t1.5\nu\t\nu\tnan\nu\tmany\nu\tinf\nu\t-2e3\n")
    values, bad = table.numbers("n")
    np.testing.assert_array_equal(values, [1.5, np.nan, np.nan, np.nan, np.inf, -2000])
    assert bad.tolist() == [False, False, True, True, False, False]


def test_codes_count_from_zero_in_order_of_appearance(tmp_path):
    table = read(tmp_path / "x.inter", "a:token\tb:token\nz\t1\n\t1\ny\t1\nz\t1\n")
    codes, names = table.codes("a")
    assert (codes.tolist(), names) == ([0, -1, 1, 0], ("z", "y"))
    assert table.codes("a", ["y"])[0].tolist() == [-1, -1, 0, -1]
    assert table.codes("a", [])[0].tolist() == [-1] * 4


def test_first_of_each_takes_nan_as_equal_to_nan():
    assert first_of_each(np.array([1, 1, 1]), np.array([np.nan, np.nan, 2.0])).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("x.inter", "", "empty file"),
        ("x.csv", "\n\n", "empty file"),
        ("x.inter", "a:token b:token\nsecret 2\n", "no tab in line 1"),
        ("x.inter", "secret\t5\nsecret\t6\n", "expected the columns a"),
        ("x.csv", "secret,5\n", "expected the columns a"),
        ("x.csv", "a,a\n1,2\n", "expected each column once"),
        ("x.csv", 'a,b\n1,"never closed\n2,x\n', "broken quotes up to line 3"),
        ("x.parquet", "secret, not parquet", "expected a Parquet file"),
    ],
)
def test_a_file_that_cannot_be_used_gives_one_error_and_no_content(tmp_path, name, data, says):
    with pytest.raises(DataError, match=says) as caught:
        read(tmp_path / name, data)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_that_is_not_there_is_a_data_error(tmp_path):
    for name in ("x.inter", "x.csv", "x.parquet"):
        with pytest.raises(DataError):
            read_table(tmp_path / name, ("a",))


def test_find_table_prefers_the_name_then_the_folder_then_the_only_one(tmp_path):
    folder = tmp_path / "books"
    folder.mkdir()
    with pytest.raises(DataError, match=r"neither NAME.item nor items.csv nor items.parquet"):
        find_table(folder, "item", "items")
    write(folder / "items.csv", "x")
    assert find_table(folder, "item", "items").name == "items.csv"
    write(folder / "old.item", "x")
    assert find_table(folder, "item", "items").name == "old.item"
    write(folder / "new.item", "x")
    with pytest.raises(DataError, match="2 files"):
        find_table(folder, "item", "items")
    write(folder / "books.item", "x")
    assert find_table(folder, "item", "items").name == "books.item"
    assert find_table(folder, "item", "items", "new").name == "new.item"
    with pytest.raises(DataError, match="expected a folder"):
        find_table(tmp_path / "nowhere", "item", "items")


def test_report_speaks_to_people_and_to_json():
    problems = problem("unreadable timestamp", "kept, time unknown", np.arange(2, 9)) + problem("x", "y", np.arange(0))
    report = Report("x.inter", 9, 8, problems)
    assert report.lines() == [
        "x.inter: 8 of 9 rows kept",
        "  7 x unreadable timestamp: kept, time unknown (line 2, 3, 4, 5, 6, ...)",
    ]
    again = json.loads(json.dumps(report.to_json()))
    assert again["problems"][0] == {
        "kind": "unreadable timestamp",
        "rule": "kept, time unknown",
        "count": 7,
        "lines": [2, 3, 4, 5, 6],
    }


@pytest.mark.parametrize(
    ("name", "text", "left"),
    [
        ("x.inter", "a:token\tuser_id:token\r\n1\tu\r\n2\t u \r\n3\tuu\r\n", "a:token\tuser_id:token\r\n3\tuu\r\n"),
        ("x.csv", 'user_id,t\nu,"a\nb"\n"u",c\nv,"d\n""e"\n', 'user_id,t\nv,"d\n""e"\n'),
        ("x.csv", "user_id,t\nu,1\nv,\udcff2", "user_id,t\nv,\udcff2"),
        ("x.csv", '\ufeff"user_id",t\nu,1\nv,2\n', '\ufeff"user_id",t\nv,2\n'),
        ("x.net", "source_id:token\ttarget_id:token\nv\tw\nw\tu\nu\tv\n", "source_id:token\ttarget_id:token\nv\tw\n"),
    ],
)
def test_rows_leave_a_file_and_nothing_else_changes(tmp_path, name, text, left):
    path = tmp_path / name
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert drop_rows(path, ("user_id", "source_id", "target_id"), "nobody") == 0
    assert path.read_bytes() == text.encode(errors="surrogateescape")
    assert drop_rows(path, ("user_id", "source_id", "target_id"), "u") > 0
    assert path.read_bytes() == left.encode(errors="surrogateescape")
    assert list(tmp_path.iterdir()) == [path]


def test_rows_leave_a_parquet_file(tmp_path):
    path = tmp_path / "interactions.parquet"
    pl.DataFrame({"user_id": ["u", "v", None], "n": [1, 2, 3]}).write_parquet(path)
    assert drop_rows(path, ("source_id", "target_id"), "u") == 0
    assert list(tmp_path.iterdir()) == [path]
    assert drop_rows(path, ("user_id",), "u") == 1
    assert pl.read_parquet(path)["n"].to_list() == [2, 3]
