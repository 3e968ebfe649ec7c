"""Writes the generated world: domains with readable catalogues, and people whose tastes cross them.

What moves people is the same in every domain, so that learning together pays: their topics, the step that follows
another (``FOLLOW``), and the styles they value. Texts name topic, step and most styles; an item's own quality and
its mood they do not name. A domain's catalogue, words and events are its own.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.errors import ConfigError
from shared.seeding import stream
from simulations import world_words as words

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

START = datetime(2025, 1, 6, tzinfo=UTC).timestamp()  # fixed: the same seed writes the same bytes on any day
DAYS = 200
STEPS = 4  # subtopics in each topic
SUBTOPICS = STEPS * len(words.TOPICS)
MOODS = 3  # hidden dimensions in which a person may suit an item
DOMAINS_EACH = (0.38, 0.24, 0.18, 0.20)  # share of people active in one, two, three, four domains
FOLLOWS_STRONG, FOLLOWS_WEAK = 0.55, 0.20  # chance to go on to the next step after liking, or merely seeing, an item
STAYS = 0.15  # chance to want more of the same
COLD_USERS, COLD_ITEMS, LATE_ITEMS, CHINESE_ITEMS = 0.06, 0.02, 0.08, 0.06
REPEATS = 0.01


def follow(subtopic: int) -> int:
    """The subtopic people are drawn to next: the topic's next step, after the second and fourth another topic's."""
    topic, step = divmod(subtopic, STEPS)
    if step % 2 == 0:
        return subtopic + 1
    jump, entry = (5, 2) if step == 1 else (4, 0)
    return (topic + jump) % len(words.TOPICS) * STEPS + entry


FOLLOW: tuple[int, ...] = tuple(follow(subtopic) for subtopic in range(SUBTOPICS))


@dataclass(frozen=True)
class Shelf:
    """One domain's items, all arrays by row."""

    ids: tuple[str, ...]
    subtopics: Ints
    styles: Ints
    appeal: Floats  # quality named by the style, quality of its own, popularity: the same for everybody
    moods: Floats  # (items, MOODS)
    released: Floats  # unix seconds; infinite for an item that nobody gets to see
    rows: tuple[Ints, ...]  # items of each subtopic


@dataclass(frozen=True)
class Person:
    """What somebody is like, in all domains."""

    id: str
    topics: Floats  # (topics,) sums to one
    steps: Floats  # (STEPS,) sums to one
    styles: Floats  # (styles,)
    moods: Floats  # (MOODS,)
    domains: tuple[str, ...]


@dataclass(frozen=True)
class Event:
    """One row of a .inter file."""

    item: int
    behaviour: str
    rating: int
    time: int


def write_world(
    out: Path,
    seed: int = 7,
    users: int = 1200,
    items: int = 600,
    domains: Sequence[str] = ("video", "news", "shop", "social"),
) -> dict[str, Path]:
    """Folder of each domain under ``out``; beside them ``world.json``, the truth, for tests only.

    ``items`` are in each domain. A domain speaks like the kind its name begins with: "shop2" is another shop. The
    same arguments write the same bytes. Raises ConfigError for sizes or names that make no world.
    """
    kinds = {domain: _kind(domain) for domain in domains}
    if len(kinds) < len(domains) or not domains or users < 1 or items < SUBTOPICS:
        raise ConfigError(
            f"world: expected different domains, at least one user and {SUBTOPICS} items in each domain, "
            f"found {', '.join(domains)} with {users} users and {items} items; change these"
        )
    people = [_person(seed, number, tuple(domains)) for number in range(users)]
    shelves = {domain: _shelf(seed, domain, items) for domain in domains}
    folders = {domain: out / domain for domain in domains}
    for domain, kind in kinds.items():
        folders[domain].mkdir(parents=True, exist_ok=True)
        _write_items(folders[domain], seed, domain, kind, shelves[domain])
        visits = [(person.id, _visit(seed, domain, kind, person, shelves[domain])) for person in people]
        _write_events(folders[domain], domain, kind, shelves[domain], visits)
    (out / "world.json").write_text(_truth(seed, people, shelves), encoding="utf-8", newline="\n")
    return folders


def _kind(domain: str) -> str:
    kind = domain.rstrip("0123456789-_")
    if kind not in words.TITLES:
        raise ConfigError(
            f"world: expected domains like {', '.join(words.TITLES)}, found {domain!r}; choose from these"
        )
    return kind


