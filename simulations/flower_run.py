"""The same rounds through Flower's simulation engine (Ray): virtual nodes are domains.

One actor process holds the resident members, as each domain's own process does in a deployment; the
state of the server stays in this process. The same seed gives the same adapter as the in-process carrier.
"""

import contextlib
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client.secure_sum import Identity, SecureSum, strangers
from client.worker import Desk, Refusal
from server.registry import with_report
from server.rounds import ServerState, step, tasks
from server.rule import Aggregator
from shared.errors import ConfigError, FederationError, IsthmusError
from shared.processes import SWITCHES

if TYPE_CHECKING:
    from flwr.app import Context, Message
    from flwr.serverapp import Grid

POLL_S = 0.05
START_S = 120.0  # Ray and its actor need some seconds, more on a busy machine
ROUND_S = 24 * 3600.0

OnRound = Callable[[ServerState], None]

# Lives in the actor process: members stay resident between rounds, keyed by spec file and domain.
_desks: dict[tuple[str, str], Desk] = {}
_identities: dict[str, dict[str, Identity]] = {}  # by spec file, then domain: made up for the run


def run_in_flower(
    state: ServerState,
    aggregator: Aggregator,
    rounds: int,
    names: list[str],
    spec: Path,
    threads: int,
    on_round: OnRound = lambda state: None,
) -> ServerState:
    """``rounds`` rounds of ``step``, then the final adapter to every member; returns the last state.

    ``spec`` is a JSON file: ``{"opener": "client.rounds:open_member", "secure": false, "members": {name: {"folder":
    ..., "home": ..., "options": {...}}}}``; the actor calls ``opener(Path(folder), name, Path(home), **options)``.
    ``threads`` is what torch may use, as in process. Raises FederationError when the run fails, ConfigError
    when ray is missing.
    """
    if find_spec("ray") is None:
        raise ConfigError("Flower's simulation needs ray, found none; pip install -e '.[simulation]'")
    order = sorted(names)
    conductor = Conductor(state, aggregator, rounds, len(order), on_round)
    with _environment(threads):
        _simulate(conductor, partial(answer_message, str(spec.resolve()), tuple(order), threads), len(order))
    return conductor.result()


@dataclass
class Conductor:
    """The server's side: runs in a thread of this process, beside Flower's engine."""

    state: ServerState
    aggregator: Aggregator
    rounds: int
    wanted: int
    on_round: OnRound
    done: bool = False
    error: BaseException | None = None
    engine_gone: threading.Event = field(default_factory=threading.Event)

    def serve(self, grid: "Grid", context: "Context") -> None:
        """Keeps what goes wrong for ``result``: Flower's engine only logs it."""
        try:
            self._conduct(Watched(grid, self.engine_gone))
            self.done = True
        except BaseException as error:
            self.error = error

    def _conduct(self, grid: "Watched") -> None:
        from server.carrier import carrier_for, finish
        from server.members import Members

        members = Members(self.wanted, START_S)
        for _ in range(self.rounds):
            failed: dict[str, str] = {}
            try:
                carrier = carrier_for(self.state, grid, members, ROUND_S, failed.__setitem__, POLL_S)
                state = step(self.state, carrier, self.aggregator)
            except FederationError as error:
                raise FederationError("; ".join([str(error), *(f"{who}: {failed[who]}" for who in failed)])) from None
            self.state = with_report(state, failed=failed)
            self.on_round(self.state)
        self._finish(partial(finish, grid, members=members, timeout_s=ROUND_S, poll_s=POLL_S))

    def _finish(self, send: Callable[..., list[str]]) -> None:
        failed: dict[str, str] = {}
        now = self.state
        send(tasks(now, self.aggregator, "finish"), tell=failed.__setitem__)
        if failed:
            who, why = sorted(failed.items())[0]
            raise FederationError(f"{who} did not keep the final adapter: {why}")

    def result(self) -> ServerState:
        """The last state. Raises FederationError when the run did not come to its end."""
        if isinstance(self.error, IsthmusError):
            raise self.error
        if self.error is not None:
            raise FederationError(f"the simulated server failed: {self.error!r}") from self.error
        if not self.done:
            raise FederationError("Flower's simulation engine ended before the last round; see its messages above")
        return self.state


