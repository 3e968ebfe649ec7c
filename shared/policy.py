"""``recommend()``: the one policy behind every door. Pure: what it needs comes in, nothing is kept.

Candidates from the index; those met before, struck by rules or outside the filters leave; what is left is scored,
tilted by popularity and freshness, spread out (MMR), cut to the page and given its reasons.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch.nn import functional as F

from shared.engine import Engine
from shared.errors import ConfigError
from shared.reasons import Reason, reasons
from shared.scoring import Past, Query

LEAST_CANDIDATES = 128
POOL = 10  # items for each place on the page that diversity and tilts choose among
MOST_SHOWN = 1000  # how deep one may page


@dataclass(frozen=True)
class Wish:
    """What one answer shall be like."""

    k: int = 10
    skip: int = 0  # how many to leave out at the top: the pages before
    diversity: float = 0.0  # 0 = by score alone, towards 1 = as unlike each other as can be
    popularity: float = 0.0  # added to the score for each standard deviation of log popularity; below 0: what few know
    freshness: float = 0.0  # added to the score of the newest item, less for older ones, 0 for the oldest
    where: Mapping[str, str] = field(default_factory=dict)  # attribute -> the value that items must have
    without: frozenset[str] = frozenset()  # ids that must not come
    seen: bool = False  # also items of the history
    age: int | None = None  # of who asks, in years; None counts as too young for every gate
    reasons: int = 0  # for each item, at most

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        if not 1 <= self.k <= MOST_SHOWN or not 0 <= self.skip <= MOST_SHOWN:
            raise ConfigError(f"expected k from 1 and skip from 0 to {MOST_SHOWN}, found {self.k} and {self.skip}")
        if not 0 <= self.diversity <= 1:
            raise ConfigError(f"expected diversity between 0 and 1, found {self.diversity}")


@dataclass(frozen=True)
class Signals:
    """What is known of the items beside the model; all (items,), zeros where nothing is known."""

    popularity: torch.Tensor  # log(1 + events), as standard deviations from the mean
    freshness: torch.Tensor  # 1 the newest, 0 the oldest
    allowed: torch.Tensor  # booleans: what the rules let through for who asks
    rule: torch.Tensor | None = None  # place in ``rules`` of the first one that strikes an item; none where none does
    rules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Person:
    """Whom an answer is for."""

    past: Past
    user: int | None  # row of somebody whom the domain has a residual of
    titles: tuple[str, ...]  # of the events
    query: Query | None = None  # what the engine made of it, where that was kept


@dataclass(frozen=True)
class Because:
    """A reason for an item: by how much its score would fall had that event not been."""

    title: str
    drop: float


@dataclass(frozen=True)
class Recommendation:
    """One line of an answer."""

    rank: int
    item_id: str
    title: str
    score: float
    because: tuple[Because, ...] = ()


@dataclass(frozen=True)
class Answer:
    """A page of one domain's items, and what the rules kept out of it."""

    domain: str
    model: str  # version of the engine that gave it
    items: tuple[Recommendation, ...]
    more: bool  # whether there is a next page
    struck: int  # items that would have stood before its last one but for the rules
    struck_by: Mapping[str, int] = field(default_factory=dict)  # how many of them by each rule


@torch.inference_mode()  # what torch keeps for gradients costs a tenth of an answer
def recommend(engine: Engine, person: Person, wish: Wish, signals: Signals) -> Answer:
    """A page of items. Raises ConfigError for an attribute that the catalogue does not have."""
    query = person.query or engine.scorer.query(person.past, person.user)
    fitting = _fitting(engine, person, wish)
    rows, scores, struck = _pool(engine, query, wish, fitting, signals)
    scores = scores + wish.popularity * signals.popularity[rows] + wish.freshness * signals.freshness[rows]
    order = torch.argsort(scores, descending=True, stable=True)
    rows, scores = rows[order], scores[order]
    if wish.diversity > 0:
        few = (wish.skip + wish.k) * POOL
        chosen = spread(engine.scorer.vectors.v[rows[:few]], scores[:few], wish.skip + wish.k + 1, wish.diversity)
        rows, scores = rows[chosen], scores[chosen]
    page, more = slice(wish.skip, wish.skip + wish.k), len(rows) > wish.skip + wish.k
    rows, scores = rows[page], scores[page]
    because = why(engine, person, rows, wish.reasons) if wish.reasons else [()] * len(rows)
    items = tuple(
        Recommendation(wish.skip + place, engine.catalog.ids[row], engine.title(row), round(score, 4), tuple(reason))
        for place, (row, score, reason) in enumerate(zip(rows.tolist(), scores.tolist(), because, strict=True), 1)
    )
    return Answer(engine.name, engine.version, items, more, len(struck), _by_rule(struck, signals))


