"""Two kinds of domains whose towers pull into two directions; LoRA is everyone's."""

from dataclasses import replace

import numpy as np
import pytest
from support.contracts import AggregatorContract
from support.two_kinds import SIZE, after_two, kinds, updates

from server import registry
from server.affinity import by_affinity, caught_up, kinship, leaders, mixture
from server.aggregate import aggregator_for
from server.kinds import kinds as find
from server.kinds import told
from server.likeness import CALM, FEWEST, KEEP, LEAST_TURNS, NOISE, NOISED, cosine_table, likeness, sketch
from server.rounds import ServerState, adapter_for, step, tasks
from server.rule import Aggregator
from shared.payload import AdapterUpdate
from shared.plan import Plan, read_plan

NOBODY = np.zeros((2, 2), np.bool_)  # no pair of two domains is told to be kin


class TestAffinity(AggregatorContract):
    def make(self, cap: float) -> Aggregator:
        return by_affinity(cap)


class TestAffinityUnderNoise(AggregatorContract):
    def make(self, cap: float) -> Aggregator:
        return by_affinity(cap, NOISED)


def shares_of(alike, weights, *of):
    return mixture(kinship(alike, *of), weights)


def test_kinds_are_found_and_share_towers_only_among_themselves():
    directions, draw = kinds()
    given = updates(directions, draw)
    delta, memory, facts = after_two(updates(directions, draw), given)
    assert delta.keys() == {"x.lora_B.weight"}
    np.testing.assert_allclose(delta["x.lora_B.weight"], 3.5)  # the mean of 1..6
    own = by_affinity(4096).offsets(memory, "film1")["item.weight"]
    first = by_affinity(4096).offsets(by_affinity(4096).apply(None, given)[1], "film1")["item.weight"]
    assert np.corrcoef(first, directions["film"] + directions["tool"])[0, 1] > 0.8  # round 1: everybody's
    # Of the common first round half a direction each, of the second the own kind's whole one.
    assert np.corrcoef(own, 3 * directions["film"] + directions["tool"])[0, 1] > 0.8
    assert facts["cosines"]["film0"]["film1"] == pytest.approx(0.5, abs=0.06)
    assert facts["affinity"]["film0"]["film1"] == pytest.approx(1.0, abs=0.12)
    assert abs(facts["affinity"]["film0"]["tool1"]) < 0.16
    assert sum(facts["shares"]["film0"].values()) == pytest.approx(1, abs=1e-3)
    assert facts["shares"]["film0"]["tool1"] < 0.01
    assert by_affinity(4096).offsets(memory, "unknown") == {}


def test_the_first_round_is_everybodys_and_tells_nothing_of_kinds():
    directions, draw = kinds()
    way = 3 * draw.normal(size=SIZE)
    common = {kind: direction + way for kind, direction in directions.items()}
    _, memory, facts = by_affinity(4096).apply(None, updates(common, draw))
    assert facts["affinity"]["film0"]["tool0"] > CALM.kin  # all move one way at first
    assert set(facts["shares"]["film0"].values()) == {round(1 / 6, 4)}
    _, _, facts = by_affinity(4096).apply(memory, updates(directions, draw))
    assert abs(facts["affinity"]["film0"]["tool0"]) < 0.16  # and that is forgotten


def test_of_many_domains_the_first_round_is_shared_within_kinds_alone():
    """However much all move one way, and whatever the size of a domain."""
    directions, draw = kinds()
    way = 2 * draw.normal(size=SIZE)
    names = [f"{kind}{row}" for kind in directions for row in range(4)]
    given = updates({kind: direction + way for kind, direction in directions.items()}, draw, names=names)
    given[0] = replace(given[0], weight=NOISE / 2)
    _, memory, facts = by_affinity(4096).apply(None, given)
    assert facts["affinity"]["film1"]["tool1"] > CALM.kin
    assert facts["kinds"] == {name: facts["kinds"]["film0" if name < "tool" else "tool0"] for name in names}
    assert facts["kinds"]["film0"] != facts["kinds"]["tool0"]
    assert facts["shares"]["film1"] == {
        name: pytest.approx(share, abs=1e-4)
        for name, share in zip(names, [1 / 7, 2 / 7, 2 / 7, 2 / 7, 0, 0, 0, 0], strict=True)
    }
    own = by_affinity(4096).offsets(memory, "film1")["item.weight"]
    assert np.corrcoef(own, directions["tool"])[0, 1] < 0.1


