"""The same federation in one process and over the network: three real domains, real training, real processes."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.machine import DOMAINS, Machine, same, settings
from support.reading import words

from server import registry

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def machine(tiny_world, cache, tmp_path_factory):
    return Machine(tmp_path_factory.mktemp("machine"), tiny_world, cache)


def test_three_processes_give_the_adapter_of_one(machine, tiny_base):
    shared = ("--set", "federation.family=affinity", "--set", "model.shared_items=true")
    options = ("--settings", settings(machine.folder, tiny_base), "--rounds", 2, "--adversarial", *shared)
    _, expected = machine.simulate("one", "in-process", *options)
    codes, said, run = machine.deploy("three", options, "--base", tiny_base, "--share-items")
    assert codes == [0, 0, 0, 0], said
    found = registry.load_state(run)
    same(found.adapter, expected.adapter)
    same(found.memory, expected.memory)  # each domain's towers and item table
    assert {name.rpartition(".")[2] for name in found.memory if "items." in name} == {"bias", "vectors", "met", "pairs"}
    start = registry.load_state(run, 0)
    moved = {name for name, value in found.adapter.items() if not np.array_equal(value, start.adapter[name])}
    assert moved == {name for name in found.released if ".lora_" in name}  # towers move for each domain
    assert len(registry.read_rounds(run)) == 2
    for name in DOMAINS:
        home = machine.folder / "var" / "client" / name
        result = json.loads((home / "result.json").read_text())
        assert result["rounds"] == 2
        assert 0 < result["personal"]["hr@10"] <= 1
    users = {line.split("\t")[0] for name in DOMAINS for line in interactions(machine.world[name])}
    leaving = b"\n".join(path.read_bytes() for path in run.rglob("*") if path.is_file())
    assert not users & words(leaving)
    process = machine.start("client", "--domain", "video", "--cache", machine.cache, "recommend", "--history", "space")
    printed, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert "score" in printed


def interactions(folder):
    return next(Path(folder).glob("*.inter")).read_text(encoding="utf-8").splitlines()[1:]
