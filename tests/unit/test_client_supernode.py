"""Which apps of a server are run: this version's relay, file by file, and nothing else."""

import io
import warnings
import zipfile
from importlib import import_module
from types import SimpleNamespace

import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from client import supernode
from server.superlink import SuperLink, staged


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """As a server makes it."""
    link = SuperLink(tmp_path_factory.mktemp("run"), "127.0.0.1", 1, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Flower's own
        return build_fab_from_disk(staged(link, supernode.OURS))


def changed(app, **files):
    """The same app with some files in place of, or beside, its own."""
    with zipfile.ZipFile(io.BytesIO(app)) as plain:
        held = {name: plain.read(name) for name in plain.namelist()}
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as again:
        for name, raw in (held | files).items():
            again.writestr(name, raw)
    return made.getvalue()


def test_the_relay_of_this_version_is_run(app):
    assert supernode.foreign(app) is None
    assert supernode.foreign(changed(app)) is None


def test_any_other_file_is_not(app):
    own = (supernode.OURS / "client" / "relay.py").read_bytes()
    for name, raw in (
        ("client/relay.py", own + b"\n"),
        ("shared/wire.py", b"import os\n"),
        ("client/rounds.py", b""),
        ("sitecustomize.py", b""),
        ("evil.so", b""),
        ("../outside.py", b""),
        ("README.md", (supernode.OURS / "README.md").read_bytes()),
    ):
        assert supernode.foreign(changed(app, **{name: raw})) == f"{name!r} in it differs"


def test_nor_is_another_start_or_what_cannot_be_read(app, monkeypatch):
    about = (supernode.OURS / "pyproject.toml").read_text()
    other = about.replace('clientapp = "client.relay:app"', 'clientapp = "server.app:app"')
    assert "starts 'server.app:app', not" in supernode.foreign(changed(app, **{"pyproject.toml": other.encode()}))
    for raw in (b"", b"no zip", changed(app, **{"pyproject.toml": b"[tool]\nflwr = 3\n"}), app[:-200]):
        assert "cannot be read" in supernode.foreign(raw)
    twice = io.BytesIO(app)
    with warnings.catch_warnings(), zipfile.ZipFile(twice, "a") as again:
        warnings.simplefilter("ignore")  # of the library itself: that is what is done here
        again.writestr("client/relay.py", (supernode.OURS / "client" / "relay.py").read_bytes())
    assert supernode.foreign(twice.getvalue()) == "it holds a file twice"
    monkeypatch.setattr(supernode, "MOST_APP", 1000)
    assert "larger than" in supernode.foreign(app)


def test_flower_asks_before_it_runs_anything(app, monkeypatch, capsys):
    """The place that is watched is there in this release of Flower, and read before an app is stored."""
    inside = import_module("flwr.supernode.start_client_internal")
    code = inside._pull_and_store_message.__code__.co_names
    assert code.index("get_fused_config_from_fab") < code.index("store_fab")
    left = []
    monkeypatch.setattr(supernode, "_leave", lambda: left.append(True))
    read = supernode._checked(lambda app, run: (app, run))
    assert read(app, "run") == (app, "run")
    assert not left
    read(b"no zip", "run")
    assert left
    assert supernode.FOREIGN in capsys.readouterr().out


def test_its_hooks_are_in_before_flower_begins(monkeypatch):
    inside = import_module("flwr.supernode.start_client_internal")
    watched = ("get_fused_config_from_fab", "_pull_and_store_message", "subprocess")
    before = {name: getattr(inside, name) for name in watched}
    for name, value in before.items():
        monkeypatch.setattr(inside, name, value)  # put back afterwards
    monkeypatch.setattr(supernode.threading, "excepthook", supernode.threading.excepthook)
    monkeypatch.setattr(supernode, "_leave", lambda: None)
    found = []

    def begin():
        found.extend(getattr(inside, name) is not value for name, value in before.items())

    tool = SimpleNamespace(load=lambda: begin)
    monkeypatch.setattr(supernode, "entry_points", lambda **asked: [tool])
    supernode.main()
    assert found == [True, True, True]


def test_an_answer_left_behind_by_a_run_that_ended_does_not_hold_up_the_next():
    """A run ends while its message is read: its answer, sent first, must not leave the next one waiting."""
    inside = import_module("flwr.supernode.start_client_internal")
    state = InMemoryNodeState(ObjectStoreFactory().store())

    pulled = supernode.pulling(inside._pull_and_store_message)

    def pull():
        nothing = dict.fromkeys(("get_run", "get_fab", "pull_object", "confirm_message_received", "trusted_entities"))
        return pulled(state=state, object_store=None, node_config={}, receive=lambda: None, **nothing)

    def message(name, reply_to=""):
        return SimpleNamespace(metadata=SimpleNamespace(message_id=name, reply_to_message_id=reply_to, run_id=7))

    assert pull() is None
    state.store_message(message("task"))
    assert pull() is None  # nothing to send yet
    state.store_message(reply := message("reply", "task"))
    assert pull() is not None
    assert state.get_messages_legacy(is_reply=True) == [reply]  # looking took nothing away
    assert pull() is None
