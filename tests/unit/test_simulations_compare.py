import pytest
from support.tiny_members import tiny_plan

from simulations.compare import Comparison


@pytest.mark.parametrize("sets", [("train.lora_lr=0.0",), ("privacy.epsilon=8.0", "privacy.releases=outputs")])
def test_a_round_in_which_nothing_is_everyones(members, tiny_base, tmp_path, sets):
    plan = tiny_plan(tiny_base, "federation.family=affinity", "federation.rounds=1", *sets)
    said: list[str] = []
    made = Comparison(plan, members[:2], members[0].workshop, tmp_path, "loo", say=said.append)
    assert "federated" in made.run(("federated",))["macro"]
    assert "round 1/1: largest common change 0" in said