@dataclass(frozen=True)
class Watched:
    """A grid that fails, instead of waiting for ever, once the engine behind it is gone."""

    grid: "Grid"
    gone: threading.Event

    def get_node_ids(self) -> Any:
        return self.grid.get_node_ids()

    def push_messages(self, messages: Any) -> Any:
        return self.grid.push_messages(messages)

    def pull_messages(self, ids: Any) -> Any:
        if self.gone.is_set():
            raise FederationError("Flower's simulation engine ended before the last round; see its messages above")
        return self.grid.pull_messages(ids)


def answer_message(spec: str, names: tuple[str, ...], threads: int, message: "Message", context: "Context") -> Any:
    """One virtual node's reply; runs in the actor process."""
    from flwr.app import Message

    from shared.wire import Answer, answer_to_record, task_from_record

    name = names[int(context.node_config["partition-id"])]
    try:
        raw, _ = task_from_record(message.content)
        answer = Answer(name, desk_of(spec, name, names, threads).answer(raw) if raw else b"")
    except (Refusal, IsthmusError) as error:
        answer = Answer(name, reason=str(error))
    return Message(answer_to_record(answer), reply_to=message)


def desk_of(spec: str, name: str, names: tuple[str, ...], threads: int) -> Desk:
    """The resident member behind its desk, opened at the first call. Raises IsthmusError."""
    if (spec, name) not in _desks:
        opener, entry, secure = read_spec(Path(spec), name)
        module, _, function = opener.partition(":")
        opened = getattr(import_module(module), function)  # imports torch, where the member needs it
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
        home = Path(entry["home"])
        member = opened(Path(entry["folder"]), name, home, **entry.get("options", {}))
        if secure and spec not in _identities:
            _identities[spec] = strangers(list(names))
        part = SecureSum(_identities[spec][name]) if secure else None
        _desks[spec, name] = Desk(member, home / "domain.log", secure=part)
    return _desks[spec, name]


def read_spec(spec: Path, name: str) -> tuple[str, dict[str, Any], bool]:
    """(opener, that member's entry, whether updates are summed in secret). Raises ConfigError."""
    try:
        table = json.loads(spec.read_bytes())
        return str(table["opener"]), dict(table["members"][name]), bool(table.get("secure"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{spec}: expected an opener and a member {name!r} ({error!r:.80})") from None


def _simulate(conductor: Conductor, answer: Callable[..., Any], nodes: int) -> None:
    """Run Flower's engine until the conductor is done or the engine fails."""
    import flwr.supercore.telemetry as telemetry
    import ray
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation

    telemetry.FLWR_TELEMETRY_ENABLED = "0"  # read at import, and somebody may have imported it before us
    server, client = ServerApp(), ClientApp()
    server.main()(conductor.serve)
    client.train()(answer)
    cpus = os.cpu_count() or 1
    quiet = {"num_cpus": cpus, "include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    backend = {"init_args": quiet, "client_resources": {"num_cpus": cpus, "num_gpus": 0.0}}  # one actor
    log = logging.getLogger("flwr")
    level = log.level
    log.setLevel(logging.CRITICAL)  # it warns that run_simulation is deprecated; what replaces it leaves a daemon
    try:
        run_simulation(server, client, num_supernodes=nodes, backend_config=backend)
    except Exception as error:
        raise FederationError(f"Flower's simulation engine failed: {error}") from error
    finally:
        log.setLevel(level)
        conductor.engine_gone.set()
        ray.shutdown()


@contextlib.contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Set what Ray's actor inherits while the block runs."""
    wanted = {**SWITCHES, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    wanted["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"  # else Ray warns of a change in how it hides GPUs
    before = {key: os.environ.get(key) for key in [*wanted, "PYTHONPATH"]}  # Flower extends PYTHONPATH
    os.environ.update(wanted)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