def test_a_domain_that_finishes_is_told_whether_others_are_in_its_towers():
    directions, draw = kinds()
    given = updates(directions | {"lone": draw.normal(size=SIZE)}, draw, names=["film0", "film1", "film2", "lone0"])
    _, memory, _ = after_two(given)
    rule = by_affinity(4096)
    assert rule.others(memory, "film0") == pytest.approx(2 / 3, abs=0.02)
    assert rule.others(memory, "lone0") == pytest.approx(0, abs=0.01)
    assert rule.others(memory, "unknown") == 0
    state = ServerState(3, Plan(), {}, frozenset(), "base", memory)
    assert tasks(state, rule, "finish")("film0").kin
    assert not tasks(state, rule, "finish")("lone0").kin
    assert not tasks(state, rule, "train")("film0").kin
    nearly = {"others\nfilm0": np.array([0.09], np.float32)}
    assert not tasks(replace(state, memory=nearly), rule, "finish")("film0").kin


def test_one_domain_alone_keeps_its_own():
    directions, draw = kinds()
    (one, *_) = updates(directions, draw)
    _, memory, facts = by_affinity(4096).apply(None, [one])
    np.testing.assert_array_equal(
        by_affinity(4096).offsets(memory, one.domain)["item.weight"], one.delta["item.weight"]
    )
    assert facts["shares"] == {one.domain: {one.domain: 1.0}}


def test_strangers_keep_to_themselves():
    alike = np.array([[1.0, 0.2], [0.2, 1.0]])
    np.testing.assert_allclose(
        shares_of(alike, np.array([1.0, 2.0]), CALM.kin, np.ones(2), NOBODY), np.eye(2), atol=0.03
    )
    half = shares_of(np.array([[1.0, CALM.kin], [CALM.kin, 1.0]]), np.ones(2), CALM.kin, np.ones(2), NOBODY)
    np.testing.assert_allclose(half, [[2 / 3, 1 / 3], [1 / 3, 2 / 3]])


def test_several_kinds_that_are_all_alike_do_not_mix():
    of = np.repeat([0, 1, 2], 3)
    alike = np.where(of[:, None] == of, 1.3, 0.7)
    shares = shares_of(alike, np.ones(9), CALM.kin, find(alike), told(alike, find(alike)))
    np.testing.assert_allclose(shares, np.where(of[:, None] == of, 1 / 3, 0.0))
    pair = alike[2:4, 2:4]
    few = shares_of(
        pair, np.ones(2), CALM.kin, find(pair), told(pair, find(pair))
    )  # of two domains nothing says that they are two kinds
    np.testing.assert_allclose(few, 0.5, atol=0.01)


def test_what_is_told_to_be_one_kind_shares_all_however_little_is_left_in_common():
    """And an owner of few users, who was placed there, as much as it is like each of them."""
    of = np.array([0] * 4 + [1] * 5)
    alike = np.where(of[:, None] == of, CALM.kin - 0.2, 0.0)
    alike[8, 4:8] = alike[4:8, 8] = [CALM.kin + 0.4] * 2 + [CALM.kin - 0.4] * 2
    np.fill_diagonal(alike, [1.0] * 8 + [9.0])
    found = find(alike)
    assert (found[:, None] == found).tolist() == (of[:, None] == of).tolist()
    sure = told(alike, found)
    assert (sure | np.eye(9, dtype=np.bool_))[4:8, 4:8].all()
    assert not sure[8].any()
    shares = shares_of(alike, np.ones(9), CALM.kin, found, sure)
    np.testing.assert_allclose(shares[0], [0.25] * 4 + [0.0] * 5)
    np.testing.assert_allclose(shares[8], [0.0] * 4 + [1 / 3, 1 / 3, 0.0, 0.0, 1 / 3], atol=1e-3)
    assert not told(alike[4:, 4:], np.ones(5)).any()  # of few nothing is
    assert not told(alike, np.ones(9)).any()  # nor where all are of one kind


def test_a_small_owner_is_as_much_kin_as_a_large_one():
    users = np.array([NOISE, NOISE / 8])
    cosine = 1 / np.sqrt(2 * 9)
    np.testing.assert_allclose(likeness(np.full((2, 2), cosine), users)[0, 1], 1.0)
    # but declaring next to no users does not make a stranger kin
    tiny = likeness(np.array([[1.0, 0.02], [0.02, 1.0]]), np.array([1e-9, 1e9]))
    assert tiny[0, 1] == pytest.approx(0.02 * np.sqrt(1 + NOISE / FEWEST), rel=1e-3)
    assert tiny[0, 1] < CALM.kin / 2


