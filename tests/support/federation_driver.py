"""Command lines for the end-to-end tests: a server or one client of a federation of fake members.

python federation_driver.py server RUN_DIR PORT ROUNDS CLIENTS WAIT_S [--resume] [--certificates=FOLDER] [--http=PORT]
python federation_driver.py client NAME BEHAVIOUR HOME PORT ONCE [CERTIFICATES]

With certificates the updates are summed securely.
"""

import sys
from pathlib import Path

from fake_member import FakeMember, fake_plan, fake_start

from client.secure_sum import read_identity
from client.supervise import run_client
from server.beside import door_from
from server.certs import certificates_in
from server.launch import run_server
from shared.errors import IsthmusError


def say(line: str) -> None:
    print(line, flush=True)


LONG_S = 200  # on a busy machine


def server(run_dir: str, port: str, rounds: str, clients: str, wait_s: str, *flags: str) -> int:
    doors = [door_from(int(flag.partition("=")[2]), [], Path(run_dir)) for flag in flags if flag.startswith("--http=")]
    folders = [Path(flag.partition("=")[2]) for flag in flags if flag.startswith("--certificates=")]
    return run_server(
        fake_plan(int(rounds), secure=bool(folders)),
        Path(run_dir),
        clients=int(clients),
        port=int(port),
        wait_s=float(wait_s),
        round_timeout_s=LONG_S,
        certificates=certificates_in(folders[0]) if folders else None,
        resume="--resume" in flags,
        start=fake_start,
        door=doors[0] if doors else None,
        say=say,
    )


def client(name: str, behaviour: str, home: str, port: str, once: str, certificates: str = "") -> int:
    Path(home).mkdir(parents=True, exist_ok=True)
    member = FakeMember(name, behaviour, Path(home))
    secure = {}
    if certificates:
        folder = Path(certificates)
        key = folder / "members" / name
        secure = {"root_certificates": folder / "ca.crt", "key": key, "identity": read_identity(name, key, key.parent)}
    superlink = f"127.0.0.1:{port}"
    return run_client(
        member, name, superlink, Path(home), connect_timeout_s=LONG_S, once=once == "once", say=say, **secure
    )


if __name__ == "__main__":
    try:
        sys.exit({"server": server, "client": client}[sys.argv[1]](*sys.argv[2:]))
    except IsthmusError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
