import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from support.tiny_members import tiny_plan

from client.rounds import DomainMember
from client.store import Home
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


def test_a_domain_outside_adopts_the_model_and_trains_nothing(members, tiny_base, tmp_path):
    plan = tiny_plan(tiny_base, "federation.family=affinity", "federation.rounds=1")
    said: list[str] = []
    made = Comparison(plan, members[:1], members[0].workshop, tmp_path, "loo", say=said.append, guests=members[1:2])
    found = made.run(("zero_shot", "adopted"))["domains"][members[1].name]
    assert found["adopted"]["ndcg@10"] > found["zero_shot"]["ndcg@10"]  # its own counts tell more than texts alone
    assert not members[1].home.alone.exists()
    assert not members[1].home.rounds.exists()
    assert any(line.startswith(f"{members[1].name} untrained, takes") for line in said)


def test_users_without_a_history_whom_another_domain_knows_are_told_apart(members, plan, tmp_path):
    """Under a cut in time some users are asked about here whose training events all lie elsewhere."""
    homes = [Home(tmp_path / member.name) for member in members]
    timed = [
        DomainMember(member.domain, home, member.workshop, protocol="time", simulated=True)
        for member, home in zip(members, homes, strict=True)
    ]
    together = Comparison(plan, timed, members[0].workshop, tmp_path / "all", "time", say=lambda line: None)
    cells = together.run(("zero_shot",))["domains"]
    found = [cells[member.name]["zero_shot"]["strata"]["known elsewhere"]["cases"] for member in timed]
    expected = []
    for member in timed:
        cases, ids = member.corpus(plan).split.test, member.domain.interactions.user_ids
        others = [other for other in timed if other is not member]
        expected.append(sum(known_to(others, plan, ids[cases.users[at]]) for at in np.flatnonzero(empty(cases))))
    assert found == expected
    assert sum(found) > 0
    alone = Comparison(plan, timed[:1], members[0].workshop, tmp_path / "one", "time", say=lambda line: None)
    cell = alone.run(("zero_shot",))["domains"][timed[0].name]["zero_shot"]
    assert cell["strata"]["known elsewhere"]["cases"] == 0


def empty(cases):
    return cases.histories.lengths == 0


def known_to(others, plan, user):
    for other in others:
        ids = other.domain.interactions.user_ids
        if user in ids and len(other.corpus(plan).split.train.row(ids.index(user))):
            return True
    return False


@pytest.mark.parametrize(
    ("methods", "settings", "protocol", "says"),
    [
        (("local", "together"), ("privacy.epsilon=8.0",), "loo", "together adds no noise"),
        (("local", "together"), (), "time", "together expects two domains or more and --protocol loo"),
        (("local", "devices"), ("privacy.epsilon=8.0", "model.similarity=euclidean"), "loo", "found euclidean"),
        (("local", "personal"), ("privacy.epsilon=8.0", "privacy.mechanism=banded"), "loo", "mechanism=banded is for"),
        (("local", "item_knn"), (), "loo", "baseline item_knn needs implicit"),
    ],
)
def test_what_cannot_run_is_told_before_anything_is_trained(
    members, tiny_base, tmp_path, monkeypatch, methods, settings, protocol, says
):
    monkeypatch.setitem(sys.modules, "implicit.nearest_neighbours", None)
    monkeypatch.delitem(sys.modules, "simulations.baselines.neighbours", raising=False)
    plan = tiny_plan(tiny_base, *settings)
    with pytest.raises(ConfigError, match=says):
        Comparison(plan, members[:2], members[0].workshop, tmp_path / "run", protocol).run(methods)
    assert not (tmp_path / "run").exists()


def test_a_run_of_other_users_of_the_same_domains_is_not_gone_on_with(members, tiny_base, tmp_path):
    plan, member = tiny_plan(tiny_base), members[0]
    Comparison(plan, [member], member.workshop, tmp_path, "loo", say=lambda line: None).run(("zero_shot",))
    fewer = DomainMember(subset(member.domain, np.arange(6), member.name), member.home, member.workshop)
    data, catalog = member.domain.interactions, member.domain.catalog
    weighed = replace(member.domain, interactions=replace(data, weights=data.weights + 1))
    told = replace(member.domain, catalog=replace(catalog, texts=("the same",) * len(catalog)))
    changed = [DomainMember(domain, member.home, member.workshop) for domain in (weighed, told)]
    says = ("users, interactions", "interactions", "catalogues")
    for other, differs in zip((fewer, *changed), says, strict=True):
        told = f"other data ({differs} of {member.name}); pass another --out"
        with pytest.raises(ConfigError, match=re.escape(told)):
            Comparison(plan, [other], member.workshop, tmp_path, "loo").run(("zero_shot",))
    made = json.loads((tmp_path / "result.json").read_text())["commits"]
    assert list(made.values()) == [[f"{member.name} zero_shot"]]


def test_a_run_of_before_a_setting_was_there_goes_on(members, tiny_base, tmp_path):
    plan, member = tiny_plan(tiny_base), members[0]
    Comparison(plan, [member], member.workshop, tmp_path, "loo", say=lambda line: None).run(("zero_shot",))
    kept = json.loads((tmp_path / "plan.json").read_text())
    assert kept["federation"].pop("mean_rank") == 0
    (tmp_path / "plan.json").write_text(json.dumps(kept))
    said = []
    Comparison(plan, [member], member.workshop, tmp_path, "loo", say=said.append).run(("zero_shot",))
    assert said == []  # no cell was made again
    assert json.loads((tmp_path / "plan.json").read_text()) == json.loads(plan.to_json())
    other = replace(plan, federation=replace(plan.federation, mean_rank=1))
    (tmp_path / "plan.json").write_text(json.dumps(kept))
    with pytest.raises(ConfigError, match=re.escape("other settings (federation.mean_rank 0, asked 1)")):
        Comparison(other, [member], member.workshop, tmp_path, "loo").run(("zero_shot",))


def test_a_run_that_broke_off_measures_only_what_is_not_there(members, tiny_base, tmp_path, monkeypatch):
    plan = tiny_plan(tiny_base, "federation.family=affinity", "federation.rounds=1")
    pair, methods = sorted(members[:2], key=lambda member: member.name), ("local", "personal")
    whole = Comparison(plan, pair, pair[0].workshop, tmp_path / "whole", "loo", say=lambda line: None).run(methods)

    def serve(self, model, task):
        if self.name == pair[1].name:
            raise KeyboardInterrupt
        return before(self, model, task)

    before = DomainMember.serve_best
    monkeypatch.setattr(DomainMember, "serve_best", serve)
    with pytest.raises(KeyboardInterrupt):
        Comparison(plan, pair, pair[0].workshop, tmp_path / "parts", "loo", say=lambda line: None).run(methods)
    left = json.loads((tmp_path / "parts" / "result.json").read_text())
    assert "personal" in left["domains"][pair[0].name]
    assert "personal" not in left["domains"][pair[1].name]
    assert left["seconds_by_method"]["personal"] > 0

    served: list[str] = []

    def tell(self, model, task):
        served.append(self.name)
        return before(self, model, task)

    monkeypatch.setattr(DomainMember, "serve_best", tell)
    said: list[str] = []
    after = Comparison(plan, pair, pair[0].workshop, tmp_path / "parts", "loo", say=said.append).run(methods)
    assert served == [pair[1].name]
    assert not any(line.startswith(("round", pair[0].name)) for line in said)
    assert after["seconds_by_method"]["personal"] >= left["seconds_by_method"]["personal"]
    assert after["macro"] == whole["macro"]
