"""Whoever falls silent, whenever: the sum is that of those who were there, or there is none."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from support.secure_party import CAP, STEPS, Party

from shared.errors import FederationError

IDENTITIES = Party(6).identities  # node keys take a while to make


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 6), st.dictionaries(st.sampled_from(STEPS), st.sets(st.integers(0, 5), max_size=3)))
def test_the_sum_of_those_who_are_there_or_none(count, silent):
    names = [f"d{row:03d}" for row in range(count)]
    keys = {name: IDENTITIES[name].members[name] for name in names}  # who is not in the federation is not known either
    party = Party(count, {name: replace(IDENTITIES[name], members=keys) for name in names})
    party.silent = {step: {names[row] for row in rows if row < count} for step, rows in silent.items()}
    try:
        update = party.run()
    except FederationError:
        assert party.silent
        return
    assert update.weight == sum(min(party.updates[name].weight, CAP) for name in update.summed)
    for key, truth in party.mean(update.summed).items():
        assert abs(update.delta[key] - truth).max() < 1e-7
