import json
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace

import pytest
from support.tiny_members import tiny_plan

from client.budget import (
    Limits,
    check_budget,
    check_passports,
    forecast,
    planned_noise,
    spending,
    spent_at,
)
from client.privacy import sampled_users
from client.released import pay
from client.store import Home, write_json
from shared.accounting import epsilon, noise_for
from shared.attributes import read_attributes
from shared.catalog import Catalog
from shared.errors import BudgetError, ConfigError, DataError
from shared.ledger import GaussianSteps, PlainRelease, TokenRelease, append_event, read_events, reserved
from shared.model import initial_state
from shared.payload import Task
from shared.plan import read_plan


@pytest.fixture
def home(tmp_path, plan):
    write_json(Home(tmp_path).about, {"plan": json.loads(plan.to_json())})
    return Home(tmp_path)


def test_spending_adds_up_what_the_ledger_holds(home):
    empty = spending(home)
    assert (empty["epsilon"], empty["releases"], empty["promised"]) == (0.0, 0, False)
    events = [GaussianSteps(1.0, 0.1, 20), GaussianSteps(1.0, 0.1, 30), TokenRelease(1.0, "near-set", user="a hash")]
    for event in events:
        append_event(home.ledger, event)
    found = spending(home)
    assert found["delta"] == 1e-5  # the plan's own is nothing that anybody checked
    assert found["epsilon"] == epsilon(events, 1e-5) > 1.0
    assert (found["releases"], found["trainings"], found["steps"], found["passports"]) == (3, 2, 50, 1)
    plan = tiny_plan("minilm", "privacy.epsilon=8.0")
    write_json(home.about, {"plan": json.loads(plan.to_json())})
    assert (spending(home)["delta"], spending(home)["epsilon"]) == (0.0001, epsilon(events, 0.0001))


def test_spending_without_a_bound(home):
    for event in (GaussianSteps(1.0, 0.1, 20), PlainRelease("update"), PlainRelease("update")):
        append_event(home.ledger, event)
    found = spending(home)
    assert found["epsilon"] is None
    assert (found["releases"], found["trainings"], found["passports"], found["unpromised"]) == (3, 1, 0, 2)
    assert "no epsilon bounds" in found["words"]
    json.dumps(found, allow_nan=False)


def test_spending_refuses_what_it_cannot_read(home, tmp_path):
    with pytest.raises(DataError, match="no finished run in"):
        spending(Home(tmp_path / "nowhere"))
    home.ledger.write_text('{"noise_multiplier": -1}\n')
    with pytest.raises(DataError, match="expected a privacy event"):
        spending(home)


def test_common_values_are_named_and_counted():
    cells = ("Comedy, Drama", "comedy", "drama, Alone", "Comedy")
    catalog = Catalog("video", tuple("abcd"), tuple("ABCD"), tuple("ABCD"), {"genre": cells})
    found = read_attributes(catalog)
    assert found.common("genre", 10) == [("Comedy", 3), ("Drama", 2)]  # a value that one item alone has is none
    assert found.common("genre", 1) == [("Comedy", 3)]
    assert found.common("colour", 10) == []


def test_epsilon_is_what_the_plan_asked_for():
    noise = noise_for(4.0, 1e-5, 0.05, 300)
    assert 3.8 < epsilon([GaussianSteps(noise, 0.05, 100)] * 3, 1e-5) <= 4.0
    assert epsilon([], 1e-5) == 0.0
    with pytest.raises(BudgetError, match="another unit"):
        epsilon([GaussianSteps(1.0, 0.1, 1, unit="row")], 1e-5)
    with pytest.raises(BudgetError, match="no noise reaches"):
        noise_for(1e-9, 1e-5, 1.0, 100_000)


def test_the_ledger_is_kept_line_by_line_and_refuses_what_it_does_not_know(tmp_path):
    path = tmp_path / "home" / "ledger.jsonl"
    assert read_events(path) == ()
    events = (GaussianSteps(1.0, 0.1, 5), GaussianSteps(2.0, 0.2, 7))
    for event in events:
        append_event(path, event)
    assert read_events(path) == events
    for damage in ("{\n", '{"noise_multiplier": 0, "sample_rate": 0.1, "steps": 1}', '{"steps": 1}', "[]"):
        path.write_text(damage + "\n")
        with pytest.raises(DataError, match="line 1"):
            read_events(path)


def test_what_could_not_be_read_back_is_not_written(tmp_path):
    ledger = tmp_path / "ledger.jsonl"
    for event in (GaussianSteps(1e12, 0.2, 10), GaussianSteps(1.0, 1.1, 10), TokenRelease(float("nan"), "near-set")):
        with pytest.raises(BudgetError, match="cannot be counted; change the settings of privacy"):
            append_event(ledger, event)
    assert not ledger.exists()


