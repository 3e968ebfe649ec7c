from types import SimpleNamespace

import pytest
import torch

from shared import maps
from shared.attributes import read_attributes
from shared.catalog import Catalog
from shared.maps import OTHER, drawn, fit_plane, map_of, plane_of, some
from shared.whiten import fit_whitening


def test_the_plane_of_points_on_a_cross():
    x = torch.tensor([[3.0, 0, 0], [-3, 0, 0], [0, 1, 0], [0, -1, 0]]) + 5
    plane = fit_plane(x)
    assert torch.allclose(plane.axes, torch.tensor([[1.0, 0, 0], [0, 1, 0]]), atol=1e-6)
    assert plane.explained == (0.9, 0.1)  # variances 18/4 and 2/4
    assert torch.allclose(plane(x), (x - 5)[:, :2], atol=1e-6)


def test_items_that_are_all_the_same_have_a_plane_too():
    plane = fit_plane(torch.ones(4, 3))
    assert torch.isfinite(plane(torch.ones(2, 3))).all()
    assert plane.explained == (0.0, 0.0)


class Engine(SimpleNamespace):
    def __len__(self):
        return len(self.catalog)

    def title(self, row):
        return self.catalog.titles[row]


@pytest.fixture
def engine():
    names = tuple(f"i{row}" for row in range(6))
    columns = {"brand": ("A", "A", "", "", "", ""), "kind": ("x, y", "y", "y", "x", "z", "z")}
    catalog = Catalog("shop", names, names, names, columns)
    v = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    return Engine(
        catalog=catalog,
        attributes=read_attributes(catalog),
        scorer=SimpleNamespace(vectors=SimpleNamespace(v=v)),
        whitening=fit_whitening(torch.nn.functional.normalize(v, dim=1)),
    )


def test_a_map_has_places_titles_and_groups(engine, monkeypatch):
    monkeypatch.setattr(maps, "MOST_GROUPS", 3)
    plane = plane_of(engine)
    found = map_of(engine, plane)
    assert (found.column, found.groups, found.items) == ("kind", ("y", "x", OTHER), 6)
    assert [point.group for point in found.points] == [0, 0, 0, 1, 2, 2]
    assert [point.item_id for point in found.points] == list(engine.catalog.ids)
    places = plane(drawn(engine, engine.scorer.vectors.v))
    assert torch.allclose(torch.tensor([(one.x, one.y) for one in found.points]), places, atol=1e-3)


def test_a_large_catalogue_is_sampled_the_same_way_each_time(engine, monkeypatch):
    monkeypatch.setattr(maps, "MOST_POINTS", 4)
    one, two = (map_of(engine, plane_of(engine)) for _ in range(2))
    assert one == two
    assert len(one.points) == 4
    assert len(set(some(1000, 50).tolist())) == 50
