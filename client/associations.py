"""What people here do who met something with an attribute: association rules over the domain's own histories.

"Of those who met brand Yamaha, 31 % met another of brand Yamaha later; of all people, 4 % met one." (Agrawal,
Imielinski & Swami 1993: support, confidence, lift; a consequence counts only after its cause.) Stays at home; a rule is
told only where it holds for at least MIN_SUPPORT people and fails for as many: it tells of nobody in particular.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from client.dataset import Interactions
from shared.explanation import Rule, Trait

MIN_SUPPORT = 10  # people for whom a rule holds, and people for whom it does not
MIN_LIFT = 1.2
MOST_CAUSES, MOST_ENDS = 24, 12  # attributes of a history, of an item: bounds the work for one answer
KEPT = 256  # attributes whose meetings stay in memory

Rows = npt.NDArray[np.int64]
Attribute = tuple[str, str]  # column, value as a person would write it


class Meetings(NamedTuple):
    """Of one attribute: who met it, and at which of their different items first and last."""

    users: Rows
    first: Rows
    last: Rows


class Associations:
    """Over one domain's histories, an item that somebody met again counting once."""

    def __init__(self, data: Interactions, rows_of: Callable[[Attribute], Rows], items: int) -> None:
        """``rows_of`` gives the items that have an attribute."""
        pairs = data.users.astype(np.int64) * max(items, 1) + data.items
        order = np.sort(np.unique(pairs, return_index=True)[1])  # first meetings, still by user and time
        self._users, self._items = data.users[order].astype(np.int64), data.items[order]
        self._rows_of, self._count, self.people = rows_of, items, len(data.user_ids)
        self._kept: OrderedDict[Attribute, Meetings] = OrderedDict()

    def meetings(self, attribute: Attribute) -> Meetings:
        """Kept for the next question."""
        key = (attribute[0], attribute[1].casefold())
        if (found := self._kept.get(key)) is None:
            having = np.zeros(self._count, dtype=bool)
            rows = self._rows_of(attribute)
            having[rows[rows < self._count]] = True  # items that came later nobody of the files has met
            at = np.flatnonzero(having[self._items])
            users, first = np.unique(self._users[at], return_index=True)
            last = np.append(first[1:], len(at)) - 1
            found = Meetings(users, at[first], at[last]) if len(at) else Meetings(users, at, at)
        self._kept[key] = found
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return found

    def rule(self, cause: Attribute, end: Attribute) -> Rule | None:
        """None where too few people tell, or it says nothing."""
        one, two = self.meetings(cause), self.meetings(end)
        _, mine, theirs = np.intersect1d(one.users, two.users, assume_unique=True, return_indices=True)
        holds = int((two.last[theirs] > one.first[mine]).sum())
        if holds < MIN_SUPPORT or len(one.users) - holds < MIN_SUPPORT:
            return None
        confidence, base = holds / len(one.users), len(two.users) / self.people
        if confidence / base < MIN_LIFT:
            return None
        lift, support = round(confidence / base, 1), round(holds / self.people, 3)
        return Rule(Trait(*cause), Trait(*end), round(confidence, 2), round(base, 2), lift, support)

    def about(self, causes: Sequence[Attribute], ends: Sequence[Attribute], most: int) -> tuple[Rule, ...]:
        """The rules from what a history has to what an item has that lift furthest above all people's share."""
        found = [self.rule(cause, end) for cause in causes[:MOST_CAUSES] for end in ends[:MOST_ENDS]]
        told = [rule for rule in found if rule is not None]
        return tuple(sorted(told, key=lambda rule: rule.base - rule.confidence)[:most])
