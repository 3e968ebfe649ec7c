"""Apps as forks: Flower's own command with Flower's own words, in a process that has Flower loaded when it begins."""

import multiprocessing
import subprocess
from importlib import import_module
from types import SimpleNamespace

import pytest
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec.executor.types import ExecutionSpec

from client import superexec, supernode


@pytest.fixture
def executor(monkeypatch):
    """Flower's module as ``main`` leaves it when its SuperExec begins; put back afterwards."""
    module = import_module("flwr.supercore.superexec.executor.subprocess_executor")
    monkeypatch.setattr(module, "subprocess", module.subprocess)
    began = []
    tool = SimpleNamespace(load=lambda: lambda: began.append(module.subprocess.Popen))
    monkeypatch.setattr(superexec, "entry_points", lambda **asked: [tool])
    superexec.main()
    assert began == [superexec.start]
    monkeypatch.undo()
    monkeypatch.setattr(module, "subprocess", SimpleNamespace(Popen=superexec.start, DEVNULL=subprocess.DEVNULL))
    return module.SubprocessExecutor()


def spec(kind=TaskType.CLIENT_APP, parent=None, quiet=False):
    return ExecutionSpec(kind, "127.0.0.1:1", "t", True, None, False, parent, quiet, task_id=1)


def test_flower_launches_an_app_through_it(executor, monkeypatch):
    started = []
    context = SimpleNamespace(Process=lambda **made: SimpleNamespace(start=lambda: started.append(made)))
    monkeypatch.setattr(superexec, "get_context", lambda kind: {"forkserver": context}[kind])
    for quiet in (False, True):
        executor.launch(spec(parent=7, quiet=quiet))
    words = ["--runtime-api-address", "127.0.0.1:1", "--token", "t", "--insecure", "--parent-pid", "7"]
    one = {"target": superexec.run_app, "args": (["flwr-clientapp", *words],), "daemon": True}
    assert started == [one, one]


def test_other_commands_are_processes_as_flower_has_them(executor, monkeypatch):
    started = []
    monkeypatch.setattr(superexec.subprocess, "Popen", lambda command, **how: started.append((command[0], how)))
    executor.launch(spec(TaskType.SERVER_APP))
    executor.launch(spec(TaskType.SERVER_APP, quiet=True))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    assert started == [("flwr-serverapp", {}), ("flwr-serverapp", quiet)]


def test_an_app_is_a_process_of_its_own_with_its_own_words():
    found = []
    for words in (["--help"], ["--no-such-option"]):
        superexec.start([superexec.APP, *words])
        (process,) = multiprocessing.active_children()
        process.join(100)
        found.append(process.exitcode)
    assert found == [0, 2]


def test_the_supernode_starts_it_with_flowers_words(monkeypatch):
    """The only process that Flower's SuperNode starts."""
    inside = import_module("flwr.supernode.start_client_internal")
    names = inside.start_client_internal.__code__.co_names
    assert names[names.index("subprocess") + 1] == "Popen"
    started = []
    monkeypatch.setattr(supernode.subprocess, "Popen", started.append)
    supernode.start_superexec(["flower-superexec", "--insecure"])
    assert started == [[supernode.sys.executable, "-m", "client.superexec", "--insecure"]]
