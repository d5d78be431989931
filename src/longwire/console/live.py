"""What a page shows again and again: loaded while somebody looks, and said to be old where it is.

Nothing is loaded while the tab is hidden or its socket is away. A load that fails shows one banner with the age of
what is seen; the next that succeeds takes it away.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

from nicegui import Client, background_tasks, ui

from longwire.console.api import ApiError

T = TypeVar("T")


class Live:
    """One open page."""

    def __init__(self, banner: Callable[[str], None], on_ended: Callable[[], None]) -> None:
        """``banner`` shows a sentence, and nothing for ""; ``on_ended`` is called for a session that has ended."""
        self._banner = banner
        self._on_ended = on_ended
        self._is_hidden = False
        self._ticks: list[Callable[[], Awaitable[None]]] = []
        self._broken: dict[Callable[..., object], float] = {}
        self.first: list[asyncio.Task[None]] = []
        """The first loads, which a page that answers soon waits for."""

    def sees(self, is_visible: bool) -> None:
        """The tab was hidden or shown; one that is shown again is brought up to date at once."""
        was_hidden, self._is_hidden = self._is_hidden, not is_visible
        if was_hidden and is_visible:
            for tick in self._ticks:
                background_tasks.create(tick())

    def add(self, tick: Callable[[], Awaitable[None]]) -> None:
        self._ticks.append(tick)

    def is_idle(self, client: Client) -> bool:
        """Whether nobody looks. A page that is being built is looked at."""
        return self._is_hidden or (client._response_built and not client.has_socket_connection)  # noqa: SLF001

    def loaded(self, load: Callable[..., object]) -> None:
        if self._broken.pop(load, None) is not None and not self._broken:
            self._banner("")

    def failed(self, load: Callable[..., object], error: ApiError) -> None:
        if error.status == 401:
            self._on_ended()
            return
        since = self._broken.setdefault(load, time.monotonic())
        age = round(time.monotonic() - min(self._broken.values()))
        old = f"These numbers are {age} s old" if since and age else "These numbers are not fresh"
        self._banner(f"{old}: {error.detail}")


_pages: WeakKeyDictionary[Client, Live] = WeakKeyDictionary()


def begin(live: Live) -> None:
    """From here on ``every`` works on the page that is being built."""
    client = ui.context.client
    _pages[client] = live

    def forget() -> None:
        # What a page loads holds the page: by its weak key alone it would stay for ever.
        _pages.pop(client, None)

    client.on_delete(forget)


def every(seconds: float, load: Callable[[], Awaitable[T]], show: Callable[[T], None]) -> None:
    """Loads and shows: at once, then every ``seconds``, one at a time, while somebody looks at the page."""
    client = ui.context.client
    live = _pages[client]
    slot = ui.context.slot
    is_running = False

    async def tick() -> None:
        nonlocal is_running
        if is_running or client.is_deleted or live.is_idle(client):
            return
        is_running = True
        try:
            loaded = await load()
        except ApiError as error:
            if not client.is_deleted:
                with slot:
                    live.failed(load, error)
            return
        finally:
            is_running = False
        if not client.is_deleted:
            with slot:
                show(loaded)
                live.loaded(load)

    live.add(tick)
    live.first.append(background_tasks.create(tick()))
    ui.timer(seconds, tick, immediate=False)
