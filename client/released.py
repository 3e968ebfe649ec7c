"""What of a private round is paid for, being made, and kept: paid once, however often it is asked."""

from client.budget import Limits, check_budget, check_passports, check_run, rounds_of, unreleased
from client.store import Home
from shared.errors import PayloadError
from shared.ledger import GaussianSteps, append_event, on_disk, read_events, reserved
from shared.payload import AdapterUpdate, update_from_bytes, update_to_bytes
from shared.plan import Plan
from shared.whole import write_whole


def pay(home: Home, plan: Plan, limits: Limits, event: GaussianSteps, *, simulated: bool) -> None:
    """Put a round into the ledger before anything of it is released: a crash hides nothing.

    One whose process was killed before its release is in there already. ``simulated``: a run that was cut off draws
    the same noise again. Raises BudgetError when it would overspend.
    """
    with reserved(home.ledger):
        spent = list(read_events(home.ledger))
        if paid := unreleased(event, spent, begun(home)):
            spent.remove(event)
        if not simulated:
            check_run(plan, limits, spent, event.run)
        check_passports(limits, spent)  # some may have been given since this process began
        check_budget(plan, limits, [*spent, *read_events(home.devices)], event)
        if paid:
            on_disk(home.ledger)
        else:
            keep_begun(home, event.task, len(rounds_of(spent)) + 1)
            append_event(home.ledger, event)


def keep_released(home: Home, task: str, update: AdapterUpdate) -> None:
    """Save a noised update before it is sent: asked for the same task again, the domain sends it again, for nothing."""
    write_whole(home.released, task.encode() + b"\n" + update_to_bytes(update))


def keep_none_released(home: Home) -> None:
    """Whatever is asked next is made anew and paid for."""
    write_whole(home.released, b"\n")


def keep_begun(home: Home, task: str, number: int) -> None:
    """Note beside what is kept that an update is being made for which the ledger has its ``number``-th round, or will
    have in a moment: as long as this stands nothing of it has left."""
    write_whole(home.released, f"making {task} {number}\n".encode() + _released(home)[1])


def drop_begun(home: Home) -> None:
    """Take the note back: of what was being made something may be told."""
    write_whole(home.released, _released(home)[1])


def begun(home: Home) -> tuple[str, int] | None:
    """The task and number noted last; None where that was released, or nothing can be told."""
    try:
        task, number = _released(home)[0].decode().split(" ")
        return task, int(number)
    except ValueError:
        return None


def load_released(home: Home, task: str) -> AdapterUpdate | None:
    """The update kept for that task; None where there is none, or it cannot be read."""
    name, _, raw = _released(home)[1].partition(b"\n")
    try:
        return update_from_bytes(raw) if name == task.encode() else None
    except PayloadError:
        return None


def _released(home: Home) -> tuple[bytes, bytes]:
    """What is noted as begun, and what is kept; empty where there is nothing."""
    try:
        raw = home.released.read_bytes()
    except FileNotFoundError:
        return b"", b""
    if not raw.startswith(b"making "):
        return b"", raw
    noted, _, kept = raw.partition(b"\n")
    return noted.removeprefix(b"making "), kept
