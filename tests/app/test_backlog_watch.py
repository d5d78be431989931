"""Who counts what waits, and what is known while nobody does."""

import asyncio

import pytest

from longwire.app.backlog_watch import EVERY_S, BacklogWatch
from longwire.errors import StoreUnavailable
from longwire.ports.backlog import Backlog
from longwire.testing import ManualClock


class Store:
    def __init__(self, clock: ManualClock) -> None:
        self.looks = 0
        self.is_away = False
        self._clock = clock

    async def look(self) -> Backlog:
        if self.is_away:
            raise StoreUnavailable("away")
        self.looks += 1
        return Backlog(self._clock.now_ms(), self.looks, None, 0, 0, 0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> Store:
    return Store(clock)


async def test_it_counts_at_once_and_each_half_minute(clock: ManualClock, store: Store) -> None:
    watch = BacklogWatch(store, sleep=clock.sleep)
    running = asyncio.create_task(watch.run())
    await clock.run_for(0.1)
    assert watch.latest is not None
    assert store.looks == 1
    await clock.run_for(2 * EVERY_S)
    assert store.looks == 3
    running.cancel()


async def test_what_is_old_is_not_told_where_the_store_is_away(clock: ManualClock, store: Store) -> None:
    watch = BacklogWatch(store, sleep=clock.sleep)
    await watch.look()
    store.is_away = True
    await watch.look()
    assert watch.latest is None


async def test_a_process_that_neither_leads_nor_is_asked_counts_nothing(clock: ManualClock, store: Store) -> None:
    leads = False
    watch = BacklogWatch(store, leads=lambda: leads, always=False, sleep=clock.sleep)
    await watch.look()
    assert (watch.latest, store.looks) == (None, 0)
    leads = True
    await watch.look()
    assert watch.latest is not None
    leads = False
    await watch.look()
    assert watch.latest is None


async def test_who_comes_to_lead_has_counted_soon(clock: ManualClock, store: Store) -> None:
    leads = False
    watch = BacklogWatch(store, leads=lambda: leads, always=False, sleep=clock.sleep)
    running = asyncio.create_task(watch.run())
    await clock.run_for(60)
    leads = True
    await clock.run_for(3)
    assert watch.latest is not None
    running.cancel()
