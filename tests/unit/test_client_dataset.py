import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from client.dataset import read_domain
from client.splits import split
from shared.catalog import BEHAVIOURS
from shared.errors import DataError

REAL = Path(__file__).parents[3] / "shared" / "data"
ITEMS = "item_id:token\ttitle:token_seq\n" + "".join(f"i{n}\titem {n}\n" for n in range(9))
HEAD = "user_id:token\titem_id:token\tbehavior:token\ttimestamp:float\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "shop.item").write_text(ITEMS)
    return tmp_path


def domain(folder, text):
    (folder / "shop.inter").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_domain(folder)


def problems(read):
    return {p.kind: (p.rule, p.count, p.lines) for report in read.reports for p in report.problems}


def code(name):
    return BEHAVIOURS.index(name)


def test_rows_come_sorted_by_user_then_time_and_ties_keep_the_file_order(folder):
    rows = "ann\ti3\tbuy\t50\nbob\ti1\tclick\t9\nann\ti2\tview\t40\nann\ti0\tview\t50\nann\ti5\tlike\t\n"
    read = domain(folder, HEAD + rows)
    data = read.interactions
    assert data.user_ids == ("ann", "bob")
    assert data.users.tolist() == [0, 0, 0, 0, 1]
    assert data.items.tolist() == [5, 2, 3, 0, 1]  # the unknown time counts as the oldest
    assert data.behaviours.tolist() == [code(name) for name in ("like", "view", "buy", "view", "click")]
    np.testing.assert_array_equal(data.times, [np.nan, 40, 50, 50, 9])
    assert data.weights.tolist() == [1.0] * 5
    types = (data.users.dtype, data.items.dtype, data.behaviours.dtype, data.times.dtype, data.weights.dtype)
    assert types == (np.int32, np.int32, np.int8, np.float64, np.float32)
    assert problems(read) == {}


def test_a_file_of_users_that_nothing_reads_is_told(folder):
    (folder / "friends.net").write_text("source_id:token\ttarget_id:token\nann\tbob\n")
    read = domain(folder, HEAD + "ann\ti3\tbuy\t50\n")
    last = read.describe().splitlines()[-1]
    assert last == "  friends.net: neither read nor erased when a user is forgotten; name it shop.net"
    (folder / "friends.net").rename(folder / "shop.net")
    assert "neither" not in read.describe()


def test_every_bad_row_counts_once_under_its_rule(folder):
    rows = [
        b"ann\ti1\tbuy\t10",  # 2
        b"ann\tnowhere\tbuy\t11",  # 3 unknown item
        b"\ti1\tbuy\t11",  # 4 missing
        b"ann\t\tbuy\t11",  # 5 missing
        b"an\xff\ti1\tbuy\t11",  # 6 damaged
        b"ann\ti1\tbuy\t10",  # 7 again
        b"ann\ti1\tbuy\t12",  # 8 another time, another row
        b"ann\ti1\tclick\t12",  # 9 another behaviour
        b"ann\ti2\tteleport\t13",  # 10
        b"ann\ti3\tbuy\tyesterday",  # 11
        f"ann\ti4\tbuy\t{time.time() + 2 * 86_400}".encode(),  # 12
        b"ann\ti4\tbuy",  # 13
        f"ann\ti5\tbuy\t{time.time() + 3600}".encode(),  # 14 within a day: clocks differ
        b"ann\ti6\t\t15",  # 15 no behaviour given: other, no problem
    ]
    read = domain(folder, HEAD.encode() + b"\n".join(rows))
    assert problems(read) == {
        "item that is not in the catalogue": ("dropped", 1, (3,)),
        "user or item id missing": ("dropped", 2, (4, 5)),
        "user or item id that is not UTF-8": ("dropped", 1, (6,)),
        "text that is not UTF-8": ("kept with \ufffd for the bad bytes", 1, (6,)),
        "row given again": ("kept once", 1, (7,)),
        "behaviour with an unknown name": ('kept as "other"', 1, (10,)),
        "unreadable timestamp": ("kept, time unknown", 1, (11,)),
        "timestamp in the future": ("dropped", 1, (12,)),
        "row with a wrong number of fields": ("dropped", 1, (13,)),
    }
    assert len(read.interactions) == 7
    assert (read.reports[1].rows_read, read.reports[1].rows_kept) == (14, 7)
    assert read.interactions.behaviours[read.interactions.items == 2].tolist() == [0]
    text = read.describe()
    assert "7 of 14 rows kept" in text
    assert "1 users, 9 items (5 with interactions), 7 interactions" in text
    assert "line 4, 5" in text
    assert "ann" not in text
    assert "nowhere" not in text


def test_ratings_that_make_no_sense_weigh_one(folder):
    rows = (
        "ann\ti0\t4.5\nann\ti1\tnan\nann\ti2\t-3\nann\ti3\tinf\nann\ti4\tgood\nann\ti5\t\nann\ti6\t1e300\nann\ti7\t0\n"
    )
    read = domain(folder, "user_id:token\titem_id:token\trating:float\n" + rows)
    assert read.interactions.weights.tolist() == [4.5, 1, 1, 1, 1, 1, 1, 0]
    assert problems(read)["rating that is no number, negative or infinite"][2] == (3, 4, 5, 6, 8)


