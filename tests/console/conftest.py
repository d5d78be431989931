"""The console's tests: one Longwire, one Chromium, and people who look at its pages.

    def test_devices(signed_in: SignIn) -> None:
        desk = signed_in("viewer")            viewer, operator or admin; a browser of their own
        page = desk.visit("/devices")         Playwright's page; waits for the first data
        desk.look("devices")                  pictures in .cache/screens: 1280 px light and 390 px dark; under
                                              `make screens` (LONGWIRE_SCREENS=all) whole pages, each light and dark

Errors of the page, of its script and of its requests, what its CSP forbids and a page wider than its window fail the
test. Tests here are plain functions: Playwright's calls block.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from console_desk import WIDE, Desk, SignIn
from console_world import World
from playwright.sync_api import Browser, BrowserContext

from longwire.testing.engines import Chromium


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One Longwire with its console, devices and people, for all tests of pages."""
    made = World(tmp_path_factory.mktemp("console"))
    try:
        made.start()
        made.add_people()
        made.populate()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    chromium = Chromium().start()
    chromium.rests()
    yield chromium
    chromium.stop()


@pytest.fixture
def browser(chromium: Chromium) -> Iterator[Browser]:
    """The browser, awake while the test runs."""
    with chromium.working() as browser:
        yield browser


@pytest.fixture(scope="session")
def contexts() -> dict[str, BrowserContext]:
    """By role: a browser's profile, which keeps the console's scripts from test to test."""
    return {}


@pytest.fixture
def signed_in(world: World, browser: Browser, contexts: dict[str, BrowserContext]) -> Iterator[SignIn]:
    """``signed_in("viewer")``: a desk of somebody of this role; ``signed_in("")``: of a stranger."""
    own: list[BrowserContext] = []
    desks: list[Desk] = []

    def open_context(**more: object) -> BrowserContext:
        settings = {"viewport": {"width": WIDE[0], "height": WIDE[1]}, "locale": "en-GB", "timezone_id": "UTC"}
        return browser.new_context(**settings | more)  # type: ignore[arg-type]

    def sit(role: str = "admin", **more: object) -> Desk:
        if more or not role:
            context = open_context(**more)
            own.append(context)
        else:
            context = contexts.get(role) or contexts.setdefault(role, open_context())
            context.clear_cookies()
        if role:
            context.add_cookies(
                [{"name": name, "value": value, "url": world.url} for name, value in world.cookies[role].items()]
            )
        desks.append(Desk(context, world.url))
        return desks[-1]

    yield sit
    for desk in desks:
        desk.page.close()
    for context in own:
        context.close()
    for desk in desks:
        desk.check()
