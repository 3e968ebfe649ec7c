"""The sum is right or the round fails cleanly, whoever falls silent when; and what the server gets to know."""

from dataclasses import replace

import numpy as np
import pytest
from support.fake_member import FakeMember, fake_plan, fake_start
from support.secure_party import CAP, RELEASED, STEPS, Party

from server.aggregate import AGGREGATORS
from server.rounds import ServerState, step
from server.secure_sum import secure_carrier
from shared import secure_payload as payload
from shared.errors import FederationError
from shared.payload import Task
from shared.plan import FederationPlan, Plan
from shared.secure_sum import STEP, quorum, to_ring
from simulations.in_process import carrier_for

LATE = ("attend", "open")  # who falls silent there has sent its numbers


def check(party, update):
    weight = sum(min(party.updates[name].weight, CAP) for name in update.summed)
    assert update.weight == weight
    for key, truth in party.mean(update.summed).items():
        error = np.abs(update.delta[key] - truth).max()
        assert error <= len(update.summed) * STEP / weight + 1e-8  # quantisation, and float32


@pytest.mark.parametrize("count", [3, 4, 7])
def test_the_sum_of_all(count):
    party = Party(count)
    update = party.run()
    assert list(update.summed) == party.names
    check(party, update)


@pytest.mark.parametrize("at", STEPS)
@pytest.mark.parametrize("count", [3, 6, 15])
def test_a_third_falls_silent_at_one_step(count, at):
    party = Party(count)
    away = set(party.names[1::3])
    party.silent = {at: away}
    if count - len(away) < 3 and at not in LATE:  # of two, each would learn the other's part
        with pytest.raises(FederationError, match=r"3 to 128 members, found 2|0 of 2 members answered"):
            party.run()
        return
    if count == 3:  # two cannot open what three shared
        with pytest.raises(FederationError, match=r"2 of the 3 shares needed|0 of 2 members answered"):
            party.run()
        return
    update = party.run()
    assert set(update.summed) == (set(party.names) if at in LATE else set(party.names) - away)
    check(party, update)


def test_two_train_nothing():
    asked = []
    carry = secure_carrier(lambda: [1, 2], lambda raws: asked.append(raws) or {}, frozenset(), lambda who, why: None)
    task = Task("train", 1, fake_plan(secure=True), *fake_start(fake_plan())[::2])
    with pytest.raises(FederationError, match="2 members are there, expected 3 at least"):
        list(carry(lambda domain: task))
    assert asked == []  # nor is a budget spent


def test_more_than_a_third_gone_fails_cleanly():
    party = Party(5)
    party.silent = {"open": set(party.names[:2])}
    with pytest.raises(FederationError, match="3 of the 4 shares needed"):
        party.run()
    party = Party(5)
    party.silent = {"announce": set(party.names)}
    with pytest.raises(FederationError, match="0 of 5 members answered"):
        party.run()


def test_a_member_that_answers_nonsense_is_left_out():
    party = Party(5)
    true = party.answer
    party.answer = lambda name, raw: b"nonsense" if name == "d002" and payload.is_secure(raw) else true(name, raw)
    update = party.run()
    assert "d002" not in update.summed
    assert "found something else" in party.told["d002"]
    check(party, update)


@pytest.mark.parametrize("count", [4, 7])
def test_a_wrong_share_ends_the_round_where_each_is_needed(count):
    party = Party(count)
    party.silent = {"mask": {"d001"}}
    true = party.answer

    def answer(name, raw):
        answered = true(name, raw)
        if name == "d002" and answered.startswith(payload.MAGIC + b'{"kind": "opened"'):
            _, head, _ = payload.unpack(answered, payload.OPENED)
            keys = payload.table_from(head, "keys")
            keys["d001"] = keys["d001"][:-1] + bytes([keys["d001"][-1] ^ 1])
            return payload.blobs(payload.OPENED, seeds=payload.table_from(head, "seeds"), keys=keys)
        return answered

    party.answer = answer
    if count == 7:  # six shares, of which five open it
        check(party, party.run())
        return
    with pytest.raises(FederationError, match=r"the shares for d001 do not fit together"):
        party.run()


