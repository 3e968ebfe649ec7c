"""Item tables under affinity: owners of one catalogue share one, within their kind."""

from dataclasses import replace

import numpy as np
import pytest
from support.two_kinds import SIZE, after_two, kinds, updates

from server.affinity import by_affinity
from server.likeness import NOISE
from server.rounds import ServerState, adapter_for, step
from shared.errors import FederationError
from shared.payload import AdapterUpdate, table_name
from shared.plan import Plan


def tables(number, names, bias, vectors, catalogue="c" * 16):
    """Updates of one kind that hold a table: its bias and its residuals, each two numbers of these values."""
    given = updates(*kinds(), number, names=names)
    for one in given:
        come = {"bias": bias(one.domain), "vectors": vectors}
        one.delta.update({table_name(catalogue, key): np.full(2, value, np.float32) for key, value in come.items()})
    return given


def table_of(memory, name, key, catalogue="c" * 16):
    return float(by_affinity(4096).offsets(memory, name)[table_name(catalogue, key)][0])


def test_who_was_away_catches_up_with_the_table_too():
    """Its bias is a step by then; two kin, for one has to weigh as much as who comes back and is there."""
    memory = None
    for number in range(1, 9):
        names = ["film0", "film1", *["film2"] * (number not in range(3, 8))]
        _, memory, _ = by_affinity(4096).apply(memory, tables(number, names, lambda _: 1.0, 1.0))
    for name in names:
        assert (table_of(memory, name, "bias"), table_of(memory, name, "vectors")) == pytest.approx((8, 8))


def test_who_is_ahead_in_towers_but_new_to_a_catalogue_leads_nobody_there():
    memory = None
    for number in range(1, 6):
        given = [*tables(number, ["film0"], lambda _: 1.0, 1.0), *updates(*kinds(), number, names=["film1", "film2"])]
        _, memory, _ = by_affinity(4096).apply(memory, given)
    _, memory, _ = by_affinity(4096).apply(memory, updates(*kinds(), 6, names=["film1", "film2"]))
    _, memory, _ = by_affinity(4096).apply(memory, tables(7, ["film0", "film1", "film2"], lambda _: 0.0, 1.0))
    assert table_of(memory, "film0", "vectors") == pytest.approx(8 / 3)  # the mean of 6, 1 and 1


def test_the_first_table_of_who_joins_late_is_whole_but_for_its_residuals():
    """Its bias is no step from anybody's."""
    memory = None
    for number in range(1, 5):
        names = ["film0", "film1", *["film2"] * (number == 4)]
        whole = lambda name, number=number: 5.0 if number == 1 or name == "film2" else 0.0  # noqa: E731
        _, memory, _ = by_affinity(4096).apply(memory, tables(number, names, whole, 1.0))
    assert table_of(memory, "film2", "bias") == pytest.approx(5)
    assert table_of(memory, "film2", "vectors") == pytest.approx(4)  # three rounds of its kin, and its own


def shop(name, direction, draw, catalogue, items, number=1):
    delta = {
        "x.lora_B.weight": np.ones((2,), np.float32),
        "item.weight": (direction + draw.normal(size=SIZE)).astype(np.float32),
        "user.outward.bias": np.ones((3,), np.float32),
        f"items.{catalogue}.vectors": np.full((items, 3), float(ord(name[-1])), np.float32),
        f"items.{catalogue}.bias": np.full((items,), float(ord(name[-1])), np.float32),
    }
    return AdapterUpdate(name, number, delta, NOISE, "base")


def test_owners_of_one_catalogue_share_its_table_and_nobody_else():
    directions, draw = kinds()
    film, tool = directions["film"], directions["tool"]
    came = [
        shop("film-a", film, draw, "c1", 4),
        shop("film-c", film, draw, "c1", 4),
        shop("film-x", film, draw, "c2", 6),
    ]
    came.append(shop("tool-z", tool, draw, "c1", 4))  # the same catalogue, another kind
    _, memory, facts = after_two(came)
    own = by_affinity(4096).offsets(memory, "film-a")
    assert {name for name in own if name.startswith("items.")} == {"items.c1.bias", "items.c1.vectors"}
    everybody = (ord("a") + ord("c") + ord("z")) / 3  # the first round's
    np.testing.assert_allclose(own["items.c1.bias"], everybody + (ord("a") + ord("c")) / 2, atol=0.1)
    np.testing.assert_allclose(by_affinity(4096).offsets(memory, "film-x")["items.c2.vectors"], 2 * ord("x"))
    np.testing.assert_allclose(
        by_affinity(4096).offsets(memory, "tool-z")["items.c1.bias"], everybody + ord("z"), atol=0.1
    )
    assert facts["affinity"]["film-a"]["film-x"] > 0.7  # what is in a table says nothing of the kind


