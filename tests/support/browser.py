"""A real browser for the pages' tests, and a door served in a thread of this process."""

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WAIT_MS = 60_000  # for what a page is to show: a machine that does much else at the same time is slow
NOT_SERIOUS = ("minor", "moderate")


def chromium() -> str:
    """Path of an installed browser; skips the test, saying what to install, where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no chromium found: apt-get install chromium, and the tests of the pages run too")
    return found


@contextmanager
def opened_browser() -> Iterator[Any]:
    """A headless one. Playwright's own download is not used."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=path, args=options, timeout=60_000)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The address of an application that listens on loopback until the block ends."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="error", access_log=False, ws="none", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        deadline = time.monotonic() + 30
        while not server.started:
            assert time.monotonic() < deadline, "the door does not open"
            time.sleep(0.02)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


class Watched:
    """A page whose errors are kept: nothing may be printed to its console, nothing may fail to load."""

    def __init__(self, browser: Any, address: str, **look: Any) -> None:
        self.context = browser.new_context(**{"locale": "en-GB", "reduced_motion": "reduce", **look})
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.wrong: list[str] = []
        self.page.on("console", lambda one: one.type in ("error", "warning") and self.wrong.append(one.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("requestfailed", lambda one: "/api/live" in one.url or self.wrong.append(one.url))
        self.strangers: list[str] = []
        self.page.on("request", lambda one: one.url.startswith((address, "data:")) or self.strangers.append(one.url))
        self.address = address

    def go(self, path: str = "/page/") -> Any:
        self.page.goto(self.address + path, wait_until="load")
        self.page.wait_for_selector("#live[data-up=true]")
        return self.page

    def close(self) -> None:
        self.context.close()
        assert self.wrong == []
        assert self.strangers == []


@contextmanager
def watched(browser: Any, address: str, **look: Any) -> Iterator[Watched]:
    """A page of its own; at the end it must have had no error and asked nobody else."""
    one = Watched(browser, address, **look)
    try:
        yield one
    except BaseException:
        one.context.close()
        raise
    one.close()


def violations(page: Any) -> list[str]:
    """What axe-core finds serious or critical: rule, and where."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['target']} {node['failureSummary']}"
        for one in found
        if one["impact"] not in NOT_SERIOUS
        for node in one["nodes"]
    ]


def overflow(page: Any) -> int:
    """Pixels by which the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))
