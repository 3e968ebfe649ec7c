"""A home to serve from, generated: a catalogue of any size, people with tastes, and vectors without any encoding.

Vectors are drawn as text vectors lie, not as noise, in which nothing is near anything: a tree of departments,
categories and lines, each a step from what holds it, more alike in some directions than in others; they then pass
through the product's own whitening. Histories and neighbours keep to a few categories and to what is popular.
"""

import hashlib
import inspect
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from client.store import Home, Kept, keep
from shared.catalog import BEHAVIOURS, read_catalog
from shared.engine import VECTORS, engine_key, keep_vectors
from shared.model import Recommender, adapter_tensors, base_fingerprint
from shared.neighbours import Neighbours, tensors_of
from shared.plan import Plan
from shared.prefix import find_base
from shared.private import Private
from shared.scoring import item_vectors
from shared.seeding import stream, torch_stream
from shared.whiten import Whitening, fit_whitening

DOMAIN = "shop"
BLOCK = 8192  # items at a time
EVENTS = 50  # of each user
CATEGORIES = 20  # in each department; lines in each category as many
STEPS = (1.0, 0.9, 0.8, 0.7)  # of department, category, line and item from what holds it
DECAY = 0.5  # the d-th direction of a step is as long as (1 + d) ** -DECAY
NEAR = (1.0, 10.0, 0.8)  # weight, sharpness, decay of what neighbours add
WORDS = ("amber", "basin", "cedar", "delta", "ember", "fable", "grove", "harbour")
THINGS = ("inlet", "juniper", "kettle", "lantern", "meadow", "north", "orchard", "pebble")
SECONDS = 1_700_000_000  # when the first event was


@dataclass(frozen=True)
class Shelves:
    """Where each item stands; all (items,)."""

    department: np.ndarray
    category: np.ndarray  # counted through all departments
    line: np.ndarray  # counted through all categories
    popularity: np.ndarray  # sums to 1


