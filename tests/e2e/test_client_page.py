"""The page of a domain's process in a real browser, before a real door with a small trained home behind it."""

import pytest
from support.browser import opened_browser, overflow, served, violations, watched
from support.tiny_home import make_home

from client.http_api import application
from client.journal import Event, Feedback
from client.review import queue
from client.service import HomeService, Who
from shared.explanation import PARTS
from shared.ledger import GaussianSteps, PlainRelease, TokenRelease, append_event

pytestmark = pytest.mark.slow
USER = "u00001"
VIEWS = {
    "people": "#list .card",
    "map": "#map-body canvas",
    "privacy": "#privacy-body .panel",
    "safety": "#safety-body h3",
}


@pytest.fixture(scope="module")
def browser():
    with opened_browser() as one:
        yield one


@pytest.fixture(scope="module")
def home(tiny_base, tiny_world, cache, tmp_path_factory, browser):
    return make_home(tiny_base, tiny_world["video"], tmp_path_factory.mktemp("home"), cache)


@pytest.fixture(scope="module")
def service(home, cache):
    return HomeService(home, cache)


@pytest.fixture(scope="module")
def address(service):
    with served(application(service, "test", limit=4.0)) as found:
        yield found


@pytest.fixture
def here(browser, address):
    """A page that must end without an error and without having asked anybody else."""
    with watched(browser, address) as one:
        yield one


def open_user(page, user=USER):
    page.fill("#user", user)
    page.press("#user", "Enter")
    page.wait_for_selector("#list .card")
    page.wait_for_selector("#history .events")


def titles(page):
    return page.locator("#list .card h3").all_inner_texts()


def settle(page):
    """Until nothing is on its way."""
    page.wait_for_selector("#list[aria-busy=false]")


def test_a_user_is_looked_up(here, service):
    page = here.go()
    assert page.locator("#list .empty-title").inner_text() == "Nobody is asked for yet"
    open_user(page)
    assert len(titles(page)) == 10
    assert page.locator("#list .because").first.inner_text().startswith("Because of ")
    newest = service.history(USER)[-1]
    assert page.locator("#history .link").first.inner_text() == newest[1]
    page.click("#list .more button")
    page.wait_for_selector("#list .card:nth-child(11)")
    shown = titles(page)
    assert shown[:10] == titles(page)[:10]
    assert len(set(page.locator("#list .card").evaluate_all("all => all.map((one) => one.dataset.item)"))) == len(shown)


def test_nothing_of_a_user_stays_in_address_or_storage(here):
    asked = []
    page = here.page
    page.on("request", lambda one: asked.append(one.url))
    here.go()
    open_user(page)
    page.select_option("#look", "dark")
    page.select_option("#language", "zh")
    assert not [one for one in [*asked, page.url] if USER in one]
    assert page.evaluate("({...localStorage})") == {"isthmus.language": "zh", "isthmus.look": "dark"}
    assert page.evaluate("sessionStorage.length") == 0
    page.reload()
    page.wait_for_selector("#live[data-up=true]")
    assert page.input_value("#user") == ""
    assert page.evaluate("document.documentElement.dataset.look") == "dark"
    assert page.locator("nav a[aria-current]").inner_text() == "推荐"


def test_what_is_pressed_acts_at_once_and_is_on_disk(here, service):
    page = here.go()
    open_user(page, "u00002")
    first, second = titles(page)[:2]
    before = service.history("u00002")
    page.select_option("#behaviour", "buy")
    page.locator("#list .card").first.get_by_role("button", name="I did this").click()
    page.locator("#history li:first-child", has_text=first).wait_for()
    settle(page)
    assert first not in titles(page)
    assert service.history("u00002")[len(before) :] == [
        (service.serving.engine.catalog.ids[row_of(service, first)], first, "buy")
    ]
    page.locator("#list .card", has_text=second).get_by_role("button", name="Harmful").click()
    page.get_by_text(f"{second} was reported").wait_for()
    settle(page)
    assert second not in titles(page)
    third = titles(page)[0]
    page.locator("#list .card").first.get_by_role("button", name="Do not show this").click()
    page.get_by_text(f"{third} will not be shown").wait_for()
    settle(page)
    assert third not in titles(page)
    assert [entry.what for entry in service.journal.entries if hasattr(entry, "what")] == ["harmful", "hide"]


def row_of(service, title):
    return service.serving.engine.find(title)


