"""The commands as a user starts them, on real domains: a simulation, or a server and a client each."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from support.tiny_members import TINY

from server import registry
from shared.processes import free_port

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

    def __init__(self, folder, world, cache, domains=DOMAINS):
        self.folder, self.world, self.cache, self.domains = folder, world, cache, domains
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

    def start(self, *words):
        command = [sys.executable, "-m", *map(str, words)]
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def simulate(self, out, carrier, *options):
        folders = [self.world[name] for name in self.domains]
        where = ("--out", out, "--cache", self.cache, "--carrier", carrier, "--only", "federated", "--json")
        process = self.start("simulations", "--data", *folders, *where, *options)
        printed, said = process.communicate(timeout=400)
        assert process.returncode == 0, said
        return json.loads(printed), registry.load_state(self.folder / out)

    def deploy(self, run, server_options, *client_options):
        """A server and a process per domain; returns exit codes, what was said, and the last state."""
        port = free_port()
        where = ("--run-dir", run, "--port", port, "--clients", len(self.domains), "--wait", 120)
        server = self.start("server", *where, *server_options)
        clients = [
            self.start(
                *("client", "--domain", name, "--data", self.world[name], "--superlink", f"127.0.0.1:{port}"),
                *("--cache", self.cache, "--once", *client_options),
            )
            for name in self.domains
        ]
        said = [server.communicate(timeout=400)[1]]
        if server.returncode:  # members wait for the next run
            for client in clients:
                client.terminate()
        said += [client.communicate(timeout=400)[1] for client in clients]
        return [process.returncode for process in (server, *clients)], said, self.folder / run


def same(one, two):
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(one[name], two[name], err_msg=name, **TOLERANCE)
