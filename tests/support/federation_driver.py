"""Command lines for the end-to-end tests: a server or one client of a federation of fake members.

python federation_driver.py server RUN_DIR PORT ROUNDS CLIENTS WAIT_S [--resume]
python federation_driver.py client NAME BEHAVIOUR HOME PORT ONCE
"""

import sys
from pathlib import Path

from fake_member import FakeMember, fake_plan, fake_start

from client.supervise import run_client
from server.launch import run_server
from shared.errors import IsthmusError


def say(line: str) -> None:
    print(line, flush=True)


def server(run_dir: str, port: str, rounds: str, clients: str, wait_s: str, *flags: str) -> int:
    return run_server(
        fake_plan(int(rounds)),
        Path(run_dir),
        clients=int(clients),
        port=int(port),
        wait_s=float(wait_s),
        round_timeout_s=60,
        resume="--resume" in flags,
        start=fake_start,
        say=say,
    )


def client(name: str, behaviour: str, home: str, port: str, once: str) -> int:
    Path(home).mkdir(parents=True, exist_ok=True)
    member = FakeMember(name, behaviour, Path(home))
    superlink = f"127.0.0.1:{port}"
    return run_client(member, name, superlink, Path(home), connect_timeout_s=60, once=once == "once", say=say)


if __name__ == "__main__":
    try:
        sys.exit({"server": server, "client": client}[sys.argv[1]](*sys.argv[2:]))
    except IsthmusError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
