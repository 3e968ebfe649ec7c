"""The log of what was shown: a chain that any change breaks, of bounded size, that forgets and does not wait."""

import json
import resource
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import client.shown as shown
from client.shown import START, ShownLog, Writer


def body(user: str, *items: str) -> dict:
    return {"kind": "answer", "at": 1.0, "user": user, "items": list(items)}


def filled(folder, count=5) -> ShownLog:
    log = ShownLog(folder)
    log.append([body(f"u{n % 2}", f"i{n}") for n in range(count)])
    return log


def test_each_record_holds_the_hash_before_it(tmp_path):
    log = filled(tmp_path / "shown", 2)
    filled(tmp_path / "shown", 1)  # another process goes on
    log.append([body("u9", "i9")])  # and this one notices
    records = list(log.records())
    assert [record.number for record in records] == [1, 2, 3, 4]
    assert [record.previous for record in records] == [START, *(record.hash for record in records[:-1])]
    assert records[3].body["items"] == ["i9"]
    found = log.check()
    assert (found.records, found.first, found.last, found.head, found.broken) == (4, 1, 4, records[3].hash, "")
    for path in (tmp_path / "shown").iterdir():
        assert path.stat().st_mode & 0o077 == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.sampled_from(["change", "take out", "swap", "repeat", "rehash"]))
def test_any_change_is_named(tmp_path_factory, line, what):
    folder = tmp_path_factory.mktemp("log")
    log = filled(folder, 6)
    (path,) = log.segments()
    lines = path.read_bytes().splitlines(keepends=True)
    number = line - 1
    if what == "change":
        lines[line - 1] = lines[line - 1].replace(b'"i', b'"j')
    elif what == "take out":
        del lines[line - 1]
    elif what == "swap":
        lines[line - 1], lines[line] = lines[line], lines[line - 1]
    elif what == "repeat":
        lines.insert(line, lines[line - 1])
        number += 1
    else:  # content and its hash changed together: the next one tells
        about = json.loads(lines[line - 1])
        about["body"]["items"] = ["other"]
        about["content"] = shown._sha_of(about["body"])
        lines[line - 1] = json.dumps(about).encode() + b"\n"
        number += 1
    path.write_bytes(b"".join(lines))
    assert ShownLog(folder).check().broken.startswith(f"record {number} ")


def test_a_cut_end_is_noticed_by_who_saw_it(tmp_path):
    log = filled(tmp_path)
    seen = log.check()
    known = {seen.last: seen.head}
    log.append([body("u1", "i1")])
    assert log.check(known).broken == ""
    assert log.check({seen.last: START}).broken == "record 5 is not the one that an audit saw"
    (path,) = log.segments()
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:4]))
    assert log.check().broken == ""
    assert log.check(known).broken == "record 4 and those behind it are gone: an audit saw 5"
    path.unlink()
    assert log.check(known).broken == "record 5 and all others are gone"


def test_a_torn_line_is_cut_and_the_chain_goes_on(tmp_path):
    log = filled(tmp_path)
    (path,) = log.segments()
    with path.open("ab") as file:
        file.write(b'{"n":6,"previous":"ab')
    assert log.check().broken == ""
    ShownLog(tmp_path).append([body("u1", "i6")])
    found = log.check()
    assert (found.records, found.broken) == (6, "")


def test_old_segments_go_whole_and_leave_an_anchor(tmp_path):
    log = ShownLog(tmp_path, most_bytes=6000, segment_bytes=1500)
    for n in range(60):
        log.append([body("u", f"i{n}")])
    assert sum(path.stat().st_size for path in log.segments()) < 6000 + 1500
    found = log.check()
    assert (found.last, found.broken) == (60, "")
    assert found.first > 30
    assert found.records == 60 - found.first + 1
    before = [path.read_bytes() for path in log.segments()[:1]]
    first = log.segments()[0]
    log.append([body("u", "i")] * 12)  # the oldest goes
    assert not first.exists()
    first.write_bytes(before[0])  # as a crash between anchor and unlink leaves it
    found = log.check()
    assert (found.last, found.broken) == (72, "")
    first.unlink()
    log.segments()[0].unlink()  # by hand
    assert log.check().broken == f"record {found.first}: {log.segments()[0].name} does not follow"