def _person(seed: int, number: int, domains: tuple[str, ...]) -> Person:
    """Somebody with two or three topics at heart, a step they dwell on, styles they value, and their domains."""
    rng = stream(seed, "world", "person", number)
    share = np.array(DOMAINS_EACH[: len(domains)])
    count = int(rng.choice(len(share), p=share / share.sum())) + 1
    where = rng.permutation(len(domains))[:count]
    return Person(
        id=f"u{number:05d}",
        topics=rng.dirichlet(np.full(len(words.TOPICS), 0.18)),
        steps=rng.dirichlet(np.full(STEPS, 0.8)),
        styles=rng.normal(0, 0.8, len(words.STYLES)),
        moods=rng.normal(0, 1, MOODS),
        domains=tuple(domains[place] for place in sorted(where)),
    )


def _shelf(seed: int, domain: str, items: int) -> Shelf:
    """A domain's items: every subtopic has its share, in shuffled order."""
    rng = stream(seed, "world", domain, "items")
    subtopics = rng.permutation(np.arange(items) % SUBTOPICS)
    styles = rng.integers(len(words.STYLES), size=items)
    popularity = -0.35 * np.log(1 + rng.permutation(items) / items * 20)  # Zipf-like, from 1 down to a third
    appeal = np.array(words.STYLE_QUALITY)[styles] + rng.normal(0, 0.6, items) + popularity
    late = rng.random(items) < LATE_ITEMS
    released = np.where(late, START + rng.uniform(0.6, 1.0, items) * DAYS * 86_400, 0.0)
    released[rng.random(items) < COLD_ITEMS] = np.inf
    return Shelf(
        ids=tuple(f"{domain}-{row:04d}" for row in range(items)),
        subtopics=subtopics,
        styles=styles,
        appeal=appeal,
        moods=rng.normal(0, 0.45, (items, MOODS)),
        released=released,
        rows=tuple(np.flatnonzero(subtopics == subtopic) for subtopic in range(SUBTOPICS)),
    )


def _visit(seed: int, domain: str, kind: str, person: Person, shelf: Shelf) -> list[Event]:
    """Everything one person does in one domain, oldest first; nothing where they are not active."""
    if domain not in person.domains:
        return []
    rng = stream(seed, "world", domain, "visit", person.id)
    liking = shelf.appeal + person.styles[shelf.styles] + shelf.moods @ person.moods
    fresh = np.ones(len(shelf.ids), dtype=bool)
    events: list[Event] = []
    last, strong = -1, False
    for time in _times(rng):
        step = _next_subtopic(rng, person, last, strong)
        item = _choose(rng, shelf, liking, fresh & (shelf.released <= time), step)
        if events and rng.random() < REPEATS:
            item = events[-1].item
        if item < 0:
            break
        fresh[item] = False
        pleased = liking[item] + rng.logistic(0, 0.7)
        last, strong = int(shelf.subtopics[item]), pleased > 0.4
        behaviours = (words.STRONG if strong else words.WEAK)[kind]
        rating = int(np.clip(np.rint(3.2 + pleased), 1, 5))
        events.append(Event(item, behaviours[rng.integers(len(behaviours))], rating, int(time)))
    return events


def _times(rng: np.random.Generator) -> Floats:
    """When a person acts, unix seconds in order: mostly 5 to 20 times, cold users one to three times."""
    count = int(rng.integers(1, 4)) if rng.random() < COLD_USERS else int(np.clip(rng.lognormal(2.5, 0.45), 5, 60))
    begin = rng.uniform(0, 0.75) * rng.uniform(0, 1)
    return START + np.sort(rng.uniform(begin, 1.0, count)) * DAYS * 86_400


def _next_subtopic(rng: np.random.Generator, person: Person, last: int, strong: bool) -> int:
    """The step after the last one, or more of the same, or back to what the person likes anyway."""
    follows = FOLLOWS_STRONG if strong else FOLLOWS_WEAK
    chance = rng.random()
    if last >= 0 and chance < follows + STAYS:
        return FOLLOW[last] if chance < follows else last
    topic = int(rng.choice(len(person.topics), p=person.topics))
    return topic * STEPS + int(rng.choice(STEPS, p=person.steps))


def _choose(rng: np.random.Generator, shelf: Shelf, liking: Floats, open_: NDArray[np.bool_], subtopic: int) -> int:
    """An item of the subtopic, by liking and chance (Gumbel noise makes it a softmax); any item when it has run out."""
    rows = shelf.rows[subtopic]
    rows = rows[open_[rows]]
    if not rows.size:
        rows = np.flatnonzero(open_)
    return int(rows[np.argmax(liking[rows] + rng.gumbel(size=rows.size))]) if rows.size else -1


