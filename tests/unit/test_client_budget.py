import json

import pytest

from client.budget import spending
from client.store import Home, write_json
from shared.accounting import epsilon
from shared.attributes import read_attributes
from shared.catalog import Catalog
from shared.errors import DataError
from shared.ledger import GaussianSteps, PlainRelease, TokenRelease, append_event


@pytest.fixture
def home(tmp_path, plan):
    write_json(Home(tmp_path).about, {"plan": json.loads(plan.to_json())})
    return Home(tmp_path)


def test_spending_adds_up_what_the_ledger_holds(home):
    empty = spending(home)
    assert (empty["epsilon"], empty["releases"], empty["promised"]) == (0.0, 0, False)
    events = [GaussianSteps(1.0, 0.1, 20), GaussianSteps(1.0, 0.1, 30), TokenRelease(1.0, "near-set", user="a hash")]
    for event in events:
        append_event(home.ledger, event)
    found = spending(home)
    assert found["delta"] == 0.0001  # the plan's own
    assert found["epsilon"] == epsilon(events, 0.0001) > 1.0
    assert (found["releases"], found["trainings"], found["steps"], found["passports"]) == (3, 2, 50, 1)


def test_spending_without_a_bound(home):
    for event in (GaussianSteps(1.0, 0.1, 20), PlainRelease("update"), PlainRelease("update")):
        append_event(home.ledger, event)
    found = spending(home)
    assert found["epsilon"] is None
    assert (found["releases"], found["trainings"], found["passports"], found["unpromised"]) == (3, 1, 0, 2)
    assert "no epsilon bounds" in found["words"]
    json.dumps(found, allow_nan=False)


def test_spending_refuses_what_it_cannot_read(home, tmp_path):
    with pytest.raises(DataError, match=r"home\.json is missing or damaged"):
        spending(Home(tmp_path / "nowhere"))
    home.ledger.write_text('{"noise_multiplier": -1}\n')
    with pytest.raises(DataError, match="expected a privacy event"):
        spending(home)


def test_common_values_are_named_and_counted():
    cells = ("Comedy, Drama", "comedy", "drama, Alone", "Comedy")
    catalog = Catalog("video", tuple("abcd"), tuple("ABCD"), tuple("ABCD"), {"genre": cells})
    found = read_attributes(catalog)
    assert found.common("genre", 10) == [("Comedy", 3), ("Drama", 2)]  # a value that one item alone has is none
    assert found.common("genre", 1) == [("Comedy", 3)]
    assert found.common("colour", 10) == []