def test_why_and_what_an_item_is(here, service):
    page = here.go()
    open_user(page, "u00005")
    page.locator("#list .card").nth(1).get_by_role("button", name="Why?").click()
    page.wait_for_selector("dialog .bars li, dialog .dialog-body > p")
    assert violations(page) == []
    assert titles(page)[1] in page.locator("dialog h2").inner_text()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.dataset.focus") == "why-1"
    page.locator("#list .card h3 button").first.click()
    page.wait_for_selector("dialog button.tag")
    assert violations(page) == []
    tag = page.locator("dialog button.tag").first
    column, value = tag.inner_text().split(": ")
    tag.click()
    page.wait_for_selector("dialog", state="detached")
    settle(page)
    assert page.input_value("#knob-value") == value
    engine = service.serving.engine
    for item in page.locator("#list .card").evaluate_all("all => all.map((one) => one.dataset.item)"):
        assert (column, value) in engine.attributes.of_item[engine.catalog.row[item]]


def test_why_tells_all_that_the_process_knows(here, service):
    page = here.go()
    page.locator("#who .segments").get_by_text("A told history").click()
    for words in (service.serving.engine.title(2), "a quiet film about war"):
        page.fill("#told", words)
        page.press("#told", "Enter")
    page.wait_for_selector("#told-list li:nth-child(2)")
    settle(page)
    item = page.locator("#list .card").first.get_attribute("data-item")
    who = Who(None, (service.serving.engine.title(2), "a quiet film about war"))
    known = service.explanation(who, item, 6, PARTS)
    page.locator("#list .card").first.get_by_role("button", name="Why?").click()
    page.wait_for_selector("dialog .marked")
    shown = page.locator("dialog .marked").all_inner_texts()
    assert shown == [one.text for one in (known.words, known.told) if one is not None]
    assert page.locator("dialog .stacked > li").count() == len(known.paths)
    heads = page.locator("dialog h3").all_inner_texts()
    assert ("Most like it in the history" in heads) == bool(known.nearest)
    assert violations(page) == []


def test_the_map_shows_items_and_lights_a_group(here, service):
    page = here.go()
    open_user(page)
    page.click("nav a[href='#map']")
    page.wait_for_selector("#map-body canvas")
    groups = page.locator("#map-body button")
    assert groups.count() == len(service.map().groups)
    groups.nth(1).press("Enter")
    assert page.locator("#map-body button[aria-pressed=true]").count() == 1
    assert page.evaluate("document.activeElement.dataset.focus") == "group-1"
    box = page.locator("#map-body canvas").bounding_box()
    seen = set()
    for step in range(0, int(box["width"]), 9):  # somewhere along the middle lies an item
        page.mouse.move(box["x"] + step, box["y"] + box["height"] / 2)
        seen.add(page.locator("#map-said").inner_text())
        if page.evaluate("document.querySelector('canvas').style.cursor") == "pointer":
            break
    assert seen & set(service.serving.engine.catalog.titles)


def test_a_reviewer_decides_about_what_was_called_harmful(here, service):
    engine = service.serving.engine
    item = engine.catalog.ids[7]
    for user in ("u00001", "u00002"):
        service.add_feedback(Feedback(user, item, "harmful", 1.8e9, "not before supper"))
    page = here.go("/page/#safety")
    card = page.locator(f"#safety-body [data-item={item}]")
    card.wait_for()
    assert "Reports: 2, by people: 2" in card.inner_text()
    assert "u00001" not in page.locator("#safety-body").inner_text()
    card.get_by_role("button", name="Block for everybody").click()
    card.wait_for(state="detached")
    assert "review" in page.locator("#safety-body table").inner_text()
    assert item not in [one.item for one in queue(service.journal.entries)]
    assert violations(page) == []


def test_a_history_is_told_by_keyboard_alone(here):
    page = here.go()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    for _ in range(3):  # the form's first field
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name") == "who":
            break
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "told"
    page.keyboard.type("story")
    page.wait_for_selector("#told[aria-expanded=true] + .suggestions[aria-busy=false]")
    page.keyboard.press("ArrowDown")
    wanted = page.locator(".suggestions [aria-selected=true] span").inner_text()
    page.keyboard.press("Enter")
    page.wait_for_selector("#list .card")
    page.keyboard.type("a quiet film about the sea")
    page.keyboard.press("Enter")
    page.wait_for_selector("#told-list li:nth-child(2)")
    assert page.locator("#told-list li > span").all_inner_texts() == [wanted, "a quiet film about the sea"]
    settle(page)
    assert wanted not in titles(page)
    first = titles(page)[0]
    page.locator("#list .card [data-focus=hide-0]").focus()
    page.keyboard.press("Enter")
    page.get_by_text(f"{first} was left out").wait_for()
    settle(page)
    assert first not in titles(page)
    assert page.evaluate("document.activeElement.dataset.focus") == "hide-0"


