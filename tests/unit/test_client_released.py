from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from support.tiny_members import first_task, tiny_plan

import client.rounds as rounds
from client.budget import Limits
from client.rounds import DomainMember
from client.store import Home
from client.workshop import Workshop
from shared.accounting import epsilon, sentence
from shared.errors import BudgetError, DataError
from shared.ledger import PlainRelease, read_events
from shared.payload import run_of


def test_a_private_round_is_in_the_ledger_before_anything_else(members, tiny_base, monkeypatch):
    plan = tiny_plan(tiny_base, "privacy.epsilon=8.0")
    task, _ = first_task(plan)
    members[0].train(task)
    assert len(read_events(members[0].home.ledger)) == 1
    assert members[0].spent(plan)["epsilon"] <= 8.0
    monkeypatch.setattr("client.rounds.train_privately", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        members[0].train(replace(task, round=2))
    assert len(read_events(members[0].home.ledger)) == 2  # wasted, not hidden


def killed(member, task, monkeypatch, error=KeyboardInterrupt):
    """As if the process ended between the ledger's line and the update."""
    with monkeypatch.context() as patch:

        def die(*_, **__):
            raise error

        patch.setattr("client.rounds.train_privately", die)
        with pytest.raises(error):
            member.train(task)


def test_a_round_whose_process_was_killed_is_paid_for(members, tiny_base, tmp_path, monkeypatch):
    """Nothing of it had left, so the same task, asked again, costs nothing more and all rounds can be had."""
    plan = tiny_plan(tiny_base, "privacy.epsilon=6.0", "federation.rounds=3")
    member = DomainMember(members[0].domain, Home(tmp_path), members[0].workshop)
    task, _ = first_task(plan)
    lasting: list[Path] = []
    monkeypatch.setattr("client.released.on_disk", lasting.append)
    for number in (1, 2, 3):
        killed(member, replace(task, round=number), monkeypatch)
        killed(member, replace(task, round=number), monkeypatch)
        lasting.clear()
        member.train(replace(task, round=number))
        assert lasting == [member.home.ledger]  # the process that wrote the line may not have come so far
    assert member.spent(plan)["releases"] == 3
    assert member.spent(plan)["epsilon"] <= 6.0


def test_what_may_have_left_is_paid_for_again(members, tiny_base, tmp_path, monkeypatch):
    plan = tiny_plan(tiny_base, "privacy.epsilon=6.0", "federation.rounds=9")
    task, _ = first_task(plan)

    def releases(*steps):
        member = DomainMember(
            members[0].domain, Home(tmp_path / str(len(list(tmp_path.iterdir())))), members[0].workshop
        )
        for step in steps:
            step(member)
        return member.spent(plan)["releases"]

    def train(number):
        return lambda member: member.train(replace(task, round=number))

    def stop(number, error=KeyboardInterrupt):
        return lambda member: killed(member, replace(task, round=number), monkeypatch, error)

    def damage(member):
        member.home.released.write_bytes(b"not what was kept")

    def remove(member):
        member.home.released.unlink()

    def restored(member):
        kept = member.home.released.read_bytes()
        member.train(replace(task, round=2))
        member.home.released.write_bytes(kept)

    def unreadable(member):
        def corpus(*_):
            raise DataError("the disk")

        with monkeypatch.context() as patch:
            patch.setattr(DomainMember, "corpus", corpus)
            with pytest.raises(DataError):
                member.train(replace(task, round=2))

    assert releases(train(1), damage, train(1)) == 2
    assert releases(train(1), remove, train(1)) == 2
    assert releases(train(1), restored, train(2)) == 3
    assert releases(train(1), stop(2), damage, train(2)) == 3
    assert releases(train(1), stop(2), unreadable, train(2)) == 2  # an error before anything was spent tells nothing
    assert releases(train(1), stop(2), stop(3), train(3)) == 3
    assert releases(train(1), stop(2, ZeroDivisionError), train(2)) == 3  # the server heard of it
    assert releases(train(1), stop(2), train(3), train(2)) == 4  # only what comes next is known not to have left
    assert releases(train(1), train(2), train(1)) == 3


def test_who_is_asked_the_same_meanwhile_makes_and_pays_it_once(members, tiny_base, tmp_path, monkeypatch):
    """A server that came back asks again while the first answer is still being made."""
    plan = tiny_plan(tiny_base, "privacy.epsilon=6.0")
    asked, _ = first_task(plan)
    one, two = (DomainMember(members[0].domain, Home(tmp_path), Workshop(tmp_path / "cache")) for _ in range(2))
    real, begun, go_on = rounds.train_privately, [], Event()

    def slow(*parts, **how):
        begun.append(1)
        go_on.wait(60)
        real(*parts, **how)

    monkeypatch.setattr(rounds, "train_privately", slow)
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(member.train, asked) for member in (one, two)]
        wait(answers, timeout=2)  # the second has had the time to begin as well
        go_on.set()
    first, second = (answer.result() for answer in answers)
    assert all(np.array_equal(value, second.delta[name]) for name, value in first.delta.items())
    assert (len(begun), len(read_events(one.home.ledger))) == (1, 1)


