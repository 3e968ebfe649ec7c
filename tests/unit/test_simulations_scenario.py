import json
import shutil

import numpy as np
import pytest
from support import commands

from shared.config import apply_sets
from shared.errors import ConfigError
from shared.plan import plan_from_json, read_plan
from simulations.deal import deal, kind_of, subset
from simulations.scenario import HERE, Scenario, kinds_found, lend_alone, read_scenario, runs, under

GOOD = 'question="?"\nshops=["a"]\nmethods=["local"]'


def test_dealing_loses_nobody_and_gives_nobody_twice(members):
    domain = members[0].domain
    parts = deal(domain, 3, (5,), seed=1)
    assert [part.name for part in parts] == [f"{domain.name}-{end}" for end in ("1", "2", "3", "small5")]
    users = [user for part in parts for user in part.interactions.user_ids]
    assert sorted(users) == sorted(domain.interactions.user_ids)
    assert len(parts[-1].interactions.user_ids) == 5
    assert sum(len(part.interactions) for part in parts) == len(domain.interactions)
    assert deal(domain, 3, (5,), seed=1)[0].interactions.user_ids == parts[0].interactions.user_ids
    assert deal(domain, 3, (5,), seed=2)[0].interactions.user_ids != parts[0].interactions.user_ids
    assert deal(domain, 1, (), seed=1) == [domain]
    with pytest.raises(ConfigError, match="too few"):
        deal(domain, 10_000, (), seed=1)


def test_owners_of_at_most_so_many_users_hold_those_of_one_larger_owner(members):
    domain = members[0].domain
    small = deal(domain, 3, (5,), seed=1, most=4)
    assert [len(part.interactions.user_ids) for part in small] == [4, 4, 4, 5]
    together = sorted(user for part in small[:3] for user in part.interactions.user_ids)
    whole = deal(domain, 1, (), seed=1, most=12)[0].interactions.user_ids
    assert sorted(whole) == sorted(user for part in deal(domain, 3, (), 1, 4) for user in part.interactions.user_ids)
    assert not {*together} & {*small[-1].interactions.user_ids}
    assert deal(domain, 1, (), seed=1, most=10**6) == [domain]


def test_a_newcomer_has_no_more_users_than_asked_for(members):
    domains = [member.domain for member in members]
    asked = Scenario("?", tuple(d.name for d in domains), ("zero_shot",), newcomers=True, users=6)
    for run in runs(asked, domains, seed=3):
        assert {len(domain.interactions.user_ids) for domain in (*run.members, *run.guests)} == {6}


def test_a_subset_keeps_each_users_events_in_order(members):
    domain = members[0].domain
    part = subset(domain, np.array([4, 1]), "some")
    assert part.interactions.user_ids == (domain.interactions.user_ids[1], domain.interactions.user_ids[4])
    for row, user in enumerate((1, 4)):
        mine = part.interactions.items[part.interactions.users == row]
        assert mine.tolist() == domain.interactions.items[domain.interactions.users == user].tolist()


@pytest.mark.parametrize("name", sorted(path.stem for path in HERE.glob("*.toml")))
def test_every_scenario_file_can_be_read_and_says_who_takes_part(name, members):
    scenario = read_scenario(name)
    domains = [member.domain for member in members]
    names = tuple(domain.name for domain in domains)
    small = names[0] if scenario.small_shop else ""
    asked = Scenario(**{**vars(scenario), "shops": names, "small_shop": small, "small_users": (4,) if small else ()})
    found = list(runs(asked, domains, seed=3))
    assert len({run.label for run in found}) == len(found)
    for run in found:
        taking_part = {kind_of(domain.name, names) for domain in (*run.members, *run.guests)}
        assert taking_part == set(names)
        assert len(run.members) == (len(names) - 1 if asked.newcomers else asked.owners * len(names) + bool(small))


def test_a_small_owner_of_a_shop_that_is_not_there_is_told(members):
    domains = [member.domain for member in members[:2]]
    scenario = Scenario("?", tuple(domain.name for domain in domains), ("local",), small_shop="scientific")
    with pytest.raises(ConfigError, match="dealt of 'scientific', which is none of"):
        list(runs(scenario, domains, seed=3))


@pytest.mark.parametrize(("times", "small"), [(2, ()), (1, (4, 4))])
def test_two_owners_of_one_name_are_told(members, times, small):
    domains = [members[0].domain] * times
    names = tuple(domain.name for domain in domains)
    scenario = Scenario("?", names, ("local",), small_shop=names[0] if small else "", small_users=small)
    with pytest.raises(ConfigError, match=f"found two named '{names[0]}.*name each shop once"):
        list(runs(scenario, domains, seed=3))


def test_what_a_domain_reaches_alone_is_lent_to_the_next_run_of_the_same_seed(tmp_path):
    made = tmp_path / "affinity" / "seed-7" / "homes" / "shop" / "alone"
    made.mkdir(parents=True)
    (made / "alone.json").write_text("{}")
    for seed in (7, 8):
        lend_alone(tmp_path, tmp_path / "ffa" / f"seed-{seed}")
    assert (tmp_path / "ffa" / "seed-7" / "homes" / "shop" / "alone" / "alone.json").exists()
    assert not (tmp_path / "ffa" / "seed-8").exists()


