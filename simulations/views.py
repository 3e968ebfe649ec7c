"""Where a run's items and users lie: each domain on a plane of its own, and all on a common one."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from client.projector import user_vectors
from client.recommend import Serving, open_serving
from client.store import Home
from shared.errors import ConfigError
from shared.maps import drawn, fit_plane, group_of, grouping, plane_of, some

ITEMS, USERS = 600, 200  # of each domain that are drawn

Places = npt.NDArray[np.float32]


@dataclass(frozen=True)
class View:
    """One domain's sample; no user's id is in it."""

    name: str
    column: str  # the attribute that colours it
    groups: tuple[str, ...]
    group: npt.NDArray[np.int64]  # (items,) places in ``groups``
    items: Places  # (items, 2) on the domain's own plane
    users: Places  # (users, 2) likewise
    explained: tuple[float, float]  # parts of the items' variance that the two directions have
    common: Places  # (items, 2) on the plane of all domains' items


def views_of(run: Path, cache: Path) -> list[View]:
    """Of every domain that the run can serve. Raises ConfigError where there is none, DataError for damaged ones."""
    homes = sorted(path.parent for path in run.glob("homes/*/home.json"))
    if not homes:
        raise ConfigError(f"{run} holds no finished domain to draw; give a run directory with the method personal")
    opened = [open_serving(Home(home), cache) for home in homes]
    chosen = [some(len(serving.engine), ITEMS) for serving in opened]
    vectors = [
        drawn(serving.engine, serving.engine.scorer.vectors.v[rows])
        for serving, rows in zip(opened, chosen, strict=True)
    ]
    common = fit_plane(torch.cat(vectors))
    return [
        _view(serving, rows, v, common(v).numpy()) for serving, rows, v in zip(opened, chosen, vectors, strict=True)
    ]


def _view(serving: Serving, rows: torch.Tensor, vectors: torch.Tensor, common: Places) -> View:
    engine, ids = serving.engine, serving.domain.interactions.user_ids
    plane, (column, groups) = plane_of(engine), grouping(engine)
    people = drawn(engine, user_vectors(serving, [ids[row] for row in some(len(ids), USERS).tolist()]))
    group = [group_of(engine, row, column, groups) for row in rows.tolist()]
    places = plane(vectors).numpy()
    return View(
        serving.domain.name, column, groups, np.array(group), places, plane(people).numpy(), plane.explained, common
    )
