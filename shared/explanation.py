"""Why an item is recommended, from all sides: one value that every door shows. ``docs/explanations.md`` says what each
part is true of."""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from shared.engine import Engine
from shared.errors import ConfigError
from shared.knowledge import Knowledge
from shared.paths import Path, paths
from shared.policy import Because, Person, named
from shared.reasons import reasons
from shared.scoring import UNLISTED
from shared.words import Words, item_words, told_words

PARTS = ("because", "words", "paths", "rules", "friends", "nearest")


@dataclass(frozen=True)
class Near:
    """An event of the history, and how alike its item and the one asked about are to the model: cosine."""

    title: str
    cosine: float
    item_id: str = ""  # none for words that are no item of the catalogue


@dataclass(frozen=True)
class Trait:
    """An attribute as a person would name it."""

    column: str
    value: str


@dataclass(frozen=True)
class Rule:
    """If somebody met ``cause``, then later another item with ``end``: shares of people, in hundredths."""

    cause: Trait
    end: Trait
    confidence: float  # of those who met the cause
    base: float  # of all: who met the end at all
    lift: float  # confidence / base, of the exact shares
    support: float  # of all: for whom the rule holds


@dataclass(frozen=True)
class FriendsMet:
    """How many of somebody's friends met an item."""

    met: int
    of: int


@dataclass(frozen=True)
class Explanation:
    """Of one item for one person; a part that was not asked for, or of which there is nothing to tell, is empty."""

    item_id: str
    title: str
    score: float
    because: tuple[Because, ...] = ()
    words: Words | None = None  # of the item's text
    told: Words | None = None  # of the told sentence that raises the score most
    paths: tuple[Path, ...] = ()
    rules: tuple[Rule, ...] = ()  # of the domain's own people; at its home alone
    friends: FriendsMet | None = None  # likewise
    nearest: tuple[Near, ...] = ()
    missing: str = ""  # what to install for the parts that could not be had


def check_parts(parts: Collection[str]) -> None:
    """Raises ConfigError."""
    if strange := sorted(set(parts) - set(PARTS)):
        raise ConfigError(f"expected parts among {', '.join(PARTS)}, found {strange[0][:40]!r}")


def explain(
    engine: Engine, person: Person, row: int, most: int, parts: Collection[str], knowledge: Knowledge | None = None
) -> Explanation:
    """All that model and catalogue tell; what the domain's histories tell is added where they are. Raises ConfigError.

    Costs one pass of the user tower for each event that the model reads (50 at most by default), and one forward and
    backward of STEPS short texts for the words.
    """
    check_parts(parts)
    query = engine.scorer.query(person.past, person.user)
    score = float(engine.scorer.scores(query, torch.tensor([row]))[0])
    wanted = {"because", "words", "paths"} & set(parts)
    carrying = (
        reasons(engine.scorer, person.past, person.user, torch.tensor([row]), len(person.past))[0] if wanted else []
    )
    because = tuple(named(person, one) for one in carrying[:most]) if "because" in parts else ()
    ways = paths(engine, person, row, carrying, knowledge or Knowledge(), most) if "paths" in parts else ()
    near = nearest(engine, person, row, most) if "nearest" in parts else ()
    words, told, missing = None, None, ""
    if "words" in parts:
        try:
            words = item_words(engine, person, row)
            sentence = next((one.event for one in carrying if int(person.past.rows[one.event]) == UNLISTED), None)
            told = None if sentence is None else told_words(engine, person, row, sentence)
        except ConfigError as error:  # captum is an extra; the other parts stand without it
            missing = str(error)
    title = engine.title(row)
    item = engine.catalog.ids[row]
    return Explanation(item, title, round(score, 4), because, words, told, paths=ways, nearest=near, missing=missing)


@torch.no_grad()
def nearest(engine: Engine, person: Person, row: int, most: int) -> tuple[Near, ...]:
    """The ``most`` events whose items have the greatest cosine with this one's vector, each item once."""
    past, model = person.past, engine.scorer.model
    if not len(past):
        return ()
    vectors = torch.where((past.rows == UNLISTED)[:, None], model.items(past.tuned), engine.scorer.vectors.v[past.rows])
    cosines = F.cosine_similarity(vectors, engine.scorer.vectors.v[row][None], dim=1).tolist()
    found: dict[str, Near] = {}
    for event in sorted(range(len(past)), key=lambda event: -cosines[event]):
        met = int(past.rows[event])
        item = "" if met == UNLISTED else engine.catalog.ids[met]
        if item != engine.catalog.ids[row]:
            found.setdefault(item or person.titles[event], Near(person.titles[event], round(cosines[event], 4), item))
    return tuple(found.values())[:most]