def test_a_suggestion_stays_chosen_while_one_types_on(here):
    page = here.go()
    page.locator("#who .segments").get_by_text("A told history").click()
    page.locator("#told").focus()
    page.keyboard.type("story")
    page.wait_for_selector("#told[aria-expanded=true] + .suggestions[aria-busy=false]")
    page.keyboard.press("ArrowDown")
    chosen = page.locator(".suggestions [aria-selected=true] span")
    wanted = chosen.inner_text()
    page.keyboard.type(" ")
    page.wait_for_selector("#told + .suggestions[aria-busy=true]")
    page.wait_for_selector("#told + .suggestions[aria-busy=false]")
    assert chosen.inner_text() == wanted
    assert page.get_attribute("#told", "aria-activedescendant") == chosen.locator("..").get_attribute("id")


def test_the_skip_link_stays_in_the_view_that_is_open(here):
    page = here.go("/page/#map")
    page.wait_for_selector("#map-body canvas")
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("location.hash === '#main'")
    assert page.evaluate("document.activeElement.id") == "main"
    assert page.locator("nav a[aria-current]").get_attribute("href") == "#map"
    assert page.locator("#map-body canvas").is_visible()


def test_knobs_change_the_list(here, service):
    page = here.go()
    open_user(page)
    plain = titles(page)
    page.locator("#knob-popularity").evaluate("one => { one.value = 2; one.dispatchEvent(new Event('input')) }")
    page.wait_for_timeout(400)
    settle(page)
    loud = service.serving.signals.popularity
    assert sum(loud[row_of(service, one)] for one in titles(page)) > sum(loud[row_of(service, one)] for one in plain)
    page.get_by_role("button", name="Back to plain").click()
    page.wait_for_timeout(400)
    settle(page)
    assert titles(page) == plain


def test_an_unknown_user_is_said_in_words(browser, address):
    with watched(browser, address) as one:
        page = one.go()
        page.fill("#user", "nobody-of-that-name")
        page.click("#who button.primary")
        page.wait_for_selector("#list .trouble[role=alert]")
        assert "knows no such user" in page.locator("#list .trouble").inner_text()
        assert not page.locator("#history-panel").is_visible()
        assert violations(page) == []
        assert one.wrong
        assert all("404" in text for text in one.wrong)
        one.wrong.clear()


def test_what_happens_elsewhere_is_seen(here, service):
    page = here.go()
    open_user(page, "u00008")
    item = page.locator("#list .card").first.get_attribute("data-item")
    service.add_events([Event("u00008", item, "view", 1.8e9)])
    page.wait_for_selector(f"#list [data-item={item}]", state="detached")


def test_privacy_spent_is_told(here, home):
    page = here.go("/page/#privacy")
    page.wait_for_selector("#privacy-body .empty")
    assert "made no privacy promise" in page.locator("#privacy-body").inner_text()
    append_event(home.ledger, GaussianSteps(1.0, 0.1, 20))
    append_event(home.ledger, TokenRelease(1.0, "near-set", user="a hash"))
    try:
        page.click("nav a[href='#people']")
        page.click("nav a[href='#privacy']")
        page.wait_for_selector("#budget-meter")
        words = page.locator("#privacy-body").inner_text()
        assert "of the 4.00 that this domain allows" in words
        assert "20 steps in all" in words
        assert violations(page) == []
        append_event(home.ledger, PlainRelease("update"))
        page.click("nav a[href='#people']")
        page.click("nav a[href='#privacy']")
        page.wait_for_selector("#budget-meter", state="detached")
        words = page.locator("#privacy-body").inner_text()
        assert "∞" in words
        assert "no epsilon bounds what all releases together tell" in words
        assert violations(page) == []
    finally:
        home.ledger.unlink()


@pytest.mark.parametrize(("width", "look"), [(1280, {}), (1280, {"color_scheme": "dark"}), (360, {"locale": "zh-CN"})])
def test_every_view_fits_and_is_accessible(browser, address, look, width):
    with watched(browser, address, viewport={"width": width, "height": 800}, **look) as one:
        page = one.go()
        open_user(page)
        for view in VIEWS:
            page.click(f"nav a[href='#{view}']")
            page.wait_for_selector(VIEWS[view])
            page.wait_for_selector(".skeleton", state="detached")
            assert overflow(page) <= 0
            assert violations(page) == []
        shade = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert shade == ("rgb(16, 23, 26)" if look.get("color_scheme") == "dark" else "rgb(245, 243, 238)")
        if "locale" in look:
            assert page.evaluate("document.documentElement.lang") == "zh-Hans"