def test_a_line_torn_off_in_the_writing_is_dropped_and_a_whole_one_never(tmp_path):
    path = tmp_path / "ledger.jsonl"
    events = (GaussianSteps(1.0, 0.1, 5), GaussianSteps(2.0, 0.2, 7))
    for event in events:
        append_event(path, event)
    raw = path.read_bytes()
    first = raw.index(b"\n") + 1
    for length in range(first, len(raw) + 1):
        path.write_bytes(raw[:length])
        kept = events if length >= len(raw) - 1 else events[:1]  # without its line break it is still whole
        assert read_events(path) == kept
        append_event(path, events[0])
        assert read_events(path) == (*kept, events[0])
    assert path.stat().st_mode & 0o077 == 0


def test_nobody_writes_into_a_ledger_that_somebody_else_has_reserved(tmp_path):
    """A forgetting reads it and writes all of it anew: what came in between would be gone."""
    ledger, event = tmp_path / "ledger.jsonl", PlainRelease("update")
    with ThreadPoolExecutor(1) as pool:
        with reserved(ledger):
            other = pool.submit(append_event, ledger, event)
            assert wait([other], timeout=0.5).not_done
            append_event(ledger, GaussianSteps(1.0, 0.1, 20))  # its own need not wait for itself
            with reserved(ledger):
                assert len(read_events(ledger)) == 1
        other.result(timeout=60)
    assert read_events(ledger) == (GaussianSteps(1.0, 0.1, 20), event)


def test_two_writers_lose_nothing(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: append_event(path, GaussianSteps(1.0, 0.5, n + 1)), range(100)))
    assert sorted(event.steps for event in read_events(path)) == list(range(1, 101))


def test_the_data_owner_may_refuse(tiny_base):
    plan = tiny_plan(tiny_base, "privacy.epsilon=8.0")
    event = GaussianSteps(1.0, 0.2, 10)
    once = epsilon([event], plan.privacy.delta)
    assert check_budget(plan, Limits(once + 0.01, plan.privacy.delta), (), event) == pytest.approx(once)
    with pytest.raises(BudgetError, match=r"above this domain's limit"):
        check_budget(plan, Limits(once + 0.01, plan.privacy.delta), (event,), event)
    with pytest.raises(BudgetError, match="at delta 1e-05"):  # though the plan's own delta would let it pass
        check_budget(plan, Limits(once + 0.01), (), event)
    with pytest.raises(BudgetError, match="the plan adds no noise"):
        check_budget(tiny_plan(tiny_base), Limits(8.0), (), None)
    with pytest.raises(BudgetError, match="well below one"):
        planned_noise(tiny_plan(tiny_base, "privacy.delta=0.01"), 200)


def test_refusals_do_not_tell_how_many_users_there_are(tiny_base):
    said = set()
    for users in (190, 250):  # of one declared weight, 256
        plan = tiny_plan(tiny_base, "privacy.epsilon=1e-9", "privacy.lot_users=50")
        with pytest.raises(BudgetError) as refused:
            planned_noise(plan, users)
        said.add(str(refused.value))
        for delta in (1 / 191, 1 / 249, 1 / 300):
            with pytest.raises(BudgetError, match="well below one"):
                planned_noise(tiny_plan(tiny_base, f"privacy.delta={delta}"), users)
    assert len(said) == 1


def test_what_a_round_costs_is_that_of_the_declared_number(tiny_base):
    plan = tiny_plan(tiny_base, "privacy.epsilon=6.0", "privacy.lot_users=50")
    ahead = [replace(forecast(plan, users, Limits(8.0), ()), users=0) for users in (190, 250, 400)]
    assert ahead[0] == ahead[1] != ahead[2]
    assert ahead[0].sample_rate == 50 / 256


def test_an_overspent_budget_tells_its_owner_by_how_much_and_a_peer_only_that(tiny_base):
    plan = tiny_plan(tiny_base, "privacy.epsilon=8.0")
    event = GaussianSteps(1.0, 0.2, 10)
    after = epsilon([event, event], 1e-5)
    with pytest.raises(BudgetError) as refused:
        check_budget(plan, Limits(1.5), (event,), event)
    assert f"bring epsilon to {after:.3f}, {after - 1.5:.3f} above this domain's limit of 1.5" in str(refused.value)
    assert "above this domain's limit of 1.5 at delta 1e-05" in refused.value.told
    assert f"{after:.3f}"[:4] not in refused.value.told


def test_a_round_is_refused_alike_whatever_passports_users_were_given():
    """A server is refused for nothing: by asking for ever less it would find out."""
    plan, event = read_plan({"privacy": {"epsilon": 8.0}}), GaussianSteps(1.0, 0.2, 10)
    cost, tokens = epsilon([event], 1e-5), (TokenRelease(2.5, "near-set", user="x"), TokenRelease(1.0, "near-set"))
    for limit in (cost - 0.01, cost + 0.01, cost + 0.99, cost + 1.01):
        told = set()
        for spent in ((), tokens[:1], tokens):
            try:
                check_budget(plan, Limits(limit, passports=1.0), spent, event)
                told.add("")
            except BudgetError as refused:
                told.add(refused.told)
        assert len(told) == 1
        assert ("" in told) == (limit > cost + 1)


