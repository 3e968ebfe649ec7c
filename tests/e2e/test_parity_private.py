"""A promise to users: in Flower's simulation as in the loop, over the network until the owners' limits."""

import pytest
from support.machine import Machine, same, settings

from server import registry
from shared.ledger import read_events

DOMAINS = ("news", "video")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def machine(tiny_world, cache, tmp_path_factory):
    return Machine(tmp_path_factory.mktemp("machine"), tiny_world, cache, DOMAINS)


def test_flowers_simulation_gives_the_adapter_of_the_loop(machine, tiny_base):
    options = ("--settings", settings(machine.folder, tiny_base), "--adversarial", "--epsilon", 8, "--seed", 11)
    loop, expected = machine.simulate("loop", "in-process", *options)
    ray, found = machine.simulate("ray", "flower", *options)
    same(found.adapter, expected.adapter)
    for name in DOMAINS:
        assert ray["domains"][name]["privacy"] == loop["domains"][name]["privacy"]
        assert 7 < loop["domains"][name]["privacy"]["epsilon"] <= 8


def test_private_and_adversarial_over_the_network_until_the_owners_limit(machine, tiny_base):
    """A plan of two rounds for epsilon 8, of which owners who allow 7 let one pass."""
    plan = ("--settings", settings(machine.folder, tiny_base), "--rounds", 2, "--adversarial", "--epsilon", 8)
    own = ("--base", tiny_base, "--max-epsilon", 7, "--at-delta", 1e-4)  # as the plan has it
    codes, said, run = machine.deploy("private", (*plan, "--wait", 60), *own)
    assert codes[0] == 1
    assert "round 1/2: 2 domains (news, video)" in said[0]
    assert "above this domain's limit of 7" in said[0]
    assert [report["round"] for report in registry.read_rounds(run)] == [1]
    for name in DOMAINS:
        assert len(read_events(machine.folder / "var" / "client" / name / "ledger.jsonl")) == 1