def test_who_is_forgotten_leaves_the_chain_whole(tmp_path):
    log = filled(tmp_path, 6)
    assert log.empty(lambda one: one.get("user") == "u1") == 3
    assert log.empty(lambda one: one.get("user") == "u1") == 0
    assert b'"u1"' not in log.segments()[0].read_bytes()
    found = log.check()
    assert (found.records, found.emptied, found.last, found.broken) == (7, 3, 7, "")
    (path,) = log.segments()
    lines = path.read_bytes().splitlines(keepends=True)
    about = json.loads(lines[1]) | {"body": None}  # somebody else takes a content out
    path.write_bytes(b"".join([lines[0], json.dumps(about).encode() + b"\n", *lines[2:]]))
    assert log.check().broken == "4 records are without content, the forgetting of 3 is told of"


def test_a_forgetting_that_was_stopped_is_finished_by_the_next(tmp_path, monkeypatch):
    log = filled(tmp_path, 6)
    with monkeypatch.context() as stopped:
        stopped.setattr(shown, "write_whole", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            log.empty(lambda one: one.get("user") == "u1")
    assert ShownLog(tmp_path).empty(lambda one: one.get("user") == "u1") == 3
    found = ShownLog(tmp_path).check()
    assert (found.emptied, found.broken) == (3, "")


def test_the_writer_hashes_users_and_loses_nothing_it_took(tmp_path):
    writer = Writer(ShownLog(tmp_path), lambda user: f"hash of {user}")
    for n in range(700):
        writer.put(body("" if n % 7 else "u1", f"i{n}"))
    writer.close()
    records = list(ShownLog(tmp_path).records())
    assert [record.body["items"] for record in records] == [[f"i{n}"] for n in range(700)]
    assert {record.body["user"] for record in records} == {"", "hash of u1"}


def test_the_end_does_not_wait_for_more_to_come(tmp_path, monkeypatch):
    monkeypatch.setattr(shown, "LINGER_S", 3600.0)
    writer = Writer(ShownLog(tmp_path), str)
    writer.put(body("u1", "i0"))
    writer.close()
    assert [record.body["items"] for record in ShownLog(tmp_path).records()] == [["i0"]]


def test_a_full_memory_and_a_full_disk_are_counted_and_nobody_waits(tmp_path, monkeypatch):
    monkeypatch.setattr(shown, "WAITING", 3)
    monkeypatch.setattr(shown, "LINGER_S", 0.01)
    log, stuck, said = ShownLog(tmp_path), threading.Event(), []
    taken = threading.Event()
    append = log.append

    def full(bodies):
        taken.set()
        stuck.wait(20)
        monkeypatch.setattr(log, "append", append)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log, "append", full)
    writer = Writer(log, str, said.append)
    writer.put(body("u", "i0"))
    assert taken.wait(20)
    for n in range(1, 8):
        writer.put(body("u", f"i{n}"))
    stuck.set()
    writer.close()
    records = [record.body for record in ShownLog(tmp_path).records()]
    assert [record["items"] for record in records if record["kind"] == "answer"] == [["i1"], ["i2"], ["i3"]]
    assert sum(record["records"] for record in records if record["kind"] == "lost") == 5  # 1 on the disk, 4 in memory
    assert len(said) == 1
    assert "No space left" in said[0]


def test_what_the_disk_does_not_take_whole_is_not_in_the_chain(tmp_path):
    log = filled(tmp_path)
    (path,) = log.segments()
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 1000, limits[1]))  # two records and a part of the third
    try:
        with pytest.raises(OSError, match="large"):
            log.append([body("u1", f"i{n}") for n in range(9)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    log.append([body("u1", "later")])
    assert (log.check().records, log.check().broken) == (6, "")


def test_records_are_not_lost_where_a_new_segment_cannot_begin(tmp_path, monkeypatch):
    log = ShownLog(tmp_path, segment_bytes=1000)
    log.append([body("u1", "i0")])

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shown, "write_whole", full)
        log.append([body("u1", f"i{n}") for n in range(1, 6)])
    log.append([body("u1", "i6")])
    log.append([body("u1", "i7")])
    assert len(log.segments()) == 2
    assert (log.check().records, log.check().broken) == (8, "")
