"""What comes in is on disk before it is answered, and nothing that was answered is lost."""

import errno
import os
import threading

import pytest

from client.journal import HIDE, Event, Feedback, Journal
from shared.catalog import NewItem
from shared.errors import DataError

ONE = Event("ann", "i1", "view", 5.0)
TWO = Feedback("bob", "i2", HIDE, 6.0, "not for me – 不要")
THREE = NewItem("i9", "A new film", "A new film. Drama")


def test_entries_are_read_back_as_they_were(tmp_path):
    journal = Journal(tmp_path / "in" / "journal.jsonl")
    journal.append([ONE, TWO])
    journal.append([THREE])
    again = Journal(journal.path)
    assert again.entries == [ONE, TWO, THREE]
    assert again.of(Event) == [ONE]
    assert journal.path.stat().st_mode & 0o777 == 0o600


def test_a_line_torn_off_by_a_crash_is_cut_and_the_next_one_stands_alone(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append([ONE, TWO])
    whole = journal.path.read_bytes()
    for cut in range(len(whole) - 1, whole.index(b"\n"), -7):
        journal.path.write_bytes(whole[:cut])
        again = Journal(journal.path)
        assert again.entries == [ONE]
        again.append([THREE])
        assert Journal(journal.path).entries == [ONE, THREE]


@pytest.mark.parametrize(
    "line", [b"{}\n", b'{"kind": "event", "user": "x"}\n', b'{"kind": "ghost"}\n', b"[]\n", b"\xff\n"]
)
def test_a_damaged_line_in_the_middle_is_told_by_its_number(tmp_path, line):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append([ONE])
    journal.path.write_bytes(journal.path.read_bytes() + line + journal.path.read_bytes())
    with pytest.raises(DataError, match=r"line 2: expected an entry"):
        Journal(journal.path)


def test_a_full_disk_keeps_nothing_and_what_was_there_stays(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append([ONE])
    before = journal.path.read_bytes()

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="nothing was kept, free space"):
        journal.append([TWO, THREE])
    assert journal.path.read_bytes() == before
    assert journal.entries == [ONE]


def test_writers_of_many_threads_lose_nothing(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    writers = [
        threading.Thread(target=lambda n=n: [journal.append([Event(f"u{n}", str(i), "view", 0.0)]) for i in range(10)])
        for n in range(4)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = Journal(journal.path).entries
    assert found == journal.entries
    assert {(entry.user, entry.item) for entry in found} == {(f"u{n}", str(i)) for n in range(4) for i in range(10)}


def test_rewriting_drops_what_is_not_to_be_kept(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append([ONE, TWO, THREE])
    assert journal.rewrite(lambda entry: getattr(entry, "user", None) != "bob") == 1
    assert journal.entries == Journal(journal.path).entries == [ONE, THREE]
    assert b"bob" not in journal.path.read_bytes()
    assert journal.rewrite(lambda entry: True) == 0
