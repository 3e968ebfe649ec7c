"""The REST door of a domain stands whatever schemathesis makes of its /openapi.json, and keeps what it has."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from support.tiny_home import make_home

from client.http_api import application
from client.journal import Event
from client.service import HomeService

ENDLESS = "/api/live"


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_nothing_that_is_sent_breaks_the_door(mode, tiny_base, tiny_world, cache, tmp_path):
    service = HomeService(make_home(tiny_base, tiny_world["video"], tmp_path / "home", cache), cache)
    first = Event("ann", "video-0001", "view", 4e9)
    service.add_events([first])
    described = schemathesis.openapi.from_asgi("/openapi.json", application(service, "1")).exclude(path=ENDLESS)
    tried = []
    for found in described.get_all_operations():
        operation = found.ok()

        @given(operation.as_strategy(generation_mode=mode))
        @settings(max_examples=6, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        def send(case):
            case.call_and_validate(checks=[not_a_server_error], headers={"host": "localhost"})
            tried.append(case.path)

        if mode is GenerationMode.POSITIVE or operation.body or operation.query:
            send()
    assert {"/api/recommend", "/api/events", "/api/items"} <= set(tried)
    assert service.journal.of(Event)[0] == first
