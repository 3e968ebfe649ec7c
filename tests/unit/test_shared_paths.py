import math
from types import SimpleNamespace

import pytest
import torch

from shared.attributes import Attributes, read_attributes
from shared.catalog import Catalog
from shared.knowledge import Knowledge
from shared.paths import paths, rarity
from shared.policy import Person
from shared.reasons import Reason
from shared.scoring import UNLISTED, Past

IDS = tuple("abcdefgh")
BRANDS = ("Y", "Y", "", "", "", "", "", "")
KINDS = ("new, red", "new", "new", "new", "old", "old", "old", "new, red")


class Engine(SimpleNamespace):
    def __len__(self):
        return len(self.catalog)

    def title(self, row):
        return self.catalog.titles[row]


@pytest.fixture
def engine():
    catalog = Catalog("shop", IDS, tuple(map(str.upper, IDS)), IDS, {"brand": BRANDS, "kind": KINDS})
    return Engine(catalog=catalog, attributes=read_attributes(catalog))


def somebody(*rows):
    at = torch.tensor(rows)
    none = torch.zeros(len(rows), 1)
    return Person(Past(at, torch.zeros_like(at), none, none), None, tuple(map(str, rows)))


def test_a_way_weighs_what_the_event_carries_times_how_rare_the_attribute_is(engine):
    found = paths(engine, somebody(1, 2), 0, [Reason(1, 0.5), Reason(0, 0.2)], Knowledge(), 5)
    # brand Y: 2 of 8 items, as rare as can be; kind new: 5 of 8, log(8/5) / log(8/2) = 0.339
    brand, kind = found
    assert [step.name for step in brand.steps] == ["B", "Y", "A"]
    assert [(step.kind, step.relation) for step in brand.steps] == [
        ("item", ""),
        ("attribute", "brand"),
        ("item", "brand"),
    ]
    assert (brand.weight, brand.events) == (0.2, 1)
    assert [step.name for step in kind.steps] == ["C", "new", "A"]
    assert kind.weight == pytest.approx(0.5 * math.log(8 / 5) / math.log(4), abs=1e-4)
    assert kind.events == 2  # B is new as well
    assert len(paths(engine, somebody(1, 2), 0, [Reason(1, 0.5), Reason(0, 0.2)], Knowledge(), 1)) == 1


def test_facts_and_links_of_a_graph_are_ways_too(engine):
    facts = Attributes(
        {("maker", "m"): torch.tensor([0, 4]).numpy()}, ((("maker", "M"),), (), (), (), (("maker", "M"),))
    )
    known = Knowledge(facts, {5: (("goes with", 0),), 0: (("goes with", 5),)})
    link, fact = paths(engine, somebody(4, 5), 0, [Reason(1, 0.3), Reason(0, 0.2)], known, 5)
    assert [(step.name, step.relation) for step in link.steps] == [("F", ""), ("A", "goes with")]
    assert link.weight == 0.3
    assert [step.name for step in fact.steps] == ["E", "M", "A"]


def test_what_is_no_item_or_the_item_itself_leads_nowhere(engine):
    assert paths(engine, somebody(UNLISTED, 0), 0, [Reason(0, 1.0), Reason(1, 1.0)], Knowledge(), 5) == ()


@pytest.mark.parametrize(
    ("column", "value", "rare"), [("brand", "y", 1.0), ("kind", "old", math.log(8 / 3) / math.log(4))]
)
def test_rarity(engine, column, value, rare):
    # three of eight: log(8/3) / log(8/2)
    assert rarity(engine, Knowledge(), (column, value)) == pytest.approx(rare, abs=1e-4)