def shelves(items: int, seed: int) -> Shelves:
    """Items in order of their lines; what is popular is popular by Zipf's law, wherever it stands."""
    draw = stream(seed, "shelves")
    departments = max(2, round((items / 250) ** 0.5))
    line = np.sort(draw.integers(departments * CATEGORIES**2, size=items))
    popularity = 1.0 / (10.0 + draw.permutation(items))
    category = line // CATEGORIES
    return Shelves(category // CATEGORIES, category, line, popularity / popularity.sum())


def texts_space(placed: Shelves, dim: int, seed: int) -> tuple[torch.Tensor, Whitening]:
    """Whitened vectors (items, dim) and their whitening."""
    chance = torch_stream(seed, "texts")
    scale = (1.0 + torch.arange(dim)) ** -DECAY
    raw = torch.randn(len(placed.line), dim, generator=chance) * (STEPS[3] * scale)
    for step, of in zip(STEPS[:3], (placed.department, placed.category, placed.line), strict=True):
        centres = torch.randn(int(of.max()) + 1, dim, generator=chance) * (step * scale)
        raw += centres[torch.from_numpy(of)]
    whitening = fit_whitening(raw[:: max(1, len(raw) // 50_000)])
    for part in raw.split(BLOCK):
        part.copy_(whitening(part))
    return raw, whitening


def write_data(folder: Path, placed: Shelves, users: int, seed: int) -> np.ndarray:
    """The domain's files; who met what, (users, EVENTS), oldest first."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{DOMAIN}.item").open("w", encoding="utf-8") as file:
        file.write("item_id:token\ttitle:token_seq\tcategory:token\n")
        for row, (line, category) in enumerate(zip(placed.line.tolist(), placed.category.tolist(), strict=True)):
            file.write(f"i{row}\t{_name(line)} number {row}\t{_name(category)}\n")
    met = histories(placed, users, seed)
    draw = stream(seed, "events")
    kinds = draw.choice([BEHAVIOURS.index(one) for one in ("view", "click", "like", "buy")], met.shape)
    times = SECONDS + np.sort(draw.integers(10_000_000, size=met.shape), axis=1)
    with (folder / f"{DOMAIN}.inter").open("w", encoding="utf-8") as file:
        file.write("user_id:token\titem_id:token\tbehavior:token\ttimestamp:float\n")
        for user, rows in enumerate(zip(met.tolist(), kinds.tolist(), times.tolist(), strict=True)):
            for item, kind, time in zip(*rows, strict=True):
                file.write(f"u{user}\ti{item}\t{BEHAVIOURS[kind]}\t{time}\n")
    return met


def histories(placed: Shelves, users: int, seed: int) -> np.ndarray:
    """(users, EVENTS) rows of items: four of five events in three categories of the user's own."""
    draw = stream(seed, "histories")
    whole = np.cumsum(placed.popularity)
    ends = np.searchsorted(placed.category, np.arange(placed.category.max() + 2))
    filled = np.flatnonzero(np.diff(ends))
    tastes = filled[draw.integers(len(filled), size=(users, 3))]
    wanted = np.take_along_axis(tastes, draw.integers(3, size=(users, EVENTS)), axis=1)
    before = np.concatenate([[0.0], whole])
    low, high = before[ends[wanted]], before[ends[wanted + 1]]
    anywhere = draw.random((users, EVENTS)) < 0.2
    low, high = np.where(anywhere, 0.0, low), np.where(anywhere, whole[-1], high)
    return np.searchsorted(whole, low + draw.random((users, EVENTS)) * (high - low)).clip(max=len(whole) - 1)


def neighbours(placed: Shelves, k: int, seed: int) -> Neighbours:
    """Two of three in the item's own category, the others anywhere; cosines fall off as they do in counts."""
    draw, items = stream(seed, "neighbours"), len(placed.line)
    ends = np.searchsorted(placed.category, np.arange(placed.category.max() + 2))
    start, size = ends[placed.category], np.diff(ends)[placed.category]
    near = 2 * k // 3
    rows = draw.integers(items, size=(items, k), dtype=np.int32)
    place = (np.arange(items) - start)[:, None] + 1 + np.arange(near)
    rows[:, :near] = start[:, None] + place % size[:, None]
    cosines = (0.3 * (1 + np.arange(k)) ** -0.5 * draw.uniform(0.5, 1, (items, k))).astype(np.float32)
    cosines[:, :near] *= np.arange(near) < size[:, None] - 1  # a small category has no more
    return Neighbours(torch.from_numpy(rows), torch.from_numpy(cosines))


def make_home(folder: Path, items: int, users: int = 20_000, seed: int = 7) -> Home:
    """A home with its data in ``folder``, as a training would leave it; made once and found again."""
    home, mark = Home(folder / "home"), folder / "made.json"
    wanted = _about(items, users, seed)
    if not _is(mark, wanted):
        for old in (home.folder, folder / "other"):
            shutil.rmtree(old, ignore_errors=True)
        placed = shelves(items, seed)
        write_data(folder / "data", placed, users, seed)
        train(home, folder / "data", placed, users, seed, adapter=1)
        mark.write_text(json.dumps(wanted))
    return home


def make_other(folder: Path, items: int, users: int = 20_000, seed: int = 7) -> Home:
    """A home of the same data under another model."""
    home, mark = Home(folder / "other"), folder / "other.json"
    wanted = _about(items, users, seed)
    if not _is(mark, wanted):
        train(home, folder / "data", shelves(items, seed), users, seed, adapter=2)
        mark.write_text(json.dumps(wanted))
    return home


def give_other(other: Home, home: Path) -> None:
    """Put what a training left into a home that is being served, ``home.json`` last as a training does. With it come
    the catalogue's vectors, which would take minutes of the encoder; the index is the server's to make."""
    into = Home(home)
    for path in (other.serving / VECTORS, other.adapter, other.private, other.about):
        place = into.folder / path.relative_to(other.folder)
        aside = place.with_suffix(".given")
        os.link(path, aside)
        aside.replace(place)


def _about(items: int, users: int, seed: int) -> dict[str, object]:
    """What a home depends on. Where vectors are named otherwise than they were, a server would not find those made
    before and would have every text encoded: such a home is made again."""
    named = hashlib.sha256((inspect.getsource(engine_key) + Plan().to_json()).encode()).hexdigest()
    return {"items": items, "users": users, "seed": seed, "named": named, "version": 1}


def _is(mark: Path, wanted: dict[str, object]) -> bool:
    return mark.is_file() and bool(json.loads(mark.read_text()) == wanted)


def train(home: Home, data: Path, placed: Shelves, users: int, seed: int, adapter: int) -> None:
    """Put a model into a home, where a training would; each ``adapter`` is another."""
    plan = Plan()
    base = find_base(plan.model.base)
    model = Recommender(plan.model, base, seed).eval()
    chance = torch_stream(seed, "adapter", adapter)
    with torch.no_grad():
        model.user.outward.weight.normal_(std=0.002, generator=chance)
        model.mix.parts.weight.mul_(1 + 0.1 * torch.rand(3, generator=chance))
    texts, whitening = texts_space(placed, model.dim, seed)
    turn = torch.eye(model.dim) + 0.01 * torch.randn(model.dim, model.dim, generator=chance)
    tuned = torch.cat([F.normalize(part @ turn) for part in texts.split(BLOCK)])
    events = np.maximum(1, placed.popularity * users * EVENTS).astype(np.int64)
    private = Private(events, users, model.dim, plan.model, neighbours(placed, plan.model.neighbours, seed))
    with torch.no_grad():
        private.item.weight.normal_(std=0.3 * model.dim**-0.5, generator=torch_stream(seed, "residuals"))
        private.near.copy_(torch.tensor(NEAR))
    private.requires_grad_(False)
    key = engine_key(model, read_catalog(data)[0], private)
    keep_vectors(home.serving, key, item_vectors(model, texts, tuned, private), whitening)
    own = {**private.state_dict(), **tensors_of(private.neighbours)}
    keep(home, Kept(plan, base_fingerprint(plan.model, base), data, DOMAIN, "loo", adapter_tensors(model), own), {})


def _name(number: int) -> str:
    """Words, the same for the same number."""
    return f"{WORDS[number % 8]} {THINGS[number // 8 % 8]} {WORDS[number // 64 % 8]} {number // 512}"
