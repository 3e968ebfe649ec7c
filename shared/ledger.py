"""Privacy spending as immutable events: epsilon is computed from them, never stored instead of them."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from shared.errors import DataError


@dataclass(frozen=True)
class GaussianSteps:
    """What an accountant must know, and nothing else. Never delete or redefine a field."""

    noise_multiplier: float  # noise std / clip norm
    sample_rate: float  # Poisson probability that a user joins a step
    steps: int
    unit: str = "user"  # neighbouring data sets differ in one user of this domain


def append_event(path: Path, event: GaussianSteps) -> None:
    """Write one event and have it on the disk before returning: the release comes after."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(event)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_events(path: Path) -> tuple[GaussianSteps, ...]:
    """All events of a ledger; none where there is no file yet.

    Raises DataError on a line that is no event: what is not understood cannot be counted, so nothing
    more may be spent.
    """
    if not path.exists():
        return ()
    events = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            event = GaussianSteps(**json.loads(line))
            if not (event.noise_multiplier > 0 and 0 < event.sample_rate <= 1 and event.steps > 0):
                raise ValueError
        except (ValueError, TypeError):
            raise DataError(
                f"{path}, line {number}: expected a privacy event, found something else; "
                "restore the ledger from a backup before training on"
            ) from None
        events.append(event)
    return tuple(events)
