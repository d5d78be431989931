"""The check, over counts that somebody has damaged."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from push_fakes import Nodes
from push_house import PushHouse, push_house

from longwire.errors import StoreUnavailable
from longwire.push.check import Check
from longwire.testing import ManualClock


@pytest.fixture
async def house(tmp_path: Path, clock: ManualClock, nodes: Nodes) -> AsyncIterator[PushHouse]:
    async with push_house(tmp_path, clock, nodes) as house:
        yield house


async def test_what_does_not_add_up_is_logged_and_counted_each_minute(house, clock, caplog) -> None:
    await house.register("d-1", "d-2")
    view = await house.push()
    checking = asyncio.create_task(house.check.run())
    await house.pass_time(61, 30)
    assert house.check.drift == 0
    await house.database.write(lambda c: c.exec_driver_sql("UPDATE push_segments SET n_acked = 1, n_rest = 1").close())
    await house.pass_time(60, 30)
    assert house.check.drift == 1
    assert view.push.new.push_id.hex() in caplog.text
    checking.cancel()


async def test_of_several_processes_only_the_one_that_leads_looks(clock) -> None:
    looks = []

    class Store:
        async def drift(self, after, limit, now_ms):
            looks.append(after)
            return [], None

    leads = False
    checking = asyncio.create_task(Check(Store(), clock, clock.sleep, leads=lambda: leads).run())
    for expected in (0, 1):
        async with asyncio.timeout(10):
            while not clock.sleepers:
                await asyncio.sleep(0)
        clock.advance(61)
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(looks) == expected
        leads = True
    checking.cancel()


async def test_pages_go_on_and_begin_again(clock) -> None:
    asked = []

    class Store:
        async def drift(self, after, limit, now_ms):
            asked.append(after)
            if len(asked) == 2:
                raise StoreUnavailable("away")
            return [], (9, 1) if len(asked) == 1 else None

    check = Check(Store(), clock, clock.sleep)  # type: ignore[arg-type]
    checking = asyncio.create_task(check.run())
    await clock.run_for(240)
    assert asked == [(0, -1), (9, 1), (9, 1), (0, -1)]
    checking.cancel()
