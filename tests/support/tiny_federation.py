"""A federation of tiny members, run in one process, and their catalogues as they are given away."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from client.publish import publish
from client.rounds import DomainMember
from client.store import Home
from server import registry
from server.aggregate import aggregator_for
from server.rounds import ServerState, step
from shared.model import initial_state
from shared.plan import Plan
from simulations.in_process import carrier_for


def begin_run(folder: Path, plan: Plan) -> None:
    registry.begin(folder, ServerState(1, plan, *initial_state(plan), aggregator_for(plan).init()))


def one_round(folder: Path, members: Sequence[DomainMember]) -> None:
    """The next one, on disk when it returns."""
    state = registry.load_state(folder)
    state = step(state, carrier_for(state, members), aggregator_for(state.plan))
    registry.save_state(folder, state)
    registry.append_round(folder, state.report)


def published(world: Mapping[str, Path], folder: Path, popularity: bool = False) -> list[Path]:
    """The folders of all catalogues."""
    for name, data in world.items():
        publish(data, name, Home(folder / "no-home"), folder / name, popularity)
    return [folder / name for name in world]
