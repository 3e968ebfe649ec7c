"""Plans that train in seconds on the tiny base."""

from shared.config import apply_sets
from shared.model import initial_state
from shared.payload import Task
from shared.plan import Plan, read_plan

TINY = (
    "model.max_tokens=24",
    "model.rank=2",
    "model.hidden=16",
    "model.width=16",
    "model.heads=2",
    "model.blocks=1",
    "model.dropout=0.0",
    "model.max_history=12",
    "train.batch_users=16",
    "train.epochs=2",
    "train.most_epochs=1",
    "train.personal_epochs=1",
    "train.least_steps=6",
    "train.patience=2",
    "train.encode_every=4",
    "train.encode_items=40",
    "train.lr=0.005",
    "train.lora_lr=0.005",
    "privacy.lot_users=24",
    "privacy.steps=2",
    "privacy.events=4",
    "privacy.negatives=5",
    "privacy.delta=0.0001",
    "federation.rounds=2",
)


def tiny_plan(base, *sets: str) -> Plan:
    return read_plan(apply_sets({"model": {"base": str(base)}}, [*TINY, *sets]))


def first_task(plan, kind="train"):
    """The task of round 1, and the names that are released."""
    adapter, released, base = initial_state(plan)
    return Task(kind, 1, plan, adapter, base), released
