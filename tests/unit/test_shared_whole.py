"""A file is replaced whole, or stays as it was."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shared.errors import DataError
from shared.whole import PUBLIC, aside, plain_name, read_json, read_lines, sweep, write_whole


def test_the_new_file_takes_the_place_of_the_old(tmp_path):
    path = tmp_path / "kept"
    write_whole(path, b"old")
    with aside(path) as made:
        made.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_after_an_error_all_is_as_before(tmp_path):
    path = tmp_path / "kept"
    write_whole(path, b"old")

    def fail():
        with aside(path) as made:
            made.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_who_may_read_is_said_from_the_start(tmp_path):
    before = os.umask(0o022)
    try:
        with aside(tmp_path / "own") as made:
            assert made.stat().st_mode & 0o777 == 0o600
            made.write_bytes(b"secret")
        write_whole(tmp_path / "known", b"to all", PUBLIC)
    finally:
        os.umask(before)
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "known").stat().st_mode & 0o777 == 0o644


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux which file a handle is of")
def test_it_is_on_the_disk_before_it_is_named(tmp_path, monkeypatch):
    done = []
    true_sync, true_replace = os.fsync, os.replace
    monkeypatch.setattr(
        "os.fsync", lambda handle: (done.append(str(Path(f"/proc/self/fd/{handle}").readlink())), true_sync(handle))
    )
    monkeypatch.setattr("os.replace", lambda *words: (done.append("named"), true_replace(*words)))
    write_whole(tmp_path / "kept", b"new")
    assert [one.split("kept.")[0] for one in done] == [f"{tmp_path}/.", "named", str(tmp_path)]


KILLED = """
import os, signal, sys
from pathlib import Path
from shared.whole import aside
with aside(Path(sys.argv[1])) as made:
    made.write_bytes(b"somebody's")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_swept_and_what_is_being_written_is_not(tmp_path):
    (tmp_path / "deep").mkdir()
    path = tmp_path / "deep/kept"
    write_whole(path, b"old")
    (tmp_path / ".hidden").touch()
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(path.parent.iterdir())) == 2
    with aside(tmp_path / "other") as made:
        made.write_bytes(b"new")
        sweep(tmp_path)
        assert made.exists()
    assert {one.name for one in tmp_path.rglob("*")} == {"deep", "kept", "other", ".hidden"}
    assert path.read_bytes() == b"old"


def test_lines_up_to_the_last_whole_one(tmp_path):
    path = tmp_path / "lines"
    assert read_lines(path) == []
    path.write_bytes(b'{"a": 1}\n{"a": 2}\n{"a": ')
    assert read_lines(path) == [{"a": 1}, {"a": 2}]
    for damaged in (b'{"a": 1}\n{"a"\n', b'{"a": 1}\n3\n', b'{"a": 1}\n[]\n'):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="line 2 is damaged; restore the file from a backup"):
            read_lines(path)
    path.write_bytes(b'{"a": 1')
    with pytest.raises(DataError, match="lines is missing or damaged; train again"):
        read_json(path, "train again")


def test_names_that_files_can_have():
    assert all(map(plain_name, ("video", "Klassik & Jazz", "книги", "a.b")))
    assert not any(map(plain_name, ("", ".", "..", ".a", "a/b", "a\\b", "a\0", "a'b", "a\nb", "я" * 101, "\udcff")))