def test_a_sketch_keeps_angles():
    draw = np.random.default_rng(1)
    one, two = draw.normal(size=(2, 50_000))
    both = [{"a": one[:20_000], "b": one[20_000:]}, {"a": (one + two)[:20_000], "b": (one + two)[20_000:]}]
    table = cosine_table(np.stack([sketch(tensors) for tensors in both]))
    assert table[0, 1] == pytest.approx(0.5**0.5, abs=0.05)
    assert cosine_table(np.zeros((1, 3))).tolist() == [[0.0]]


def test_a_domain_that_drifts_changes_its_kin():
    directions, draw = kinds()
    aggregator, memory = by_affinity(4096), None
    for number in range(1, 9):
        kind = "film" if number < 4 else "tool"
        given = updates(directions, draw, number)
        given[0] = AdapterUpdate(
            "film0", number, updates(directions, draw, number, 1.0, [f"{kind}9"])[0].delta, 1.0, "b"
        )
        _, memory, facts = aggregator.apply(memory, given)
        near = facts["affinity"]["film0"]
        if number == 3:
            assert near["film1"] > near["tool1"] + 0.2
    assert near["tool1"] > near["film1"] + 0.2
    assert KEEP < 1


def progress(memory, name, direction):
    """How many rounds' worth of a kind's direction a domain's tower has."""
    own = by_affinity(4096).offsets(memory, name)["item.weight"]
    return float(own @ direction / (direction @ direction))


@pytest.mark.parametrize("absent", [range(1, 8), range(3, 8)], ids=["joins late", "comes back"])
def test_who_was_not_there_catches_up_and_throws_nobody_back(absent):
    directions, draw = kinds()
    aggregator, memory, before = by_affinity(4096), None, 0.0
    for number in range(1, 11):
        given = [one for one in updates(directions, draw, number) if one.domain != "film2" or number not in absent]
        _, memory, _ = aggregator.apply(memory, given)
        now = progress(memory, "film0", directions["film"])
        assert now > before + (0.3 if number == 1 else 0.9)  # the first round is shared with the other kind
        before = now
    assert progress(memory, "film2", directions["film"]) == pytest.approx(before, abs=0.1)
    assert progress(memory, "film2", directions["tool"]) == pytest.approx(0.5, abs=0.2)


def test_a_late_domain_of_no_kind_here_keeps_its_own():
    directions, draw = kinds()
    aggregator, memory = by_affinity(4096), None
    directions["lone"] = draw.normal(size=SIZE)
    for number in range(1, 6):
        given = updates(directions, draw, number, names=["film0", "film1", "tool0", "tool1", *["lone0"] * (number > 3)])
        _, memory, _ = aggregator.apply(memory, given)
    assert progress(memory, "lone0", directions["lone"]) == pytest.approx(2, abs=0.2)
    assert abs(progress(memory, "lone0", directions["film"])) < 0.2


