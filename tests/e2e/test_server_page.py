"""The page of the server in a real browser: the federation at a glance, the playground, the exposure monitor."""

import json

import pytest
from support.browser import opened_browser, overflow, served, violations, watched
from support.tiny_federation import begin_run, one_round, published
from support.tiny_members import tiny_plan

from client.dataset import read_domain
from client.rounds import DomainMember
from client.store import Home
from client.workshop import Workshop
from server import registry
from server.http_api import application
from server.service import CrossDomain

pytestmark = pytest.mark.slow
VIEWS = ("federation", "playground", "exposure")
REFUSED = {"video": "its norm lies beyond 3 times the median"}
WORDS = "a quiet walk by the sea"


@pytest.fixture(scope="module")
def browser():
    with opened_browser() as one:
        yield one


@pytest.fixture(scope="module")
def two(tiny_world):
    return {name: tiny_world[name] for name in ("shop", "video")}


@pytest.fixture(scope="module")
def run(tiny_base, two, cache, tmp_path_factory, browser):
    """Two rounds of two domains; what only a real carrier knows is added to the log as it would."""
    folder = tmp_path_factory.mktemp("federation")
    begin_run(folder / "run", tiny_plan(tiny_base, "federation.family=affinity", "federation.rounds=3"))
    workshop = Workshop(cache)
    members = [
        DomainMember(read_domain(data), Home(folder / name), workshop, simulated=True) for name, data in two.items()
    ]
    for _ in range(2):
        one_round(folder / "run", members)
    reports = registry.read_rounds(folder / "run")
    for report in reports:
        report |= {"seconds": 4.2, "bytes": {name: {"down": 250_000, "up": 50_000} for name in two}}
        report |= {"weights": {"shop": 64.0, "video": 32.0}, "quality": {"shop": 0.05 * report["round"]}}
    reports[0]["refused"] = REFUSED
    text = "".join(json.dumps(report) + "\n" for report in reports)
    (folder / "run" / "rounds.jsonl").write_text(text, encoding="utf-8")
    return folder / "run"


@pytest.fixture(scope="module")
def service(run, two, cache, tmp_path_factory):
    return CrossDomain(run, published(two, tmp_path_factory.mktemp("catalogues"), popularity=True), cache)


@pytest.fixture(scope="module")
def address(service):
    with served(application(service, "test")) as found:
        yield found


@pytest.fixture
def here(browser, address):
    with watched(browser, address) as one:
        yield one


def play(page, words=WORDS):
    page.click("nav a[href='#playground']")
    page.fill("#liked", words)
    page.press("#liked", "Enter")
    page.wait_for_selector("#answers .card")
    page.wait_for_selector("#answers[aria-busy=false]")


def shown(page, name):
    section = page.locator(".domain-answers", has=page.get_by_role("heading", name=name, exact=True))
    return section.locator(".card").evaluate_all("all => all.map((one) => one.dataset.item)")


def test_the_federation_at_a_glance(here):
    page = here.go()
    page.wait_for_selector(".heat")
    words = page.locator("#federation-body").inner_text()
    assert "Round 2 of 3 done" in words
    assert "stopped" in words
    assert "By affinity" in words
    video = page.locator(".domain", has_text="video").inner_text()
    assert f"Round 1: {REFUSED['video']}" in video
    assert "250 kB, 50 kB" in video
    assert "not shared" in video
    assert "0.100" in page.locator(".domain", has_text="shop").inner_text()
    assert page.locator("figure canvas").count() == 3
    page.locator("figure summary").first.click()
    assert page.locator("figure table").first.inner_text().splitlines()[-1].split() == ["2", "0.10"]
    assert page.locator(".heat tbody tr").count() == 2
    assert page.locator(".heat").inner_text().count("%") == 4


