"""A tiny base, a tiny world and members on it, made once per test run."""

import gc
import os

os.environ.update({"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0", "TOKENIZERS_PARALLELISM": "false"})

import pytest
import torch
from support.tiny_bert import make_checkpoint
from support.tiny_members import tiny_plan

from client.rounds import DomainMember
from client.store import Home
from client.workshop import Workshop
from shared.model import Recommender
from shared.prefix import find_base
from simulations.world import write_world

torch.set_num_threads(1)  # the tests' tensors are tiny: threads only get in each other's way


def pytest_collection_finish(session):
    """What the libraries made stays for good: else each collection after a training would walk through all of it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"), seed=3, users=160, items=60)


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def plan(tiny_base):
    return tiny_plan(tiny_base)


@pytest.fixture
def model(plan):
    return Recommender(plan.model, find_base(plan.model.base), seed=7)


@pytest.fixture
def members(tiny_world, cache, tmp_path):
    from client.dataset import read_domain

    workshop = Workshop(cache)
    return [
        DomainMember(read_domain(folder), Home(tmp_path / "homes" / name), workshop, simulated=True)
        for name, folder in tiny_world.items()
    ]
