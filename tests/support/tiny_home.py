"""A domain's home after a training that takes seconds: what its doors and pages serve from."""

from pathlib import Path

from support.tiny_members import tiny_plan

from client.dataset import read_domain
from client.rounds import DomainMember
from client.store import Home
from client.workshop import Workshop
from shared.model import initial_state
from shared.payload import Task


def make_home(base: Path, domain: Path, home: Path, cache: Path, *sets: str) -> Home:
    """Train the domain in that folder alone, and keep what serving needs."""
    plan = tiny_plan(base, "train.gate=false", "train.epochs=1", *sets)
    member = DomainMember(read_domain(domain), Home(home), Workshop(cache), simulated=True)
    adapter, _, fingerprint = initial_state(plan)
    member.finish(Task("finish", 1, plan, adapter, fingerprint))
    return member.home
