"""A server that lies, with some of the members on its side: what it can learn of one that is not."""

from collections import Counter
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from support.secure_party import Party, announcements
from support.tiny_members import first_task, tiny_plan

from shared import secure_payload as payload
from shared.errors import PayloadError
from shared.secure_sum import Attendance, circle, quorum, sign


@pytest.fixture
def party():
    return Party(4)


class Lies:
    """A server with the last ``bad`` of the members on its side, and d000 as its victim.

    It collects numbers and shares of secrets, tells each honest member of who is there what it likes, has its own
    members sign anything, and hands each the signatures that hold.
    """

    def __init__(self, party, bad):
        self.party, self.bad = party, party.names[len(party.names) - bad :]
        self.honest = party.names[: len(party.names) - bad]
        self.within = None

    def begin(self, pairs_for=lambda name, others: others):
        """Up to the numbers; ``pairs_for`` (a member, the others) whose pairs it is handed."""
        shown = announcements(self.party)
        self.within = circle(shown)
        pairs = {}
        for name in self.party.names:
            _, head, _ = payload.unpack(self.party.members[name].answer(payload.deal(shown)), payload.DEALT)
            pairs[name] = payload.table_from(head, "pairs")
        for name in self.party.names:
            others = pairs_for(name, [other for other in self.party.names if other != name])
            handed = {other: pairs[other][name] for other in others}
            self.party.members[name].answer(payload.blobs(payload.MASK, pairs=handed))

    def shares(self, told):
        """How many shares of each member's (seed, key) came, honest members ``told`` each (there, gone)."""
        signatures, lists = {}, {name: Attendance(*map(frozenset, told[name])) for name in self.honest if name in told}
        for name, one in lists.items():
            with suppress(PayloadError):
                answer = self.party.members[name].answer(payload.attend(one))
                signatures.setdefault(one, {})[name] = payload.signature_from(answer)
        seeds, keys = (Counter(dict.fromkeys(self.party.names, len(self.bad))) for _ in range(2))  # its own hold both
        for name, one in lists.items():
            theirs = {bad: sign(self.party.identities[bad].key, one.statement(self.within)) for bad in self.bad}
            handed = payload.blobs(payload.OPEN, signatures=signatures.get(one, {}) | theirs)
            with suppress(PayloadError):
                _, head, _ = payload.unpack(self.party.members[name].answer(handed), payload.OPENED)
                seeds.update(payload.table_from(head, "seeds").keys())
                keys.update(payload.table_from(head, "keys").keys())
        return seeds, keys

    def both_secrets(self):
        """Whether both of d000's open when half of the others hear that it is gone."""
        self.begin()
        names = set(self.party.names)
        told = dict.fromkeys(self.honest, (names, ()))
        told |= {name: (names - {"d000"}, {"d000"}) for name in self.honest[1::2]}
        seeds, keys = self.shares(told)
        return min(seeds["d000"], keys["d000"]) >= self.within.threshold

    def stripped(self, told_by):
        """Whether d000's masks all come off: its own, and those with members whose keys open.

        It is given pairs of its masks with as few as it takes; ``told_by`` (all names, those few, how many may be
        gone) is whom each honest member hears to be gone.
        """
        need, names = quorum(len(self.party.names)), self.party.names
        few = self.honest[1 : need - len(self.bad)]
        self.begin(lambda name, others: [*few, *self.bad] if name == "d000" else others)
        gone = told_by(self.honest[1:], few, len(names) - need)
        seeds, keys = self.shares({name: (set(names) - away, away) for name, away in gone.items()})
        return min([seeds["d000"], *(keys[name] for name in few)]) >= self.within.threshold


def one_list(members, few, most):
    """All but those few sign that they are gone."""
    return {name: set(few) for name in members if name not in few}


def many_lists(members, few, most):
    """Each hears that some of the few are gone, never itself, so that shares of all their keys come together."""
    told, came = {}, Counter(dict.fromkeys(few, 0))
    for name in sorted(members, key=lambda name: name not in few):
        told[name] = set(sorted(set(few) - {name}, key=lambda one: came[one])[:most])
        came.update(told[name])
    return told


@pytest.mark.parametrize("count", [4, 5, 6, 9, 10, 15])
def test_fewer_than_a_third_on_the_servers_side_learn_nothing(count):
    bad = (count - 1) // 3
    assert not Lies(Party(count), bad).both_secrets()
    assert not Lies(Party(count), bad).stripped(one_list)
    assert not Lies(Party(count), bad).stripped(many_lists)


def test_these_attacks_work_where_more_are_on_the_servers_side():
    assert Lies(Party(9), 5).both_secrets()
    assert Lies(Party(9), 3).stripped(one_list)


def test_all_who_open_were_told_the_same(party):
    """Of four, what three were told opens and what two were told does not."""
    lies = Lies(party, 0)
    lies.begin()
    names = set(party.names)
    most, other = (names, ()), (names - {"d003"}, {"d003"})
    assert not any(map(Counter.total, lies.shares({"d000": most, "d001": most, "d002": other})))
    lies = Lies(Party(4, party.identities), 0)
    lies.begin()
    seeds, keys = lies.shares({"d000": most, "d001": most, "d002": other, "d003": most})
    assert (set(seeds.values()), keys.total()) == ({3}, 0)


def test_what_no_mask_hides_units_that_answer_to_one_domain_have_its_part_alone(members, tiny_base):
    """The server writes the model (Fowl et al. 2022): docs/privacy.md tells so, and that only epsilon bounds it."""
    plan = tiny_plan(tiny_base, "train.weight_decay=0.0")
    task, _ = first_task(plan)
    adapter = {name: value.copy() for name, value in task.adapter.items()}
    texts = [member.corpus(plan).space.base.numpy() for member in members]  # of catalogues, which may be public
    others = np.concatenate(texts[1:])
    own = max(texts[0], key=lambda x: x @ x - (others @ x).max())
    bar = (own @ own + (others @ own).max()) / 2
    adapter["item.inner.weight"][0], adapter["item.inner.bias"][0] = own, -bar
    assert np.abs(own).max() < bar < 1  # no number that looks odd
    parts = [member.train(replace(task, adapter=adapter)).delta["item.outer.weight"] for member in members]
    assert np.abs(parts[0][:, 0]).max() > 1e-4
    assert [np.abs(part[:, 0]).max() for part in parts[1:]] == [0.0] * len(members[1:])
    assert min(np.abs(part[:, 1:]).max() for part in parts) > 1e-4
