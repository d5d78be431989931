"""The manual clock: time moves when told to, and wakes who slept, in order."""

import asyncio

import pytest

from longwire.testing import ManualClock


async def test_sleepers_wake_in_the_order_of_their_moments() -> None:
    clock = ManualClock()
    woken: list[tuple[float, float]] = []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((seconds, clock.monotonic()))

    tasks = [asyncio.create_task(sleeper(s)) for s in (3.0, 1.0, 2.0)]
    await clock.run_for(2.5)
    assert woken == [(1.0, 1.0), (2.0, 2.0)]
    assert clock.monotonic() == 2.5
    assert clock.sleepers == 1
    await clock.run_for(0.5)
    await asyncio.gather(*tasks)


async def test_a_coroutine_that_sleeps_again_and_again_wakes_at_each_moment() -> None:
    clock = ManualClock(now_ms=1_000)
    ticks: list[int] = []

    async def ticking() -> None:
        while True:
            await clock.sleep(0.2)
            ticks.append(clock.now_ms())

    task = asyncio.create_task(ticking())
    await clock.run_for(0.6)
    assert ticks == [1_200, 1_400, 1_600]
    task.cancel()
    await clock.run_for(10)
    assert len(ticks) == 3
    assert clock.sleepers == 0


async def test_advance_moves_both_times_at_once() -> None:
    clock = ManualClock(now_ms=5)
    clock.advance(1.5)
    assert (clock.now_ms(), clock.monotonic()) == (1_505, 1.5)
    await clock.sleep(0)
    with pytest.raises(ValueError, match="back"):
        clock.advance(-1)
