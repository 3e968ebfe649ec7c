"""The server's HTTP door as a real process: alone over a run, with a swap under load; and beside a federation."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from support.tiny_federation import begin_run, published
from support.tiny_members import tiny_plan

from server import registry
from shared.processes import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

ROOT = Path(__file__).resolve().parents[2]
DRIVER = ROOT / "tests" / "support" / "federation_driver.py"


def call(port: int, path: str, body: object = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


def wait_for(port: int, process: subprocess.Popen, out: Path, timeout_s: float = 90) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            call(port, "/healthz")
            return
        except OSError:
            assert process.poll() is None, out.read_text()
            assert time.monotonic() < deadline, out.read_text()
            time.sleep(0.2)


def start(out: Path, *words: object) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with out.open("wb") as file:
        command = [sys.executable, *map(str, words)]
        return subprocess.Popen(command, cwd=out.parent, env=environment, stdout=file, stderr=subprocess.STDOUT)


def end(process: subprocess.Popen) -> int:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    return process.wait(20)


def next_round(run: Path) -> None:
    """As a server leaves it: the next adapter, a little elsewhere, then the pointer."""
    state = registry.load_state(run)
    adapter = {name: value + 0.01 if name == "user.outward.bias" else value for name, value in state.adapter.items()}
    registry.save_state(run, type(state)(**{**vars(state), "round": state.round + 1, "adapter": adapter}))


def test_a_new_adapter_is_taken_over_without_a_failed_or_a_mixed_answer(tiny_base, tiny_world, cache, tmp_path):
    begin_run(tmp_path / "run", tiny_plan(tiny_base))
    catalogues = published({name: tiny_world[name] for name in ("video", "shop")}, tmp_path / "out")
    port, out = free_port(), tmp_path / "served.txt"
    words = [word for one in catalogues for word in ("--catalogue", one)]
    common = ("-m", "server", "serve", "--run-dir", tmp_path / "run", "--cache", cache, "--port", port, *words)
    process = start(out, *common)
    try:
        wait_for(port, process, out)
        ask = {"history": [{"domain": "video", "item": "video-0003"}, {"text": "a stern letter"}], "k": 3}
        first = call(port, "/api/recommend", ask)
        seen: list[dict] = []
        failed: list[str] = []
        stop = threading.Event()

        def load() -> None:
            while not stop.is_set():
                try:
                    seen.append(call(port, "/api/recommend", ask))
                except OSError as error:
                    failed.append(str(error))

        loader = threading.Thread(target=load)
        loader.start()
        next_round(tmp_path / "run")
        deadline = time.monotonic() + 60
        while call(port, "/healthz")["round"] == 0:
            assert time.monotonic() < deadline, out.read_text()
            time.sleep(0.1)
        after = call(port, "/api/recommend", ask)
        time.sleep(0.3)
        stop.set()
        loader.join()
        assert failed == []
        assert after["model"] != first["model"]
        known = {answers["model"]: [one["model"] for one in answers["answers"]] for answers in (first, after)}
        assert all([one["model"] for one in answers["answers"]] == known[answers["model"]] for answers in seen)
        assert {answers["model"] for answers in seen} == set(known)
        assert call(port, "/api/exposure")["answers"] == len(seen) + 2
    finally:
        status = end(process)
    assert status in (0, 130)
    said = out.read_text()
    assert "serves the model round-1-" in said
    assert "Traceback" not in said
    assert "stern letter" not in said  # nothing of a request is kept
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"stern letter" not in kept


def test_the_federation_is_shown_while_it_runs_and_the_door_ends_with_it(tmp_path):
    port, http = free_port(), free_port()
    out = tmp_path / "server.txt"
    started = [start(out, DRIVER, "server", tmp_path / "run", port, 1, 2, 60, f"--http={http}")]
    try:
        wait_for(http, started[0], out)
        found = call(http, "/api/federation")
        assert (found["state"], found["round"], found["plan"]["rounds"]) == ("waiting", 1, 1)
        for name in ("video", "book"):
            words = ("client", name, "good", tmp_path / name, port, "once")
            started.append(start(tmp_path / f"{name}.txt", DRIVER, *words))
        states = set()
        deadline = time.monotonic() + 240
        while started[0].poll() is None:
            assert time.monotonic() < deadline, out.read_text()
            try:
                last = call(http, "/api/federation")
                states.add((last["state"], last["connected"]))
            except OSError:  # the run is over, and the door with it
                pass
            time.sleep(0.3)
        assert started[0].wait(20) == 0, out.read_text()
    finally:
        for process in started:
            end(process)
    assert ("running", 2) in states
    (report,) = registry.read_rounds(tmp_path / "run")
    assert set(report["bytes"]) == {"book", "video"}
    assert all(part["down"] > 100 < part["up"] for part in report["bytes"].values())
    assert report["weights"] == {"book": 32.0, "video": 64.0}
    assert json.loads((tmp_path / "run" / "members.json").read_text())["phase"] == "finishing"
    with pytest.raises(OSError, match="refused"):
        call(http, "/healthz")
    assert re.search(r"HTTP at http://127\.0\.0\.1:\d+/", out.read_text())
