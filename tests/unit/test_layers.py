"""Heavy libraries stay in the files named for them; the layers themselves are import-linter's (`make check`)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("shared", "client", "server", "simulations")
KEYS = {"shared/node_key.py"}
SUMS = {"shared/secure_sum.py", "client/secure_sum.py"}
ONLY_IN = {
    "captum": {"shared/words.py"},
    "peft": {"shared/lora.py"},
    "transformers": {"shared/prefix.py"},
    "opacus": {"client/privacy.py", "shared/accounting.py"},
    "polars": {"shared/tables.py"},
    "grpc": {"client/relay.py", "client/worker.py", "shared/grpc_door.py", "shared/proto/recommender_pb2_grpc.py"},
    "grpc_health": {"shared/grpc_door.py"},
    "grpc_reflection": {"shared/grpc_door.py"},
    "cryptography": {"server/certs.py", *KEYS, "shared/passport.py", "client/passport.py", "client/chance.py", *SUMS},
    "fastapi": {"shared/http.py", "client/http_safety.py", "client/http_api.py", "server/http_api.py"},
    "uvicorn": {"shared/http.py"},
    "usearch": {"shared/index.py"},
    "matplotlib": {"simulations/plots.py", "client/charts.py"},
    "ray": {"simulations/flower_run.py"},
    "flwr": {
        "shared/wire.py",
        "shared/secure_sum.py",
        "client/relay.py",
        "server/app.py",
        "server/carrier.py",
        "simulations/flower_run.py",
    },
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module).split(".")[0]


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_heavy_library_has_its_files(library):
    users = {
        path.relative_to(ROOT).as_posix()
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if library in imports(path)
    }
    assert users == ONLY_IN[library]


def test_the_relay_starts_light():
    heavy = ["torch", "transformers", "peft", "opacus", "polars"]
    code = f"import sys, client.relay; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_commands_start_without_what_few_of_them_use():
    slow = ["opacus", "scipy", "sympy", "transformers", "peft", "captum", "implicit"]
    rooms = "client.__main__, client.rounds, server.__main__, server.launch, simulations.__main__, simulations.compare"
    code = f"import sys, {rooms}; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_init_file_hides_a_room():
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_no_pickle():
    loaders = ("torch.load(", "pickle", "allow_pickle=True", "joblib")
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            text = path.read_text(encoding="utf-8").replace("allow_pickle=False", "").replace("pickled weights", "")
            assert not [word for word in loaders if word in text], path
