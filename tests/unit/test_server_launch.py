import socket
import threading

import pytest
from support.fake_member import fake_plan, fake_start

from server import launch, registry
from server.certs import certificates_in, make_certificates
from server.launch import run_server, spell
from server.superlink import Certificates, SuperLink, staged
from shared.errors import ConfigError, FederationError
from shared.plan import check_silos, read_plan


def run(run_dir, secure=False, **settings):
    settings = {"clients": 1, "port": 0, "start": fake_start, **settings}
    return run_server(fake_plan(secure=secure), run_dir, say=lambda line: pytest.fail(line), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clients": 0}, "at least 1 client"),
        ({"clients": 2, "secure": True}, "a secure sum takes 3 to 128 domains, found 2"),
        ({"clients": 129, "secure": True}, "a secure sum takes 3 to 128 domains, found 129"),
        ({"wait_s": 0.0}, "waits above 0 s"),
        ({"host": "0.0.0.0"}, "is open to a network, and Flower's port has a control API"),
        ({"host": "fed.example.org"}, "is open to a network, and Flower's port has a control API"),
        ({"port": 70_000}, "cannot listen on 127.0.0.1:70000"),
    ],
)
def test_settings_that_cannot_work_change_nothing(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        run(tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_promises_that_only_devices_know_are_refused(tmp_path):
    plan = read_plan({"privacy": {"epsilon": 8.0, "mechanism": "banded"}})
    with pytest.raises(ConfigError, match=r"privacy\.mechanism=banded is for a federation of devices"):
        run_server(plan, tmp_path / "run", clients=1, port=0, start=fake_start)
    assert not (tmp_path / "run").exists()
    check_silos(read_plan({"privacy": {"mechanism": "banded"}}))  # without a promise it means nothing


def test_certificates_must_be_there(tmp_path):
    missing = Certificates(tmp_path / "ca.crt", tmp_path / "server.pem", tmp_path / "server.key")
    with pytest.raises(ConfigError, match=r"expected a file at .*ca.crt"):
        run(tmp_path / "run", certificates=missing)


@pytest.mark.parametrize("damaged", ["ca.crt", "server.crt", "server.key"])
def test_certificates_that_tls_cannot_use_are_refused_at_once(tmp_path, damaged):
    make_certificates(tmp_path / "certs", [])
    (tmp_path / "certs" / damaged).write_text("-----BEGIN nothing")
    with pytest.raises(ConfigError, match=f"{damaged}.*found something else; make them anew"):
        run(tmp_path / "run", certificates=certificates_in(tmp_path / "certs"))
    assert not (tmp_path / "run").exists()


def test_certificates_without_members_would_let_in_whoever_knocks(tmp_path):
    make_certificates(tmp_path / "certs", [])
    with pytest.raises(ConfigError, match="certs knows no members: add each domain's key to it"):
        run(tmp_path / "run", certificates=certificates_in(tmp_path / "certs"))
    assert not (tmp_path / "run").exists()


def test_a_port_that_somebody_else_holds_is_refused(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ConfigError, match="cannot listen on"):
            run(tmp_path / "run", port=other.getsockname()[1])


def test_members_get_what_is_shipped_and_nothing_else(tmp_path):
    project = tmp_path / "project"
    for name in ("pkg/one.py", "pkg/deep/two.py", "pkg/data.csv", ".venv/pkg/three.py"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(name)
    (project / "pyproject.toml").write_text('[tool.flwr.app]\nfab-include = ["pkg/**/*.py"]\n')
    link = SuperLink(tmp_path / "run", "127.0.0.1", 1, None)
    for _ in range(2):  # the second takes the place of what an earlier start left
        app = staged(link, project)
        found = {path.relative_to(app).as_posix() for path in app.rglob("*") if path.is_file()}
        assert found == {"pyproject.toml", "pkg/one.py", "pkg/deep/two.py"}
        (app / "pkg" / "old.py").touch()
    assert (app / "pkg" / "one.py").read_text() == "pkg/one.py"
    (project / "pyproject.toml").write_text("[tool]\n")
    with pytest.raises(FederationError, match="cannot lay out the app"):
        staged(link, project)


def test_a_run_directory_in_use_is_refused(tmp_path):
    with registry.owned(tmp_path, "server"), pytest.raises(FederationError, match="another server works in"):
        run(tmp_path)


def test_a_run_of_another_plan_is_not_resumed(tmp_path):
    launch.prepare(tmp_path, fake_plan(rounds=2), fake_start, resume=False)
    with pytest.raises(ConfigError, match="run of another plan"):
        launch.prepare(tmp_path, fake_plan(rounds=3), fake_start, resume=True)


def test_a_rounds_line_names_who_is_missing_and_why():
    report = {
        "round": 2,
        "domains": ["book", "video"],
        "refused": {"music": "is all zeros"},
        "failed": {"node 7": "no answer within 60 s"},
        "seconds": 5.25,
    }
    assert spell(report, 3) == (
        "round 2/3: 2 domains (book, video), 5.2 s; music refused: is all zeros; node 7 refused: no answer within 60 s"
    )


def test_an_interrupt_that_reached_the_superlink_too_is_no_failure(tmp_path, monkeypatch):
    stopped = threading.Event()

    def watch(*_):
        stopped.set()
        return "running", ""

    def ask(link, word, *_):
        if word == "stop":
            raise FederationError("flwr stop failed: no SuperLink answers")
        return {"run-id": "1"}

    for name in ("wait_health", "write_config", "stop_stale_runs", "register_members"):
        monkeypatch.setattr(launch, name, lambda *_: None)
    monkeypatch.setattr(launch, "watch", watch)
    monkeypatch.setattr(launch, "ask", ask)
    said: list[str] = []
    link = launch.SuperLink(tmp_path, "127.0.0.1", 18000, None)
    assert launch.follow(link, None, fake_plan(), stopped, said.append) == launch.INTERRUPTED
    assert said[-1].startswith("interrupted: the run is stopped")