def test_without_timestamps_the_order_is_the_files_and_duplicates_go_by_behaviour(folder):
    read = domain(
        folder, "user_id:token\titem_id:token\tbehaviour:token\nu\ti2\tbuy\nu\ti1\tbuy\nu\ti2\tbuy\nu\ti2\tlike\n"
    )
    assert read.interactions.items.tolist() == [2, 1, 2]
    assert np.isnan(read.interactions.times).all()
    assert problems(read) == {"row given again": ("kept once", 1, (4,))}


def test_milliseconds_become_seconds(folder):
    read = domain(folder, HEAD + "u\ti1\tbuy\t1700000000500\nu\ti2\tbuy\t1700000100000\n")
    assert read.interactions.times.tolist() == [1_700_000_000.5, 1_700_000_100.0]
    assert problems(read)["timestamp in a finer unit than seconds"][0] == "kept, divided by 1,000"


def test_what_one_users_times_are_in_says_nothing_of_anothers(folder):
    rows = "ms\ti1\tbuy\t1700000000500\ns\ti1\tbuy\t1700000100\nus\ti2\tbuy\t1700000200000000\nu\ti2\tbuy\t3\n"
    for more in (
        "",
        *(f"{unit}{n}\ti1\tbuy\t{at}\n" for n in (1, 2, 3) for unit, at in (("s", 17), ("ms", 17e12))),
    ):
        rows += more
        times = dict(zip(*read_times(domain(folder, HEAD + rows)), strict=True))
        assert [times[user] for user in ("ms", "s", "us", "u")] == [
            1_700_000_000.5,
            1_700_000_100.0,
            1_700_000_200.0,
            3,
        ]


def read_times(read):
    data = read.interactions
    return [data.user_ids[user] for user in data.users], data.times.tolist()


def test_users_without_a_usable_row_are_not_counted(folder):
    read = domain(folder, HEAD + "ghost\tnowhere\tbuy\t1\nann\ti1\tbuy\t1\n")
    assert read.interactions.user_ids == ("ann",)
    assert read.interactions.users.tolist() == [0]


@pytest.mark.parametrize("rows", ["", "u\tnowhere\tbuy\t1\n", "u\n"])
def test_nothing_usable_is_an_error(folder, rows):
    with pytest.raises(DataError, match="at least one usable interaction"):
        domain(folder, HEAD + rows)


@pytest.mark.parametrize("text", ["", "user_id item_id\n", "u\ti1\tbuy\t1\n", "user_id:token\ttime:float\nu\t1\n"])
def test_an_empty_file_or_a_broken_header_is_one_clear_error(folder, text):
    with pytest.raises(DataError, match=r"shop\.inter: expected"):
        domain(folder, text)


def test_no_interactions_file_is_an_error(folder):
    with pytest.raises(DataError, match=r"neither NAME\.inter nor interactions\.csv"):
        read_domain(folder)


def test_csv_and_parquet_read_like_atomic_files(folder):
    atomic = domain(folder, HEAD + "u\ti1\tbuy\t10\nv\ti2\tclick\t11\nu\ti3\tbuy\t9\n").interactions
    (folder / "shop.inter").unlink()
    frame = pl.DataFrame(
        {
            "timestamp": [10, 11, 9],
            "user_id": ["u", "v", "u"],
            "item_id": ["i1", "i2", "i3"],
            "behavior": ["buy", "click", "buy"],
        }
    )
    frame.write_csv(folder / "interactions.csv")
    from_csv = read_domain(folder).interactions
    (folder / "interactions.csv").unlink()
    frame.write_parquet(folder / "interactions.parquet")
    from_parquet = read_domain(folder).interactions
    for other in (from_csv, from_parquet):
        assert other.user_ids == atomic.user_ids
        for column in ("users", "items", "behaviours", "times", "weights"):
            np.testing.assert_array_equal(getattr(other, column), getattr(atomic, column))


def test_the_name_goes_to_the_domain(folder):
    (folder / "shop.inter").write_text(HEAD + "u\ti1\tbuy\t10\n")
    assert read_domain(folder).name == "shop"
    assert read_domain(folder, name="kiosk", template="{title}!").catalog.texts[0] == "item 0!"
    assert read_domain(folder, name="kiosk").name == "kiosk"


@pytest.mark.skipif(not (REAL / "shop/games").is_dir(), reason="the real shop data are not on this machine")
def test_real_games_name_items_that_are_not_listed():
    read = read_domain(REAL / "shop/games")
    rule, count, _ = problems(read)["item that is not in the catalogue"]
    assert (rule, count) == ("dropped", 440)
    assert (len(read.interactions.user_ids), len(read.catalog), len(read.interactions)) == (50_546, 16_845, 452_549)
    assert len(split(read.interactions, "loo").test) == 50_546


@pytest.mark.skipif(not (REAL / "media/music").is_dir(), reason="the real music data are not on this machine")
def test_real_music_has_two_behaviours_and_listens_without_time():
    data = read_domain(REAL / "media/music").interactions
    listens = data.behaviours == code("listen")
    assert set(np.unique(data.behaviours)) == {code("listen"), code("tag")}
    assert np.isnan(data.times[listens]).all()
    assert np.isfinite(data.times[~listens]).all()
    assert data.weights[listens].max() > 100_000
