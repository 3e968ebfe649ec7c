"""A map of items and users: the two directions in which a domain's item vectors differ most (PCA).

With the whitening undone: in the whitened space all directions differ about as much, and two of them show nothing.
"""

from collections import Counter
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from shared.engine import Engine
from shared.seeding import stream

MOST_POINTS = 2000  # shown; a page draws them in one go
FITTED = 20_000  # items that decide the directions of a larger catalogue
MOST_GROUPS = 8
OTHER = "other"


@dataclass(frozen=True)
class Plane:
    """Where vectors lie on a map, and what part of the items' variance each of its two directions has."""

    mean: torch.Tensor  # (dim,)
    axes: torch.Tensor  # (2, dim), length 1
    explained: tuple[float, float]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, dim) -> (rows, 2)."""
        return (x - self.mean) @ self.axes.T


def fit_plane(x: torch.Tensor) -> Plane:
    """The first two principal components of (rows, dim); each points to where its largest part is above zero."""
    mean = x.double().mean(0)
    centred = x.double() - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / max(len(x), 1))
    axes = vectors[:, [-1, -2]].T
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    first, second = (values.clamp(min=0)[[-1, -2]] / values.clamp(min=0).sum().clamp(min=1e-12)).tolist()
    return Plane(mean.float(), axes.float(), (round(first, 4), round(second, 4)))


@dataclass(frozen=True)
class Point:
    """An item on the map."""

    item_id: str
    title: str
    x: float
    y: float
    group: int  # place among the map's groups


@dataclass(frozen=True)
class Map:
    """A catalogue's items, at most MOST_POINTS of them, coloured by their most telling attribute."""

    column: str  # the attribute; "" where the catalogue has none
    groups: tuple[str, ...]  # its most common values; the last is OTHER
    explained: tuple[float, float]
    points: tuple[Point, ...]
    items: int  # in the whole catalogue


def plane_of(engine: Engine) -> Plane:
    """Of the item vectors that the engine recommends by."""
    return fit_plane(drawn(engine, engine.scorer.vectors.v[some(len(engine), FITTED)]))


def drawn(engine: Engine, vectors: torch.Tensor) -> torch.Tensor:
    """Item or user vectors (rows, dim) as the map has them: among the vectors of texts before the whitening."""
    return engine.whitening.undo(F.normalize(vectors, dim=1))


def map_of(engine: Engine, plane: Plane) -> Map:
    """The same sample of the same catalogue every time."""
    rows = some(len(engine), MOST_POINTS)
    column, groups = grouping(engine)
    places = [
        [round(value, 4) for value in pair] for pair in plane(drawn(engine, engine.scorer.vectors.v[rows])).tolist()
    ]
    points = tuple(
        Point(engine.catalog.ids[row], engine.title(row), x, y, group_of(engine, row, column, groups))
        for row, (x, y) in zip(rows.tolist(), places, strict=True)
    )
    return Map(column, groups, plane.explained, points, len(engine))


def some(count: int, most: int) -> torch.Tensor:
    """Rows of a sample without repeats, ascending; all where they are few."""
    if count <= most:
        return torch.arange(count)
    return torch.from_numpy(stream(0, "map", count).choice(count, most, replace=False)).sort().values


def grouping(engine: Engine) -> tuple[str, tuple[str, ...]]:
    """The attribute whose few most common values cover most items, and those values; OTHER for all else."""
    best: tuple[int, str, tuple[str, ...]] = (0, "", ())
    for column in engine.attributes.columns:
        count = Counter(value for pairs in engine.attributes.of_item for name, value in pairs if name == column)
        common = count.most_common(MOST_GROUPS - 1)
        best = max(best, (sum(times for _, times in common), column, tuple(value for value, _ in common)))
    return best[1], (*best[2], OTHER)


def group_of(engine: Engine, row: int, column: str, groups: tuple[str, ...]) -> int:
    """The first of the groups that the item has."""
    mine = {value for name, value in engine.attributes.of_item[row] if name == column}
    return next((place for place, value in enumerate(groups[:-1]) if value in mine), len(groups) - 1)
