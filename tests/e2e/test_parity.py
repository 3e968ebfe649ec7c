"""The same federation through every carrier: three real domains, real training, real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.reading import words
from support.tiny_members import TINY

from server import registry
from shared.ledger import read_events
from shared.processes import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
DOMAINS = ("news", "shop", "video")
# Sums in one process and in another may differ in the last bit where a library picks another kernel.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}


def settings(folder, base):
    """A settings file for all carriers."""
    lines = [f'"{key.split(".")[1]}" = {value}' for key, _, value in (text.partition("=") for text in TINY)]
    tables: dict[str, list[str]] = {}
    for text, line in zip(TINY, lines, strict=True):
        tables.setdefault(text.split(".")[0], []).append(line)
    tables["model"].append(f'base = "{base}"')
    path = folder / "plan.toml"
    path.write_text("\n".join(f"[{name}]\n" + "\n".join(part) for name, part in tables.items()))
    return path


class Machine:
    """Starts our commands with one thread each, in a folder of their own."""

    def __init__(self, folder, world, cache):
        self.folder, self.world, self.cache = folder, world, cache
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

    def start(self, *words):
        command = [sys.executable, "-m", *map(str, words)]
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def simulate(self, out, carrier, *options):
        folders = [self.world[name] for name in DOMAINS]
        where = ("--out", out, "--cache", self.cache, "--carrier", carrier, "--only", "federated", "--json")
        process = self.start("simulations", "--data", *folders, *where, *options)
        printed, said = process.communicate(timeout=400)
        assert process.returncode == 0, said
        return json.loads(printed), registry.load_state(self.folder / out)

    def deploy(self, run, server_options, *client_options):
        """A server and a process per domain; returns exit codes, what was said, and the last state."""
        port = free_port()
        where = ("--run-dir", run, "--port", port, "--clients", len(DOMAINS), "--wait", 120)
        server = self.start("server", *where, *server_options)
        clients = [
            self.start(
                *("client", "--domain", name, "--data", self.world[name], "--superlink", f"127.0.0.1:{port}"),
                *("--cache", self.cache, "--once", *client_options),
            )
            for name in DOMAINS
        ]
        said = [server.communicate(timeout=400)[1]]
        if server.returncode:  # members wait for the next run
            for client in clients:
                client.terminate()
        said += [client.communicate(timeout=400)[1] for client in clients]
        return [process.returncode for process in (server, *clients)], said, self.folder / run


@pytest.fixture(scope="module")
def machine(tiny_world, cache, tmp_path_factory):
    return Machine(tmp_path_factory.mktemp("machine"), tiny_world, cache)


def same(one, two):
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(one[name], two[name], err_msg=name, **TOLERANCE)


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


def test_flowers_simulation_gives_the_adapter_of_the_loop(machine, tiny_base):
    options = ("--settings", settings(machine.folder, tiny_base), "--adversarial", "--epsilon", 8, "--seed", 11)
    loop, expected = machine.simulate("loop", "in-process", *options)
    ray, found = machine.simulate("ray", "flower", *options)
    same(found.adapter, expected.adapter)
    for name in DOMAINS:
        assert ray["domains"][name]["privacy"] == loop["domains"][name]["privacy"]
        assert 7 < loop["domains"][name]["privacy"]["epsilon"] <= 8


def test_private_and_adversarial_over_the_network_until_the_owners_limit(machine, tiny_base):
    """A plan of two rounds for epsilon 8, of which owners who allow 7 let one pass."""
    homes = machine.folder / "var" / "client"
    if homes.exists():  # of runs without a promise, after which no limit can be kept
        homes.rename(machine.folder / "var" / "unpromised")
    plan = ("--settings", settings(machine.folder, tiny_base), "--rounds", 2, "--adversarial", "--epsilon", 8)
    own = ("--base", tiny_base, "--max-epsilon", 7, "--at-delta", 1e-4)  # as the plan has it
    codes, said, run = machine.deploy("private", (*plan, "--wait", 60), *own)
    assert codes[0] == 1
    assert "round 1/2: 3 domains (news, shop, video)" in said[0]
    assert "above this domain's limit of 7" in said[0]
    assert [report["round"] for report in registry.read_rounds(run)] == [1]
    for name in DOMAINS:
        assert len(read_events(homes / name / "ledger.jsonl")) == 1