def _write_items(folder: Path, seed: int, domain: str, kind: str, shelf: Shelf) -> None:
    rng = stream(seed, "world", domain, "texts")
    header = ("item_id:token", "title:token_seq", *words.COLUMNS[kind])
    rows = [
        (item, *_describe(rng, kind, int(subtopic), int(style)))
        for item, subtopic, style in zip(shelf.ids, shelf.subtopics, shelf.styles, strict=True)
    ]
    _write_rows(folder / f"{domain}.item", [header, *rows])
    settings = f'name = "{domain}"\ntext = "{words.TEXTS[kind]}"\n'
    (folder / "domain.toml").write_text(settings, encoding="utf-8", newline="\n")


def _describe(rng: np.random.Generator, kind: str, subtopic: int, style: int) -> tuple[str, ...]:
    """Title and the other columns of one item in the words of its domain; a few items have a Chinese title."""

    def pick(options: Sequence[str]) -> str:
        return options[int(rng.integers(len(options)))]

    topic = words.TOPICS[subtopic // STEPS]
    noun, other = rng.permutation(topic.subtopics[subtopic % STEPS])[:2]
    chinese = rng.random() < CHINESE_ITEMS
    fill = {
        "noun": str(noun),
        "other": str(other),
        "topic": topic.chinese if chinese else topic.name,
        "style": words.CHINESE_STYLES[style]
        if chinese
        else pick((*words.STYLES[style], words.OWN_STYLES[kind][style])),
        "place": pick(words.PLACES),
        "brand": pick(words.BRANDS),
        "first": pick(words.FIRST_NAMES),
        "last": pick(words.LAST_NAMES),
        "number": str(rng.integers(2, 13)),
    }
    title = (words.CHINESE_TITLES[kind] if chinese else pick(words.TITLES[kind])).format(**fill)
    about = pick(words.ABOUT).format(**fill)
    year, price = str(rng.integers(1960, 2025)), f"{np.exp(rng.normal(3, 0.8)):.2f}"
    columns = {
        "video": (topic.sections.get("video", ""), year),
        "news": (topic.sections.get("news", ""),),
        "shop": (fill["brand"], topic.sections.get("shop", ""), price),
        "social": (about,),
    }
    return (title[0].upper() + title[1:], *columns[kind])


def _write_events(
    folder: Path, domain: str, kind: str, shelf: Shelf, visits: Sequence[tuple[str, Sequence[Event]]]
) -> None:
    rated = kind == "video"
    header = (
        "user_id:token",
        "item_id:token",
        "behavior:token",
        *(("rating:float",) if rated else ()),
        "timestamp:float",
    )
    rows = [header]
    for user, events in visits:
        for event in events:
            rating = (str(event.rating) if event.behaviour == "rate" else "",) if rated else ()
            rows.append((user, shelf.ids[event.item], event.behaviour, *rating, str(event.time)))
    _write_rows(folder / f"{domain}.inter", rows)


def _write_rows(path: Path, rows: Sequence[tuple[str, ...]]) -> None:
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8", newline="\n")


def _truth(seed: int, people: Sequence[Person], shelves: dict[str, Shelf]) -> str:
    """The ground truth as JSON; training never reads it."""

    def plain(values: Floats) -> list[float]:
        return [round(float(value), 4) for value in values]

    users = {
        person.id: {
            "domains": list(person.domains),
            "topics": plain(person.topics),
            "steps": plain(person.steps),
            "styles": plain(person.styles),
            "moods": plain(person.moods),
        }
        for person in people
    }
    items = {domain: _items_truth(shelf) for domain, shelf in shelves.items()}
    topics = [topic.name for topic in words.TOPICS]
    truth = {"seed": seed, "topics": topics, "follow": list(FOLLOW), "users": users, "items": items}
    return json.dumps(truth, indent=1) + "\n"


def _items_truth(shelf: Shelf) -> dict[str, dict[str, Any]]:
    return {
        item: {
            "subtopic": int(shelf.subtopics[row]),
            "style": int(shelf.styles[row]),
            "appeal": round(float(shelf.appeal[row]), 4),
            "moods": [round(float(mood), 4) for mood in shelf.moods[row]],
        }
        for row, item in enumerate(shelf.ids)
    }