def why(engine: Engine, person: Person, rows: torch.Tensor, most: int) -> list[tuple[Because, ...]]:
    """For each item (rows) the events of the history that raise its score most."""
    return [
        tuple(named(person, reason) for reason in found)
        for found in reasons(engine.scorer, person.past, person.user, rows, most)
    ]


def named(person: Person, reason: Reason) -> Because:
    return Because(person.titles[reason.event], round(reason.drop, 4))


def _by_rule(struck: torch.Tensor, signals: Signals) -> dict[str, int]:
    """How many of the rows each rule struck, where the rules have names."""
    if signals.rule is None or not len(struck):
        return {}
    return dict(Counter(signals.rules[which] for which in signals.rule[struck].tolist()))


def _fitting(engine: Engine, person: Person, wish: Wish) -> torch.Tensor:
    """(items,) booleans: new to the person, and as the filters want it; the rules come later."""
    fitting = torch.ones(len(engine), dtype=torch.bool)
    for column, value in wish.where.items():
        if column not in engine.attributes.columns:
            known = ", ".join(engine.attributes.columns) or "none"
            raise ConfigError(f"{engine.name} has no attribute {column[:40]!r} to filter by; it has {known}")
        having = torch.zeros(len(engine), dtype=torch.bool)
        having[torch.from_numpy(engine.attributes.having(column, value))] = True
        fitting &= having
    gone = [engine.catalog.row[item] for item in wish.without if item in engine.catalog.row]
    fitting[gone] = False
    if not wish.seen:
        fitting[person.past.listed] = False
    return fitting


def _pool(
    engine: Engine, query: Query, wish: Wish, fitting: torch.Tensor, signals: Signals
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(rows, their scores, rows of better ones that the rules struck). Filters never starve it: it asks for more until
    there are enough, at last for the whole catalogue."""
    tilted = bool(wish.diversity or wish.popularity or wish.freshness)
    need = (wish.skip + wish.k) * (POOL if tilted else 1) + 1  # one more tells whether there is a next page
    question = engine.scorer.question(query)
    for count in _growing(max(LEAST_CANDIDATES, 4 * need), len(engine)):
        rows = _candidates(engine, query, question, count)
        whole = len(rows) == len(engine)
        rows = rows[fitting[rows]]
        allowed = signals.allowed[rows]
        if whole or int(allowed.sum()) >= need:
            break
    scores = engine.scorer.scores(query, rows)
    kept, struck = scores[allowed], scores[~allowed]
    last = torch.topk(kept, min(need, len(kept))).values.min() if len(kept) else torch.tensor(-torch.inf)
    return rows[allowed], kept, rows[~allowed][struck > last]


def _growing(count: int, items: int) -> Iterator[int]:
    while count < items:
        yield count
        count *= 4
    yield items


def _candidates(engine: Engine, query: Query, question: torch.Tensor, count: int) -> torch.Tensor:
    """Rows of the ``count`` best by vectors and of the ``count`` best by what was met together with the history.

    A score is the sum of both: what is in neither list is behind the last of each (Fagin, Lotem & Naor 2003).
    """
    rows = engine.index.candidates(question, count, len(engine))
    if query.near is None or len(rows) == len(engine):
        return rows
    both: torch.Tensor = torch.cat([rows, query.near.best(count)]).unique()
    return both


def spread(v: torch.Tensor, scores: torch.Tensor, count: int, diversity: float) -> torch.Tensor:
    """Maximal marginal relevance (Carbonell & Goldstein 1998): places of ``count`` of the items, in order.

    ``v`` (pool, dim), ``scores`` (pool,). Each next one has the most of (1 - diversity) times its score, brought to
    [0, 1], less diversity times its greatest cosine with those chosen before.
    """
    v = F.normalize(v, dim=1)
    span = (scores.max() - scores.min()).clamp(min=1e-9) if len(scores) else torch.tensor(1.0)
    worth = (1 - diversity) * (scores - scores.min() if len(scores) else scores) / span
    alike = torch.zeros(len(v))
    chosen: list[int] = []
    for _ in range(min(count, len(v))):
        value = worth - diversity * alike
        value[chosen] = -torch.inf
        best = int(value.argmax())
        alike = torch.maximum(alike, v @ v[best]) if chosen else v @ v[best]
        chosen.append(best)
    return torch.tensor(chosen, dtype=torch.int64)


def blend(lists: Sequence[Sequence[Recommendation]], k: int) -> list[tuple[int, Recommendation]]:
    """The heads of several domains' lists in turns, as (which list, item): scores of two models are not comparable."""
    found = []
    for place in range(max(map(len, lists), default=0)):
        found += [(which, one[place]) for which, one in enumerate(lists) if place < len(one)]
    return found[:k]
