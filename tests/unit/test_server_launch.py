import socket

import pytest
from support.fake_member import fake_plan, fake_start

from server import launch, registry
from server.launch import run_server, spell
from server.superlink import Certificates
from shared.errors import ConfigError, FederationError


def run(run_dir, **settings):
    settings = {"clients": 1, "port": 0, "start": fake_start, **settings}
    return run_server(fake_plan(), run_dir, say=lambda line: pytest.fail(line), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clients": 0}, "at least 1 client"),
        ({"wait_s": 0.0}, "waits above 0 s"),
        ({"host": "0.0.0.0"}, "open to a network: make certificates"),
        ({"host": "fed.example.org"}, "open to a network: make certificates"),
        ({"port": 70_000}, "cannot listen on 127.0.0.1:70000"),
    ],
)
def test_settings_that_cannot_work_change_nothing(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        run(tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_certificates_must_be_there(tmp_path):
    missing = Certificates(tmp_path / "ca.crt", tmp_path / "server.pem", tmp_path / "server.key")
    with pytest.raises(ConfigError, match=r"expected a file at .*ca.crt"):
        run(tmp_path / "run", certificates=missing)


def test_a_port_that_somebody_else_holds_is_refused(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ConfigError, match="cannot listen on"):
            run(tmp_path / "run", port=other.getsockname()[1])


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