@pytest.mark.parametrize(("count", "learning"), [(3, 0), (3, 2), (9, 1), (9, 5)])
def test_where_few_learnt_anything_there_is_no_sum(count, learning):
    """Of a task that others learn nothing from, the sum would be the update of who does."""
    party = Party(count)
    party.updates |= {name: replace(party.updates[name], weight=0.0) for name in party.names[learning:]}
    with pytest.raises(FederationError, match=f"0 of {count} members answered"):
        party.run()
    assert f"fewer than the {quorum(count)} that are needed learnt anything" in party.told[party.names[0]]


def test_who_learnt_something_and_is_gone_does_not_count():
    party = Party(9)
    party.updates |= {name: replace(party.updates[name], weight=0.0) for name in party.names[6:]}
    check(party, party.run())
    party.silent = {"mask": {party.names[0]}}  # eight are there, of whom five add anything
    with pytest.raises(FederationError, match="0 of 8 members answered"):
        party.run()
    assert "fewer than the 6 that are needed learnt anything" in party.told[party.names[1]]


def test_who_learnt_nothing_is_one_of_the_sum_and_moves_nothing():
    party = Party(9)
    idle = party.names[::4]
    party.updates |= {name: replace(party.updates[name], weight=0.0) for name in idle}
    update = party.run()
    assert list(update.summed) == party.names
    check(party, update)


def test_a_mask_that_is_left_over_is_noticed():
    party = Party(3)
    true = party.answer

    def answer(name, raw):
        answered = true(name, raw)
        if name == "d000" and answered.startswith(payload.MAGIC + b'{"kind": "masked"'):
            return payload.masked(payload.numbers_from(answered, 12) + np.uint64(2**63))
        return answered

    party.answer = answer
    with pytest.raises(FederationError, match="a member broke the rules"):
        party.run()


def test_the_server_holds_no_update_and_no_key_to_one():
    party = Party(7)
    party.silent = {"mask": {"d004"}, "open": {"d005"}}
    party.run()
    seeds: dict[str, int] = {}
    keys: dict[str, int] = {}
    for step_, name, raw in party.heard:
        # Neither numbers in clear, as floats or in the ring, nor the weight, stand in anything that it heard.
        weight = min(party.updates[name].weight, CAP)
        for value in party.updates[name].delta.values():
            scaled = to_ring(weight * value.astype(np.float64).ravel())
            assert value.tobytes()[:8] not in raw
            assert scaled.tobytes()[:8] not in raw
        if step_ == "mask":
            numbers = payload.numbers_from(raw, 12)
            assert not np.isin(numbers, to_ring(np.array([weight]))).any()
        if step_ == "open":
            _, head, _ = payload.unpack(raw, payload.OPENED)
            for table, count in (("seeds", seeds), ("keys", keys)):
                for whose in payload.table_from(head, table):
                    count[whose] = count.get(whose, 0) + 1
    assert not seeds.keys() & keys.keys()  # of nobody shares of both secrets
    assert keys.keys() == {"d004"}  # who sent nothing that the masks could cover


def test_the_same_update_is_masked_anew_each_time():
    party = Party(3)
    party.run()
    party.run()
    numbers = [payload.numbers_from(raw, 12) for step_, name, raw in party.heard if step_ == "mask" and name == "d000"]
    assert len(numbers) == 2
    assert not (numbers[0] == numbers[1]).any()


@pytest.mark.parametrize("count", [3, 20])
def test_bytes_beside_a_plain_round(count):
    """A plain round: the adapter to each, its released part back, four bytes a number."""
    party = Party(count)
    party.run()
    head = 64 * 1024 * count
    plain = count * 4 * (16 + 11)
    assert party.sent + sum(len(raw) for _, _, raw in party.heard) <= 2 * plain + head


def test_a_round_in_secrecy_is_the_plain_round():
    adapter, released, base = fake_start(fake_plan())
    found = {}
    for secure in (False, True):
        plan = Plan(federation=FederationPlan(rounds=2, secure=secure))
        state = ServerState(1, plan, adapter, released, base)
        members = [FakeMember(name) for name in ("book", "music", "video")]
        for _ in range(2):
            state = step(state, carrier_for(state, members), AGGREGATORS["ffa"](plan.federation.weight_cap))
        found[secure] = state
    for key, value in found[False].adapter.items():
        np.testing.assert_allclose(found[True].adapter[key], value, rtol=1e-6, atol=1e-8)
    assert found[True].report["domains"] == found[False].report["domains"] == ["book", "music", "video"]
    assert list(found[True].report["update_norms"]) == ["all together"]  # no single one is known
    assert {"lora_B", "tower"} == RELEASED