def test_likes_bring_recommendations_of_every_domain(here, service):
    page = here.go()
    play(page)
    for name in ("shop", "video"):
        assert len(shown(page, name)) == 5
        assert set(shown(page, name)) <= set(service.state.engines[name].catalog.ids)
    assert page.locator("#answers .because b").first.inner_text() == WORDS
    first = shown(page, "shop")[0]
    page.locator("#answers .card").first.get_by_role("button", name="Leave out").click()
    page.wait_for_selector(f"#answers [data-item={first}]", state="detached")
    liked = shown(page, "shop")[0]
    page.locator("#answers .card").first.get_by_role("button", name="Likes this too").click()
    page.wait_for_selector("#liked-list li:nth-child(2)")
    page.wait_for_selector(f"#answers [data-item={liked}]", state="detached")
    page.get_by_role("button", name="Show more: video").click()
    page.wait_for_selector(".domain-answers:nth-child(2) .card:nth-child(10)")
    page.get_by_label("video", exact=True).uncheck()
    page.wait_for_selector(".domain-answers:nth-child(2)", state="detached")
    page.locator("#order").get_by_text("Mixed").click()
    page.wait_for_selector("#answers .card .tag.beside")
    assert WORDS not in page.url
    assert page.evaluate("JSON.stringify(localStorage)") == "{}"


def test_titles_are_suggested_from_every_domain_by_keyboard(here, service):
    page = here.go("/page/#playground")
    page.focus("#liked")
    title = service.state.engines["video"].title(3)
    page.keyboard.type(title[:14])
    page.wait_for_selector("#liked[aria-expanded=true] + .suggestions[aria-busy=false]")
    page.keyboard.press("ArrowDown")
    domain = page.locator(".suggestions [aria-selected=true] small").inner_text()
    page.keyboard.press("Enter")
    page.wait_for_selector("#answers .card")
    assert page.locator("#liked-list small").inner_text() == domain
    page.locator("#answers [data-focus^=why]").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog .bars li, dialog .dialog-body > p")
    assert violations(page) == []
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.dataset.focus").startswith("why-")
    page.locator("#answers h3 button").first.click()
    page.wait_for_selector("dialog .events li")
    assert violations(page) == []


def test_exposure_is_counted_as_it_happens(here, service):
    from server.history import Event
    from shared.policy import Wish

    page = here.go("/page/#exposure")
    page.wait_for_selector("#exposure-body .panel, #exposure-body .empty")
    before = service.exposure.answers
    service.recommend([Event(None, None, WORDS)], None, Wish(5))
    page.get_by_text(f"Answers so far: {before + 1}").wait_for()
    assert page.locator("#exposure-body dl").count() == 2
    assert "hardly known" in page.locator(".groups").first.inner_text()


def test_a_round_that_ends_is_seen(here, run, service):
    page = here.go()
    page.wait_for_selector(".heat")
    registry.write(run / "error.json", json.dumps({"reason": "every domain is gone"}).encode())
    try:
        page.get_by_text("every domain is gone").wait_for()
    finally:
        (run / "error.json").unlink()


def test_without_a_catalogue_the_page_says_so(browser, run, cache):
    with served(application(CrossDomain(run, [], cache), "test")) as address, watched(browser, address) as one:
        page = one.go("/page/#playground")
        page.get_by_text("No catalogue is served").wait_for()
        assert violations(page) == []


@pytest.mark.parametrize(("width", "look"), [(1280, {}), (1280, {"color_scheme": "dark"}), (360, {"locale": "zh-CN"})])
def test_every_view_fits_and_is_accessible(browser, address, width, look):
    with watched(browser, address, viewport={"width": width, "height": 800}, **look) as one:
        page = one.go()
        play(page)
        for view in VIEWS:
            page.click(f"nav a[href='#{view}']")
            page.wait_for_selector(f".view[data-view={view}]:not([hidden])")
            page.wait_for_selector({"federation": ".heat", "playground": "#answers .card", "exposure": ".groups"}[view])
            page.wait_for_selector(".skeleton", state="detached")
            assert overflow(page) <= 0
            assert violations(page) == []
        assert page.locator("nav a[aria-current]").inner_text() == ("曝光" if "locale" in look else "Exposure")
