"""An explanation with what the domain's own histories tell beside the model: rules, and friends."""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace

import numpy as np

from client.associations import Attribute
from client.friends import friends_met
from client.recommend import Serving
from shared.explanation import Explanation, FriendsMet, explain
from shared.paths import Path
from shared.policy import Person
from shared.scoring import UNLISTED


def explain_at_home(
    serving: Serving, person: Person, item: int, most: int, parts: Collection[str], user: str | None = None
) -> Explanation:
    """Of an item (row) for a person; ``user`` is their id where the domain knows them. Raises ConfigError."""
    found = explain(serving.engine, person, item, most, parts, serving.domain.knowledge)
    if "rules" in parts:
        rules = serving.associations.about(_causes(serving, person), _attributes(serving, item), most)
        found = replace(found, rules=rules)
    if "friends" in parts and user is not None:
        found = replace(found, friends=_friends(serving, item, user))
    return found


def _causes(serving: Serving, person: Person) -> list[Attribute]:
    """What the items of a history have, the most common first."""
    rows = person.past.rows.tolist()
    count = Counter(pair for row in rows if row != UNLISTED for pair in _attributes(serving, row))
    return [pair for pair, _ in count.most_common()]


def _attributes(serving: Serving, item: int) -> list[Attribute]:
    return [*serving.engine.attributes.of_item[item], *serving.domain.knowledge.of_item(item)]


def _friends(serving: Serving, item: int, user: str) -> FriendsMet | None:
    row = serving.people.row(user)
    if row is None:
        return None
    data = serving.domain.interactions
    return friends_met(serving.domain.friends, data.users[data.items == item].astype(np.int64), row)


def sentences(found: Explanation) -> Iterator[str]:
    """The same for people to read, a line for each thing told."""
    for one in found.because:
        yield f"because of {one.title}: the score would be {one.drop:.2f} lower without it"
    for words, of in ((found.words, "words of its text"), (found.told, "words you told")):
        if words is not None:
            spelt = " ".join(f"{word.word} ({word.weight:+.2f})" for word in words.words)
            yield f"{of}, {words.score:.2f} against {words.blank:.2f} without them: {spelt}"
    for path in found.paths:
        yield f"way: {_way(path)} (weight {path.weight:.2f}, events {path.events})"
    for rule in found.rules:
        met, later = (f"{trait.column} {trait.value}" for trait in (rule.cause, rule.end))
        yield f"people here who met {met} later met {later}: {rule.confidence:.0%} against {rule.base:.0%} of all"
    if found.friends is not None:
        yield f"{found.friends.met} of {found.friends.of} friends met it"
    for near in found.nearest:
        yield f"like {near.title}: cosine {near.cosine:.2f}"
    if found.missing:
        yield found.missing


def _way(path: Path) -> str:
    """you - Toy Story - genre Animation - A Bug's Life"""
    stops = [f"{step.relation} {step.name}" if step.kind == "attribute" else step.name for step in path.steps]
    if len(path.steps) == 2:  # the graph joins both items at once
        stops.insert(1, path.steps[1].relation)
    return " - ".join(["you", *stops])