def test_where_a_delta_counts_from_by_hand():
    stood = [np.array([0.0]), np.array([6.0]), np.array([9.0])]
    ahead = np.array([[0.0, 1.0, 2.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert [value.tolist() for value in caught_up(stood, ahead)] == [[8.0], [6.0], [9.0]]


def test_one_of_little_weight_who_came_alone_moves_nobody():
    """The others missed a round; its tower, whatever it holds, stands in theirs by its share and no more."""
    directions, draw = kinds()
    aggregator, memory = by_affinity(4096), None
    foreign = draw.normal(size=SIZE)
    small = NOISE / 32
    for number in range(1, 9):
        given = [
            replace(one, weight=small) if one.domain == "film2" else one for one in updates(directions, draw, number)
        ]
        if number == 6:
            given = [one for one in given if one.domain == "film2"]
            given[0].delta["item.weight"] += (20 * foreign).astype(np.float32)
        _, memory, _ = aggregator.apply(memory, given)
    assert abs(progress(memory, "film0", foreign)) < 20 * 0.05
    assert progress(memory, "film0", directions["film"]) == pytest.approx(
        6.5, abs=0.3
    )  # seven rounds, the first shared


def test_who_leads_by_hand():
    near = np.array([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0], [1.0, 2.0, 4.0]])
    ahead = np.array([[False, True, True], [False, False, True], [True, False, False]])
    # 6 against 1; 4 against 3; 1 against 6
    assert leaders(near, ahead).tolist() == [[0.0, 2.0, 4.0], [0.0, 0.0, 4.0], [0.0, 0.0, 0.0]]


def test_the_round_starts_each_domain_from_its_own_mixture_and_survives_the_disk(tmp_path):
    directions, draw = kinds()
    adapter = {"x.lora_B.weight": np.zeros(2, np.float32), "item.weight": np.ones(SIZE, np.float32)}
    state = ServerState(1, Plan(), adapter, frozenset(adapter), "base")
    aggregator = by_affinity(4096)
    started: dict[str, np.ndarray] = {}

    def carry(task_for):
        given = updates(directions, draw, state.round)
        for update in given:
            started[update.domain] = task_for(update.domain).adapter["item.weight"].copy()
        return given

    state = step(state, carry, aggregator)
    assert all(np.array_equal(value, adapter["item.weight"]) for value in started.values())
    registry.begin(tmp_path, ServerState(1, Plan(), adapter, frozenset(adapter), "base"))
    registry.save_state(tmp_path, state)
    state = registry.load_state(tmp_path)
    state = step(state, carry, aggregator)
    assert all(np.array_equal(value, started["film0"]) for value in started.values())  # the first round mixed all
    second = step(state, carry, aggregator)
    assert np.corrcoef(started["film0"], started["film2"])[0, 1] > 0.95
    assert np.corrcoef(started["film0"], started["tool2"])[0, 1] < 0.7  # only the first round is common
    assert np.abs(started["film0"] - started["tool0"]).max() > 1
    np.testing.assert_array_equal(state.adapter["item.weight"], adapter["item.weight"])  # what a new domain gets
    np.testing.assert_array_equal(adapter_for(second, aggregator, "new")["item.weight"], adapter["item.weight"])
    assert second.report["affinity"]["film0"]["film1"] > second.report["affinity"]["film0"]["tool0"]


def noised_rounds(count, clear, seed=0, size=40_000):
    """(facts of each round) of two kinds, three domains each, and one that is noise alone; ``clear`` of each squared
    direction is signal, the rest is noise that is fresh in each round."""
    draw = np.random.default_rng(seed)
    ways = {kind: draw.normal(size=size) for kind in ("film", "tool")} | {"none": np.zeros(size)}
    names = ["film0", "film1", "film2", "none0", "tool0", "tool1", "tool2"]
    aggregator, memory, told = by_affinity(4096, NOISED), None, []
    for number in range(1, count + 1):
        moved = {name: np.sqrt(clear) * ways[name[:4]] + np.sqrt(1 - clear) * draw.normal(size=size) for name in names}
        given = [
            AdapterUpdate(name, number, {"item.weight": value.astype(np.float32)}, 2048.0, "base")
            for name, value in moved.items()
        ]
        _, memory, facts = aggregator.apply(memory, given)
        told.append(facts)
    return told


def test_kinds_are_found_in_updates_that_are_nearly_all_noise():
    told = noised_rounds(8, clear=0.03)  # as at epsilon 8
    likeness_of = told[-1]["affinity"]
    assert told[-1]["cosines"]["film0"]["film1"] < 0.25
    for one in ("film0", "film1", "film2"):
        assert min(likeness_of[one][two] for two in ("film0", "film1", "film2")) > 0.6
        assert max(likeness_of[one][two] for two in ("tool0", "tool1", "tool2", "none0")) < 0.25
        assert told[-1]["shares"][one]["tool0"] < 0.1
    assert told[-1]["shares"]["none0"]["none0"] > 0.7  # nobody's kin


def test_under_noise_nobody_is_kin_before_halves_can_be_compared():
    told = noised_rounds(1 + LEAST_TURNS, clear=0.03)
    assert set(told[0]["shares"]["film0"].values()) == {round(1 / 7, 4)}  # the first mixes all
    for facts in told[1:-1]:
        assert facts["shares"]["film0"]["film0"] > 0.99
    assert told[-1]["shares"]["film0"]["film1"] > 0.2


def test_the_plan_says_whether_updates_are_noised():
    draw = np.random.default_rng(0)
    for epsilon, kept in ((0.0, "direction"), (8.0, "even")):
        plan = read_plan({"federation": {"family": "affinity"}, "privacy": {"epsilon": epsilon}})
        _, memory, _ = aggregator_for(plan).apply(None, updates({"film": draw.normal(size=SIZE)}, draw))
        assert f"{kept}\nfilm0" in memory


def test_a_direction_of_few_numbers_makes_no_kin_of_noise():
    """Three numbers, as where the mix alone is released: any two agree by chance."""
    told = noised_rounds(6, clear=0.0, size=3)
    for name, shares in told[-1]["shares"].items():
        assert shares[name] > 0.99