def test_all_rounds_of_a_plan_cost_what_it_says(members, tiny_base):
    plan = tiny_plan(tiny_base, "privacy.epsilon=6.0", "federation.rounds=2")
    task, _ = first_task(plan)
    for number in (1, 2):
        members[0].train(replace(task, round=number))
    assert 5.5 < members[0].spent(plan)["epsilon"] <= 6.0


def test_a_round_asked_again_sends_what_it_sent_and_costs_nothing(members, tiny_base, tmp_path):
    plan = tiny_plan(tiny_base, "privacy.epsilon=6.0", "federation.rounds=2")
    member = DomainMember(members[0].domain, Home(tmp_path), members[0].workshop)  # real noise
    task, _ = first_task(plan)
    turned = replace(task, adapter=dict(reversed(task.adapter.items())))
    first, again = member.train(task), member.train(turned)
    same = {name: np.array_equal(value, again.delta[name]) for name, value in first.delta.items()}
    assert all(same.values())
    assert (first.weight, first.round, first.domain) == (again.weight, again.round, again.domain)
    assert len(read_events(member.home.ledger)) == 1
    moved = {name: value + np.float32(0.01) for name, value in task.adapter.items()}
    other = member.train(replace(task, adapter=moved))  # another task: other noise
    assert not any(np.array_equal(value, other.delta[name]) for name, value in first.delta.items())
    assert [event.run for event in read_events(member.home.ledger)] == [run_of(task)] * 2
    with pytest.raises(BudgetError, match=r"had all 2 rounds that its privacy.epsilon 6 is for"):
        member.train(replace(task, round=2))
    assert len(read_events(member.home.ledger)) == 2
    member.limits = Limits(max_epsilon=20.0, at_delta=plan.privacy.delta)  # the owner's own limit allows more
    member.train(replace(task, round=2))
    member.home.released.write_bytes(b"not what was kept")
    assert member.spent(plan)["releases"] == 3


def test_an_update_without_a_promise_ends_every_promise(members, plan, tiny_base, tmp_path):
    member = DomainMember(members[0].domain, Home(tmp_path), members[0].workshop, simulated=True)
    private, _ = first_task(tiny_plan(tiny_base, "privacy.epsilon=6.0", "federation.rounds=2"))
    member.train(private)
    before = member.spent(private.plan)["epsilon"]
    assert 0 < before < 6
    member.train(first_task(plan)[0])
    assert read_events(member.home.ledger)[-1] == PlainRelease("update")
    assert member.spent(private.plan)["epsilon"] is None
    assert "no epsilon bounds" in sentence(epsilon(read_events(member.home.ledger), 1e-5), 1e-5)
    member.limits = Limits(max_epsilon=100.0)
    with pytest.raises(BudgetError, match="released without a promise before") as refused:
        member.train(replace(private, round=2))
    assert "limit on epsilon" in refused.value.told
    assert len(read_events(member.home.ledger)) == 2


def test_an_overspending_task_is_refused_and_costs_nothing(members, tiny_base):
    member = members[0]
    member.limits = Limits(max_epsilon=1.0)
    task, _ = first_task(tiny_plan(tiny_base, "privacy.epsilon=8.0"))
    with pytest.raises(BudgetError, match="above this domain's limit of 1"):
        member.train(task)
    assert read_events(member.home.ledger) == ()
    with pytest.raises(BudgetError, match="adds no noise"):
        member.train(first_task(tiny_plan(tiny_base))[0])
