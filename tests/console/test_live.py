"""What an open page keeps, and that it is gone with the page."""

import asyncio
import gc
import weakref

from nicegui import Client, core
from nicegui.page import page

from longwire.console import live, shell
from longwire.console.api import quoted
from longwire.console.parts import box


async def _visit() -> weakref.ref[Client]:
    """Opens a page, waits for its first data, and leaves it."""
    client = Client(page(""), request=None)
    shown: list[int] = []

    async def load() -> int:
        return len(client.id)  # what a page loads knows the page

    with client:
        live.begin(live.Live(lambda _: None, lambda: None))
        with box("") as head:
            head.on("click", lambda: client.id)
        shell._keep_head(client, head)
        live.every(0.05, load, shown.append)
    while not shown:
        await asyncio.sleep(0.01)
    client.delete()
    return weakref.ref(client)


async def test_a_page_that_was_left_takes_no_memory(monkeypatch) -> None:
    monkeypatch.setattr(core, "loop", asyncio.get_running_loop())
    gone = await _visit()
    async with asyncio.timeout(30):
        while gone() is not None:
            await asyncio.sleep(0.05)
            gc.collect()


def test_names_of_dots_are_segments_and_lead_nowhere_else() -> None:
    assert [quoted(name) for name in (".", "..", "a.b", "a/b", "")] == ["%2E", "%2E%2E", "a.b", "a%2Fb", "-"]
