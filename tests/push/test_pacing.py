"""How many devices may be handed to nodes, and which."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from longwire.push.pacing import Pacing, first
from longwire.testing import ManualClock

NUMBERS = st.frozensets(st.integers(0, 300))


@given(NUMBERS, NUMBERS, st.integers(1, 50))
def test_a_part_holds_the_lowest_who_are_online_and_whoever_is_away_before_them(targets, there, count) -> None:
    online = targets & there
    part = set(first(BitMap(targets), BitMap(online), count))
    chosen = sorted(online)[:count]
    if len(online) <= count:
        assert part == targets
    else:
        assert part == {no for no in targets if no <= chosen[-1]}
        assert sorted(part & online) == chosen


@pytest.mark.parametrize("rate", [1, 3, 7, 100, 1_000, 999_983])
async def test_a_rate_is_kept_to_within_two_grains_and_reached(clock: ManualClock, rate) -> None:
    pacing = Pacing(clock, clock.sleep)
    handed = []

    async def hand_out() -> None:
        while True:
            devices = await pacing.turn(1, rate)
            assert devices >= 1
            pacing.spend(1, devices)
            handed.append((clock.monotonic(), devices))

    task = asyncio.create_task(hand_out())
    await clock.run_for(20)
    task.cancel()
    total = 0
    for at, devices in handed:
        total += devices
        assert total <= rate * at + rate * 0.25 + 1
    assert total >= rate * 19.5 - 1
    assert len(handed) <= 4 * 20 + 2


async def test_after_a_stall_no_more_than_two_grains_are_made_good(clock: ManualClock) -> None:
    pacing = Pacing(clock, clock.sleep)
    assert await pacing.turn(1, 1_000) == 250
    pacing.spend(1, 250)
    clock.advance(10)
    assert await pacing.turn(1, 1_000) == 500


async def test_pushes_have_buckets_of_their_own(clock: ManualClock) -> None:
    pacing = Pacing(clock, clock.sleep)
    for push_no in random.Random(1).sample(range(1_000), 50):
        assert await pacing.turn(push_no, 100) == 25
        pacing.spend(push_no, 25)


async def test_an_idle_bucket_is_dropped_after_a_minute(clock: ManualClock) -> None:
    pacing = Pacing(clock, clock.sleep)
    await pacing.turn(1, 100)
    clock.advance(59)
    await pacing.turn(2, 100)
    clock.advance(2)
    pacing.forget_idle()
    assert set(pacing._buckets) == {2}
