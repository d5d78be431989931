"""Chromium for tests of pages, driven by Playwright: one browser process, gone when the test is.

    with Chromium() as chromium:
        page = chromium.browser.new_page()

Blocking, in the thread that started it. Between two calls Playwright leaves its event loop marked as the running one
of the thread, and nobody else can run a loop there: ``rests`` takes the mark away, ``works`` puts it back.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from longwire.testing.engines.base import find_program

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

_FLAGS = (
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
)


class Chromium:
    """Debian's Chromium without a window."""

    def __init__(self) -> None:
        self._playwright: Playwright | None = None
        self._browser: Browser | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def browser(self) -> "Browser":
        """Playwright's; works between ``start`` and ``stop``."""
        assert self._browser is not None, "Chromium does not run"
        return self._browser

    def start(self) -> Self:
        """Starts driver and browser. Raises EngineMissing."""
        from playwright.sync_api import sync_playwright

        program = find_program("chromium", "chromium")
        self._playwright = sync_playwright().start()
        try:
            self._browser = self._playwright.chromium.launch(executable_path=program, args=list(_FLAGS))
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Ends browser and driver. They end too when this process is killed: the driver reads from a pipe of ours."""
        self.works()
        if self._browser is not None:
            self._browser.close()
        if self._playwright is not None:
            self._playwright.stop()
        self._browser = self._playwright = None

    def rests(self) -> None:
        """Lets other tests run event loops in this thread until ``works``."""
        with contextlib.suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()
        asyncio._set_running_loop(None)  # noqa: SLF001 - as Playwright does

    def works(self) -> None:
        """Back from ``rests``."""
        if self._loop is not None:
            asyncio._set_running_loop(self._loop)  # noqa: SLF001 - as above
            self._loop = None

    @contextlib.contextmanager
    def working(self) -> Iterator["Browser"]:
        """The browser, awake for as long as the block lasts."""
        self.works()
        try:
            yield self.browser
        finally:
            self.rests()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
