"""Somebody at a browser: goes to pages, waits for their data, takes pictures, and minds what goes wrong."""

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Request, Response, expect

SCREENS = Path(__file__).parents[2] / ".cache/screens"
WIDE, NARROW = (1280, 900), (390, 844)
_ALL = os.environ.get("LONGWIRE_SCREENS") == "all"
_LOOKS = list(itertools.product((WIDE, NARROW), ("light", "dark"))) if _ALL else [(WIDE, "light"), (NARROW, "dark")]
_READY = """() => window.did_handshake === true && document.querySelector("main h1")
    && !document.querySelector(".lw-skeleton")"""
_TOO_WIDE = """() => {
    const room = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= room) return "";
    const wide = [...document.querySelectorAll("body *")].filter(one => one.getBoundingClientRect().right > room + 1);
    return `${document.documentElement.scrollWidth} px in ${room} px, by `
        + wide.slice(-3).map(one => `<${one.tagName.toLowerCase()} class="${one.className}">`).join(", ");
}"""
_WITHIN_MS = 30_000
expect.set_options(timeout=_WITHIN_MS)


class Desk:
    """Somebody at a browser of their own."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self._url = url
        self._expected: list[str] = []
        self._troubles: list[str] = []
        self.took_s = 0.0
        """From the last visit's beginning to its first data."""
        context.set_default_timeout(_WITHIN_MS)
        self.page: Page = context.new_page()
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self._note(f"script: {error}"))
        self.page.on("requestfailed", self._on_failed)
        self.page.on("response", self._on_response)

    def expect(self, trouble: str) -> None:
        """A trouble whose words contain this is none from here on."""
        self._expected.append(trouble)

    def visit(self, path: str) -> Page:
        """Goes to a page and waits for its first data."""
        began = time.monotonic()
        self.page.goto(f"{self._url}{path}", wait_until="commit")
        self.wait()
        self.took_s = time.monotonic() - began
        self.check()
        return self.page

    def wait(self) -> None:
        """Until the page works and nothing of it is about to be."""
        self.page.wait_for_function(_READY)

    def look(self, name: str, *, whole: bool = True) -> None:
        """Takes the page's pictures; nothing may be wider than the window."""
        SCREENS.mkdir(parents=True, exist_ok=True)
        for (width, height), scheme in _LOOKS:
            self.page.set_viewport_size({"width": width, "height": height})
            self.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            if too_wide := self.page.evaluate(_TOO_WIDE):
                self._note(f"{name} at {width} px is too wide: {too_wide}")
            self.page.screenshot(
                path=SCREENS / f"{name}-{width}-{scheme}.png",
                full_page=whole and _ALL,
                animations="disabled",
                caret="hide",
            )
        self.page.set_viewport_size({"width": WIDE[0], "height": WIDE[1]})
        self.page.emulate_media(color_scheme="light")
        self.check()

    def check(self) -> None:
        """Fails with what went wrong so far."""
        told, self._troubles = self._troubles, []
        assert not told, f"{self.page.url}\n" + "\n".join(told)

    def _note(self, trouble: str) -> None:
        if not any(one in trouble for one in self._expected):
            self._troubles.append(trouble)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._note(f"console: {message.text} ({message.location.get('url')})")

    def _on_failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # of a page that was left
            self._note(f"request: {request.url}: {request.failure}")

    def _on_response(self, response: Response) -> None:
        if response.status >= 400:
            self._note(f"answer: {response.status} {response.url}")


SignIn = Callable[..., Desk]
"""``signed_in("viewer")``: a desk of somebody of this role; ``signed_in("")``: of a stranger."""