def test_passports_have_the_part_that_is_kept_for_them():
    plan, trained = read_plan({"privacy": {"epsilon": 8.0}}), (GaussianSteps(1.0, 0.2, 10),)
    cost, before = epsilon(trained, 1e-5), (TokenRelease(2.5, "near-set", user="x"),)
    limits = Limits(cost + 4, passports=4.0)
    assert check_budget(plan, limits, [*trained, *before], TokenRelease(1.5, "near-set", user="x")) == cost + 4
    with pytest.raises(BudgetError, match=r"4\.100, 0\.100 above the 4 of --max-epsilon"):
        check_budget(plan, limits, [*trained, *before], TokenRelease(1.6, "near-set", user="x"))
    with pytest.raises(BudgetError, match=r"start with --for-passports 2\.5 or more"):
        check_passports(Limits(9.0, passports=2.0), before)
    check_passports(Limits(9.0, passports=2.5), before)
    thirds = [TokenRelease(part, "near-set", user="x") for part in (0.1, 0.2)]  # whose sum is a little above .3
    check_passports(Limits(9.0, passports=0.3), thirds)
    check_passports(Limits(), before)


def test_passports_given_while_a_process_trains_count_too(tmp_path):
    """It began before they were given, and knows of no part that is kept for them."""
    home, plan, event = Home(tmp_path), read_plan({"privacy": {"epsilon": 8.0}}), GaussianSteps(1.0, 0.2, 10)
    append_event(home.ledger, TokenRelease(4.0, "near-set", user="x"))
    with pytest.raises(BudgetError, match="start with --for-passports 4 or more") as refused:
        pay(home, plan, Limits(epsilon([event], 1e-5) + 1), event, simulated=False)
    assert "4" not in refused.value.told
    assert "passports" not in refused.value.told
    assert len(read_events(home.ledger)) == 1
    pay(home, plan, Limits(epsilon([event], 1e-5) + 4, passports=4.0), event, simulated=False)


def test_what_devices_spent_counts_against_the_same_limit(tmp_path):
    home, plan, event = Home(tmp_path), read_plan({"privacy": {"epsilon": 8.0}}), GaussianSteps(1.0, 0.2, 10)
    cost = epsilon([event], 1e-5)
    append_event(home.devices, event)
    with pytest.raises(BudgetError, match="above this domain's limit"):
        pay(home, plan, Limits(cost + 0.01), event, simulated=False)
    assert read_events(home.ledger) == ()
    pay(home, plan, Limits(2 * cost), event, simulated=False)
    assert spent_at(home) == [event, event]


def test_a_cut_in_time_and_a_promise_do_not_go_together(members, tiny_base):
    member, plan = members[0], tiny_plan(tiny_base, "privacy.epsilon=8.0")
    adapter, _, base = initial_state(plan)
    before = read_events(member.home.ledger)
    member.protocol = "time"
    try:
        with pytest.raises(BudgetError, match="start with --protocol loo"):
            member.train(Task("train", 1, plan, adapter, base))
    finally:
        member.protocol = "loo"
    assert read_events(member.home.ledger) == before


@pytest.mark.parametrize("setting", ["privacy.mechanism=banded", "privacy.clip_quantile=0.5", "privacy.item_rank=4"])
def test_a_promise_that_devices_alone_can_keep_is_refused_before_it_costs(members, tiny_base, setting):
    member, plan = members[0], tiny_plan(tiny_base, "privacy.epsilon=8.0", setting)
    adapter, _, base = initial_state(plan)
    before = read_events(member.home.ledger)
    with pytest.raises(ConfigError, match="is for a federation of devices"):
        member.train(Task("train", 1, plan, adapter, base))
    assert read_events(member.home.ledger) == before


def test_a_forecast_is_what_the_rounds_then_cost(members, tiny_base):
    plan = tiny_plan(tiny_base, "privacy.epsilon=6.0", "federation.rounds=3")
    before = (GaussianSteps(2.0, 0.1, 5),)
    users = len(sampled_users(members[0].corpus(plan)))
    ahead = forecast(plan, users, Limits(), before)
    assert (ahead.users, ahead.rounds, ahead.rounds_allowed) == (users, 3, 3)
    one = GaussianSteps(ahead.noise_multiplier, ahead.sample_rate, ahead.steps)
    assert 5.9 < ahead.epsilon == epsilon([one] * 3, plan.privacy.delta) <= 6
    assert ahead.after == epsilon([*before, one, one, one], plan.privacy.delta) > ahead.epsilon


def test_a_forecast_counts_the_rounds_that_a_limit_lets_pass(members, tiny_base):
    plan = tiny_plan(tiny_base, "privacy.epsilon=6.0", "federation.rounds=3")
    one = forecast(plan, 100, Limits(), ())
    event = GaussianSteps(one.noise_multiplier, one.sample_rate, one.steps)
    for allowed in range(4):
        limit = epsilon([event] * allowed, plan.privacy.delta) + 0.01
        assert forecast(plan, 100, Limits(limit, plan.privacy.delta), ()).rounds_allowed == allowed
        for done in range(3):  # and the check before each round agrees
            spent = [event] * done
            if done < allowed:
                check_budget(plan, Limits(limit, plan.privacy.delta), spent, event)
            else:
                with pytest.raises(BudgetError):
                    check_budget(plan, Limits(limit, plan.privacy.delta), spent, event)
