"""A folder that came from elsewhere is read with limits, and what is wrong with it is told in one line."""

import hashlib
import json

import pytest
from support.tiny_federation import begin_run
from support.tiny_members import tiny_plan

from server import registry
from server.export import export
from shared import exported
from shared.errors import DataError
from shared.exported import ADAPTER, MANIFEST, TOWERS, read_exported


@pytest.fixture
def folder(tiny_base, tmp_path):
    begin_run(tmp_path / "run", tiny_plan(tiny_base))
    export(tmp_path / "run", tmp_path / "model")
    return tmp_path / "model"


def test_what_was_written_is_read(folder, tmp_path):
    found, state = read_exported(folder), registry.load_state(tmp_path / "run")
    assert found.adapter.keys() == state.adapter.keys()
    assert all((found.adapter[name] == value).all() for name, value in state.adapter.items())
    assert (found.round, found.base) == (0, state.base)
    assert found.plan.train == state.plan.train


@pytest.mark.parametrize("name", [ADAPTER, TOWERS])
def test_files_that_are_not_those_of_the_manifest(folder, name):
    raw = (folder / name).read_bytes()
    (folder / name).write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(DataError, match="is damaged: its SHA-256"):
        read_exported(folder)
    (folder / name).unlink()
    with pytest.raises(DataError, match="expected a file at"):
        read_exported(folder)


@pytest.mark.parametrize("raw", [b"", b"no tensors", b"\xff" * 64, (2**60).to_bytes(8, "little") + b"{}"])
def test_files_that_hold_no_tensors(folder, raw):
    (folder / TOWERS).write_bytes(raw)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["sha256"][TOWERS] = hashlib.sha256(raw).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="holds no tensors"):
        read_exported(folder)


def test_files_beyond_the_limits(folder, monkeypatch):
    monkeypatch.setattr(exported, "MOST_BYTES", 100)
    with pytest.raises(DataError, match="expected at most 100 bytes"):
        read_exported(folder)
    monkeypatch.setattr(exported, "MOST_MANIFEST", 10)
    with pytest.raises(DataError, match="expected at most 10 bytes"):
        read_exported(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"base": 7},
        {"round": -1},
        {"round": True},
        {"sha256": {}},
        {"sha256": 3},
        {"plan": {"model": {"hidden": "wide"}}},
        {"plan": []},
    ],
)
def test_manifests_that_are_none(folder, change):
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, **change}))
    with pytest.raises(DataError, match="export it"):
        read_exported(folder)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_object(folder, raw):
    (folder / MANIFEST).write_bytes(raw)
    with pytest.raises(DataError, match="export it again"):
        read_exported(folder)
