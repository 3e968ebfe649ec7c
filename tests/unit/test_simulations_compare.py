import numpy as np
import pytest
from support.tiny_members import tiny_plan

from client.rounds import DomainMember
from shared.errors import ConfigError
from simulations.compare import Comparison
from simulations.deal import subset


@pytest.mark.parametrize("sets", [("train.lora_lr=0.0",), ("privacy.epsilon=8.0", "privacy.releases=outputs")])
def test_a_round_in_which_nothing_is_everyones(members, tiny_base, tmp_path, sets):
    plan = tiny_plan(tiny_base, "federation.family=affinity", "federation.rounds=1", *sets)
    said: list[str] = []
    made = Comparison(plan, members[:2], members[0].workshop, tmp_path, "loo", say=said.append)
    assert "federated" in made.run(("federated",))["macro"]
    assert "round 1/1: largest common change 0" in said


def test_a_run_of_other_users_of_the_same_domains_is_not_gone_on_with(members, tiny_base, tmp_path):
    plan, member = tiny_plan(tiny_base), members[0]
    Comparison(plan, [member], member.workshop, tmp_path, "loo", say=lambda line: None).run(("zero_shot",))
    fewer = DomainMember(subset(member.domain, np.arange(6), member.name), member.home, member.workshop)
    with pytest.raises(ConfigError, match="another --out"):
        Comparison(plan, [fewer], member.workshop, tmp_path, "loo").run(("zero_shot",))
