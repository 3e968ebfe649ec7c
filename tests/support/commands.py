"""The three command lines, called in this process."""

from typer.testing import CliRunner

from client.__main__ import app as client
from server.__main__ import app as server
from simulations.__main__ import app as simulations

APPS = {"simulations": simulations, "client": client, "server": server}


def run(name: str, *words: object):
    return CliRunner().invoke(APPS[name], [str(word) for word in words])


def misuse(name: str, *words: object) -> str:
    """The one line that misuse gets."""
    result = run(name, *words)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line