def shared_state(memory=None):
    plan = Plan(
        model=replace(Plan().model, shared_items=True), federation=replace(Plan().federation, family="affinity")
    )
    names = {"x.lora_B.weight": 2, "item.weight": SIZE, "user.outward.bias": 3}
    adapter = {name: np.zeros(size, np.float32) for name, size in names.items()}
    return ServerState(1, plan, adapter, frozenset(names), "base", memory)


def test_a_domain_gets_its_table_with_its_adapter_and_the_common_adapter_has_none():
    directions, draw = kinds()
    came = [shop("film-a", directions["film"], draw, "c1", 4), shop("film-c", directions["film"], draw, "c1", 4)]
    after = step(shared_state(), lambda _: came, by_affinity(4096))
    assert after.report["refused"] == {}
    assert not any(name.startswith("items.") for name in after.adapter)
    assert adapter_for(after, by_affinity(4096), "film-a")["items.c1.vectors"].shape == (4, 3)
    assert not any(name.startswith("items.") for name in adapter_for(after, by_affinity(4096), "new"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"items.c1.bias": np.zeros(5, np.float32)}, "vectors has shape (4, 3), which does not fit 5 biases"),
        ({"items.c1.vectors": np.full((4, 3), np.inf, np.float32)}, "not finite"),
        ({"items.c1.vectors": np.zeros((4, 2), np.float32)}, "vectors has shape (4, 2), which does not fit 4 biases"),
        ({"items.c2.bias": np.zeros(4, np.float32)}, "expected bias, vectors of one catalogue"),
        ({"items.c1.bias": np.zeros(9, np.float32), "items.c1.vectors": np.zeros((9, 3), np.float32)}, "others sent"),
        ({"else": np.zeros(3, np.float32)}, "unknown tensor"),
    ],
)
def test_tables_that_cannot_be_mixed_are_refused(change, says):
    directions, draw = kinds()
    good = shop("film-a", directions["film"], draw, "c1", 4)
    bad = shop("film-c", directions["film"], draw, "c1", 4)
    bad = replace(bad, delta={**bad.delta, **change})
    after = step(shared_state(), lambda _: [good, bad], by_affinity(4096))
    assert after.report["domains"] == ["film-a"]
    assert says in after.report["refused"]["film-c"]
    # and of a shape that an earlier round did not have
    late = step(
        replace(after, round=2),
        lambda _: [replace(shop("film-a", directions["film"], draw, "c1", 4), round=2)],
        by_affinity(4096),
    )
    assert late.report["refused"] == {}


def test_a_table_where_the_plan_shares_none_is_an_unknown_tensor():
    directions, draw = kinds()
    state = replace(shared_state(), plan=Plan())
    with pytest.raises(FederationError, match="unknown tensor 'items"):
        step(state, lambda _: [shop("film-a", directions["film"], draw, "c1", 4)], by_affinity(4096))


def test_the_table_of_a_catalogue_that_a_domain_has_no_more_is_dropped():
    directions, draw = kinds()
    film = directions["film"]
    _, memory, _ = by_affinity(4096).apply(
        None, [shop("film-a", film, draw, "c1", 4), shop("film-c", film, draw, "c1", 4)]
    )
    _, memory, _ = by_affinity(4096).apply(memory, [shop("film-a", film, draw, "c2", 6)])
    tables = {name for name in by_affinity(4096).offsets(memory, "film-a") if name.startswith("items.")}
    assert tables == {"items.c2.bias", "items.c2.vectors"}
    assert "items.c1.bias" in by_affinity(4096).offsets(memory, "film-c")  # away this round, not changed


def test_a_domain_named_like_a_table_hinders_nobody():
    directions, draw = kinds()
    odd = replace(shop("film-c", directions["film"], draw, "c2", 6), domain="items.c1.bias")
    after = step(shared_state(), lambda _: [odd], by_affinity(4096))
    late = replace(shop("film-a", directions["film"], draw, "c1", 4), round=2)
    assert step(after, lambda _: [late], by_affinity(4096)).report["refused"] == {}
