"""The reverse proxy of docs/deployment.md, on free ports: nginx, where this machine has it."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "deployment.md").read_text(encoding="utf-8")
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def block(name: str, instead: Mapping[str, str]) -> str:
    """A block of the page, each of ``instead``'s words replaced; every one of them must stand there."""
    (found,) = (one for one in re.findall(r"```nginx\n(.*?)```", TEXT, re.DOTALL) if one.startswith(f"# {name}\n"))
    for word, value in instead.items():
        assert word in found, word
        found = found.replace(word, value)
    return found


@contextmanager
def proxy(folder: Path, port: int, name: str, instead: Mapping[str, str]) -> Iterator[None]:
    """Run that block until the end of the ``with``; it listens on ``port``."""
    folder.mkdir(parents=True)
    ways = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{way}_temp_path {folder / way};\n" for way in ways)
    http = f"http {{\naccess_log off;\n{places}{block(name, instead)}}}\n"
    # As who runs the tests, whose folders nobody else may read.
    user = "user root;\n" if os.geteuid() == 0 else ""
    text = f"{user}worker_processes 1;\npid {folder}/pid;\nevents {{}}\n{http}"
    (folder / "nginx.conf").write_text(text, encoding="utf-8")
    said = folder / "said"
    command = [NGINX, "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr", "-g", "daemon off;"]
    with said.open("wb") as out:
        process = subprocess.Popen(list(map(str, command)), stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, said.read_text()
                assert time.monotonic() < deadline, said.read_text()
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def federation_door(folder: Path, certificates: Path, behind: int, port: int) -> Iterator[None]:
    """The way in for members, before a SuperLink on port ``behind``."""
    instead = {
        "18000": str(port),
        "/etc/isthmus/certs": str(certificates),
        "https://127.0.0.1:8000": f"https://127.0.0.1:{behind}",
    }
    with proxy(folder, port, "federation", instead):
        yield