def test_only_affinity_shares_item_tables():
    plan = read_plan(apply_sets({}, ["model.shared_items=true", "federation.family=affinity"]))
    assert under(plan, "affinity", 9).model.shared_items
    other = under(plan, "ffa", 9)
    assert not other.model.shared_items
    assert (other.federation.family, other.federation.seed) == ("ffa", 9)
    assert plan_from_json(other.to_json()) == other


def test_scenarios_that_cannot_be_used(tmp_path):
    with pytest.raises(ConfigError, match=r"there are .*same-kind"):
        read_scenario("other")
    for text, says in (
        ("x = [", "not a TOML"),
        ('question = "?"', "lacks"),
        ("question=1\nshops=[]\nmethods=[]", "quest"),
        ('question="?"\nshops=["a"]\nmethods=["local", "lokal"]', "methods: expected some of .*, found 'lokal'"),
        ('question="?"\nshops=["a"]\nmethods=["local"]\nfamilies=[]', "one of shops, methods and families at least"),
        (f"{GOOD}\nowners=0", "owners: expected 1 or more, found 0"),
        (f"{GOOD}\nusers=-3", "users: expected 3 or more, or 0 for all there are, found -3"),
        ('question="?"\nshops=["a", "a"]\nmethods=["local"]', "shops: expected each shop once"),
        (f'{GOOD}\nsmall_shop="a"\nsmall_users=[4, 4]', "small_users: expected different numbers from 3"),
        (f'{GOOD}\nsmall_shop="a"\nsmall_users=[0]', "small_users: expected different numbers from 3"),
        (f"{GOOD}\nsmall_users=[4]", r"small_shop and small_users together, found '' and \(4,\)"),
        (f'{GOOD}\nsmall_shop="a"', r"small_shop and small_users together, found 'a' and \(\)"),
    ):
        (tmp_path / "a.toml").write_text(text)
        with pytest.raises(ConfigError, match=says):
            read_scenario(str(tmp_path / "a.toml"))


def test_kinds_found_by_hand(tmp_path):
    assert kinds_found(tmp_path, ("a", "b"), [7, 8]) == {}
    (tmp_path / "seed-7").mkdir()
    affinity = {
        "a-1": {"a-1": 1, "a-2": 0.4, "b-1": 0.1},
        "a-2": {"a-1": 0.4, "a-2": 1, "b-1": 0.5},
        "b-1": {"a-1": 0.1, "a-2": 0.5, "b-1": 1},
    }
    told = {"a-1": 1, "a-2": 1, "b-1": 1}
    (tmp_path / "seed-7" / "rounds.jsonl").write_text(
        json.dumps({"affinity": affinity, "kinds": told}) + "\n" + '{"affi'
    )
    (tmp_path / "seed-9").mkdir()  # nobody asked for it
    (tmp_path / "seed-9" / "rounds.jsonl").write_text("not read")
    found = kinds_found(tmp_path, ("a", "b"), [7])
    assert found == {"within": [0.4] * 3, "across": [0.1, 0.3, 0.5], "auc": 0.5, "rand": pytest.approx(1 / 3)}


def test_settings_of_the_command_line_count_more_than_a_files(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("simulations.scenario.play", lambda scenario, root, plan, *_: asked.append(plan) or {})
    lines = ('question="?"', 'shops=["a"]', 'methods=["local"]', "rounds=4")
    settings = 'settings=["train.epochs=5", "train.lr=0.5"]'
    (tmp_path / "a.toml").write_text("\n".join([*lines, settings]))
    (tmp_path / "mine.toml").write_text("[train]\nepochs = 3\n")
    words = ("scenario", tmp_path / "a.toml", "--root", tmp_path, "--settings", tmp_path / "mine.toml")
    for more, rounds in ((), 4), (("--set", "federation.rounds=2"), 2), (("--rounds", "6"), 6):
        assert commands.run("simulations", *words, "--set", "train.lr=0.1", *more, "--json").exit_code == 0
        plan = asked.pop()
        assert (plan.train.epochs, plan.train.lr, plan.federation.rounds) == (3, 0.1, rounds)


def test_a_rule_beside_the_families_is_refused():
    line = commands.misuse(
        "simulations", "scenario", "different-shops", "--root", "x", "--set", "federation.family=ffa"
    )
    assert "a scenario's rules of aggregation are its families; pass --families" in line


@pytest.mark.parametrize("words", [("scenario", "different-shops", "--root", "x"), ("evaluate", "x")])
def test_a_seed_beside_the_seeds_is_refused(words):
    line = commands.misuse("simulations", *words, "--set", "federation.seed=99")
    assert "federation.seed=99" in line
    assert "pass --seeds 99" in line


def test_a_shop_whose_domain_has_another_name_is_told_before_anything_is_trained(tiny_world, tmp_path):
    shutil.copytree(tiny_world["video"], tmp_path / "films")
    (tmp_path / "a.toml").write_text('question="?"\nshops=["films"]\nmethods=["zero_shot"]')
    line = commands.misuse(
        "simulations", "scenario", tmp_path / "a.toml", "--root", tmp_path, "--out", tmp_path / "out"
    )
    assert "films holds a domain named 'video': name the folder as the domain" in line
    assert not (tmp_path / "out").exists()
