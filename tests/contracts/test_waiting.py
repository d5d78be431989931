"""What every WaitingHints does, whatever engine it stands on, and what its route table tells of it."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
from pyroaring import BitMap

from longwire.adapters.embedded.routes import EmbeddedRoutes
from longwire.adapters.embedded.waiting import EmbeddedWaiting
from longwire.adapters.redis import RedisRoutes, RedisWaiting, connect
from longwire.errors import StoreUnavailable
from longwire.ports.routes import RouteTable
from longwire.ports.waiting import WaitingHints
from longwire.testing import ManualClock

KINDS = ("embedded", "redis", "redis cluster")

_prefixes = itertools.count()


class World(NamedTuple):
    hints: WaitingHints
    routes: RouteTable


@pytest.fixture(params=KINDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "embedded":
        hints = EmbeddedWaiting(asyncio.sleep)
        yield World(hints, EmbeddedRoutes(ManualClock(), hints.may_one_wait))
        return
    engine = request.getfixturevalue("redis_engine" if request.param == "redis" else "redis_cluster")
    server = connect(engine.url if request.param == "redis" else engine.url.replace("redis:", "redis+cluster:"))
    prefix = f"hints{next(_prefixes)}"
    yield World(RedisWaiting(server, "w", prefix), RedisRoutes(server, prefix, hints=("w",)))
    await server.aclose()


@pytest.fixture
def hints(world: World) -> WaitingHints:
    return world.hints


async def nobody(_segment: int) -> BitMap:
    return BitMap()


async def added(hints: WaitingHints, device_nos) -> None:
    stands = asyncio.get_running_loop().create_future()
    hints.add(device_nos, lambda: stands.set_result(None))
    await stands


async def whole(hints: WaitingHints, *segments: int) -> None:
    for segment in segments or (0,):
        assert await hints.rebuild(segment, nobody)


async def test_a_segment_that_was_never_rebuilt_reads_as_all_ones(hints) -> None:
    assert await hints.who_may_wait([1, 2, 70_000]) == {1, 2, 70_000}
    assert await hints.may_wait(BitMap([1, 2, 70_000])) == BitMap([1, 2, 70_000])
    await whole(hints, 1)
    assert await hints.who_may_wait([1, 70_000]) == {1}
    assert await hints.may_wait(BitMap([1, 70_000])) == BitMap([1])


async def test_nothing_is_no_work(hints) -> None:
    assert await hints.who_may_wait([]) == set()
    assert await hints.may_wait(BitMap()) == BitMap()
    await hints.clear(await hints.ask([]), [])
    await added(hints, [])


async def test_what_is_added_may_wait_and_nothing_else(hints) -> None:
    await whole(hints, 0, 1)
    await added(hints, [7, 70_000])
    await added(hints, BitMap([65_535]))
    assert await hints.who_may_wait([6, 7, 8, 65_535, 65_536, 70_000]) == {7, 65_535, 70_000}
    assert await hints.may_wait(BitMap(range(100_000))) == BitMap([7, 65_535, 70_000])


async def test_many_at_once_are_added_like_few(hints) -> None:
    await whole(hints, 0, 1, 2)
    many = BitMap(range(1, 150_000, 3))
    await added(hints, many)
    assert await hints.may_wait(BitMap(range(196_608))) == many
    assert await hints.who_may_wait(range(3_000)) == set(range(1, 3_000, 3))


async def test_the_dones_run_in_the_order_of_the_calls(hints) -> None:
    order: list[int] = []
    over = asyncio.get_running_loop().create_future()
    for number in range(50):
        hints.add([number] if number % 3 else [], lambda number=number: order.append(number))
    hints.add([1], lambda: over.set_result(None))
    await over
    assert order == list(range(50))


async def test_a_hint_goes_when_the_store_had_nothing(hints) -> None:
    await whole(hints, 0, 1)
    await added(hints, [7, 8, 70_000])
    ask = await hints.ask([7, 8, 9, 70_000])
    await hints.clear(ask, [7, 9, 70_000])
    assert await hints.who_may_wait([7, 8, 9, 70_000]) == {8}


async def test_what_is_added_behind_the_question_stays(hints) -> None:
    await whole(hints)
    await added(hints, [7, 8, 9])
    ask = await hints.ask([7, 8, 9])
    await added(hints, [7])
    await added(hints, BitMap([8]))
    await hints.clear(ask, [7, 8, 9])
    assert await hints.who_may_wait([7, 8, 9]) == {7, 8}


async def test_a_flood_behind_the_question_stays_too(hints) -> None:
    await whole(hints)
    ask = await hints.ask([7])
    await added(hints, BitMap(range(5_000)))
    await hints.clear(ask, [7])
    assert await hints.who_may_wait([7]) == {7}


async def test_a_later_question_makes_the_earlier_answer_void(hints) -> None:
    await whole(hints)
    await added(hints, [7])
    first = await hints.ask([7])
    await added(hints, [7])
    second = await hints.ask([7])
    await hints.clear(first, [7])
    assert await hints.who_may_wait([7]) == {7}
    await hints.clear(second, [7])
    assert await hints.who_may_wait([7]) == set()


async def test_a_question_whose_answer_never_came_clears_nothing(hints) -> None:
    await whole(hints)
    await added(hints, [7])
    ask = await hints.ask([7])
    await hints.clear(ask, [])
    await hints.clear(ask, [7])
    assert await hints.who_may_wait([7]) == {7}


async def test_a_rebuilding_makes_the_hints_what_the_store_says(hints) -> None:
    await added(hints, [7, 8])

    async def query(segment: int) -> BitMap:
        assert segment == 0
        return BitMap([8, 9])

    assert await hints.rebuild(0, query)
    assert await hints.who_may_wait(range(20)) == {8, 9}


@pytest.mark.parametrize("count", [1, 2_000])
async def test_what_is_added_during_a_rebuilding_is_not_lost(hints, count) -> None:
    await whole(hints)
    late = BitMap(range(100, 100 + count))

    async def query(_segment: int) -> BitMap:
        found = BitMap([8])
        await added(hints, late)
        return found

    assert await hints.rebuild(0, query)
    assert await hints.may_wait(BitMap(range(10_000))) == late | BitMap([8])


async def test_only_one_rebuilds_at_a_time(hints) -> None:
    outcomes = []

    async def query(_segment: int) -> BitMap:
        outcomes.append(await hints.rebuild(0, nobody))
        return BitMap([8])

    assert await hints.rebuild(0, query)
    assert outcomes == [False]
    assert await hints.who_may_wait([7, 8]) == {8}


async def test_a_rebuilding_that_fails_may_be_done_again_at_once(hints) -> None:
    async def query(_segment: int) -> BitMap:
        raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable):
        await hints.rebuild(0, query)
    assert await hints.who_may_wait([7]) == {7}
    await whole(hints)
    assert await hints.who_may_wait([7]) == set()


async def test_segments_that_are_asked_for_are_rebuilt_by_and_by(hints) -> None:
    asked = []

    async def query(segment: int) -> BitMap:
        asked.append(segment)
        return BitMap([70_000]) if segment else BitMap()

    assert await hints.who_may_wait([7, 70_000]) == {7, 70_000}
    task = asyncio.create_task(hints.run(query))
    try:
        async with asyncio.timeout(5):
            while await hints.who_may_wait([7, 70_000]) != {70_000}:
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
    assert sorted(set(asked)) == [0, 1]


async def test_an_attach_tells_whether_anything_may_wait(world) -> None:
    hints, routes = world
    assert [one.waits for one in await routes.attach("n1", [7, 70_000])] == [True, True]
    await whole(hints, 0)
    await added(hints, [8])
    assert [one.waits for one in await routes.attach("n1", [7, 8, 70_000])] == [False, True, True]


async def test_a_random_history_never_says_no_to_what_waits(hints) -> None:
    """Senders and receivers in any order, the store and the hints seen side by side."""
    rng = random.Random(5)
    inbox: dict[int, int] = {}
    devices = range(0, 131_072, 13_000)

    async def query(segment: int) -> BitMap:
        found = BitMap(no for no, count in inbox.items() if count and no >> 16 == segment)
        await asyncio.sleep(0)
        return found

    async def send() -> None:
        device_no = rng.choice(devices)
        inbox[device_no] = inbox.get(device_no, 0) + 1
        await added(hints, [device_no])

    async def receive() -> None:
        wanted = rng.sample(devices, 3)
        ask = await hints.ask(wanted)
        found = {no for no in wanted if inbox.get(no)}
        await asyncio.sleep(0)
        await hints.clear(ask, [no for no in wanted if no not in found])
        for no in found:
            inbox[no] = 0

    async def rebuild() -> None:
        await hints.rebuild(rng.randrange(2), query)

    for _ in range(100):
        await asyncio.gather(*(rng.choice([send, send, receive, rebuild])() for _ in range(4)))
        waiting = {no for no, count in inbox.items() if count}
        assert waiting <= await hints.who_may_wait(devices)
    await hints.rebuild(0, query)
    await hints.rebuild(1, query)
    assert await hints.who_may_wait(devices) == {no for no, count in inbox.items() if count}
