"""Redis stopped, frozen, emptied and brought back: every call ends in time, and goes on without a new process."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from pyroaring import BitMap

from longwire.adapters.redis import RedisRoutes, RedisServer, RedisTokens, RedisWaiting, connect
from longwire.adapters.redis.server import Call
from longwire.errors import StoreUnavailable
from longwire.ports.routes import Route
from longwire.testing.engines import Redis

T = TypeVar("T")

WITHIN_S = 2.0


async def in_time(call: Awaitable[object]) -> None:
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await call
    assert time.monotonic() - began < WITHIN_S


async def until_answered(call: Callable[[], Awaitable[T]]) -> T:
    """What it gives as soon as Redis is taken to be back."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await call()
            except StoreUnavailable:
                await asyncio.sleep(0.05)


async def nobody(_segment: int) -> BitMap:
    return BitMap()


@pytest.mark.parametrize("way", ["stop", "kill", "freeze"])
async def test_every_call_ends_in_time_while_redis_is_away_and_works_when_it_is_back(
    own_redis, own_server, way
) -> None:
    routes, hints, tokens = RedisRoutes(own_server), RedisWaiting(own_server, "w"), RedisTokens(own_server)
    (attached,) = await routes.attach("n1", [7])
    getattr(own_redis, way)()
    for call in (
        lambda: routes.attach("n1", [7]),
        lambda: routes.detach("n1", [(7, attached.epoch)]),
        lambda: routes.repair("n1", 0, [(7, attached.epoch)]),
        lambda: routes.find([7]),
        lambda: routes.whereabouts(0),
        lambda: routes.routed_to("n1", 0),
        lambda: routes.segments(),
        lambda: routes.nodes(),
        lambda: routes.count("n1"),
        lambda: routes.sweep("n1"),
        lambda: hints.who_may_wait([7]),
        lambda: hints.may_wait(BitMap([7])),
        lambda: hints.rebuild(0, nobody),
        lambda: tokens.get_many([b"x" * 32]),
        lambda: tokens.bar([b"x" * 32], 60),
    ):
        await in_time(call())
    if way == "freeze":
        own_redis.thaw()
        # What was asked while it stood still is done yet, as far as its deadline is not over.
        (route,) = await until_answered(lambda: routes.find([7]))
        assert route.node_id == "n1"
        assert route.epoch >= attached.epoch
    else:
        own_redis.restart()
        (again,) = await until_answered(lambda: routes.attach("n1", [7]))
        assert again.previous is None
        assert again.epoch > attached.epoch


async def test_who_comes_behind_a_call_that_was_not_answered_need_not_wait_as_long(own_redis, own_server) -> None:
    routes = RedisRoutes(own_server)
    await routes.attach("n1", [7])
    own_redis.freeze()
    await in_time(routes.find([7]))
    began = time.monotonic()
    hints = RedisWaiting(own_server, "w")
    for _ in range(20):
        with pytest.raises(StoreUnavailable):
            await routes.find([7])
        stands = asyncio.Event()
        hints.add([7], stands.set)
        await stands.wait()
    await asyncio.sleep(0.9)  # a probe that failed makes no difference
    with pytest.raises(StoreUnavailable):
        await routes.find([7])
    assert time.monotonic() - began < 1.2
    own_redis.thaw()


async def test_connections_that_a_restart_closed_cost_no_call(own_redis, own_server) -> None:
    routes = RedisRoutes(own_server)
    await asyncio.gather(*(routes.find([7]) for _ in range(20)))  # as many connections
    own_redis.stop()
    own_redis.restart()
    assert await asyncio.gather(*(routes.find([7]) for _ in range(20))) == [[None]] * 20


async def test_scripts_that_redis_forgot_are_sent_again(own_redis, own_server) -> None:
    routes = RedisRoutes(own_server)
    await routes.attach("n1", [7])
    own_redis.call("SCRIPT FLUSH")
    attached = await routes.attach("n2", [7, 70_000])
    assert await routes.find([7, 70_000]) == [Route("n2", one.epoch) for one in attached]


async def test_hints_that_redis_lost_read_as_all_ones_until_they_are_rebuilt(own_redis, own_server) -> None:
    hints = RedisWaiting(own_server, "w")
    await hints.rebuild(0, nobody)
    assert await hints.who_may_wait([7]) == set()
    own_redis.call("FLUSHALL")
    assert await hints.who_may_wait([7]) == {7}
    assert (await RedisRoutes(own_server).attach("n1", [7]))[0].waits
    await hints.rebuild(0, nobody)
    await RedisWaiting(own_server, "p").rebuild(0, nobody)
    assert await hints.who_may_wait([7]) == set()
    assert not (await RedisRoutes(own_server).attach("n1", [7]))[0].waits


async def test_a_rebuilding_during_which_redis_lost_everything_is_not_believed(own_redis, own_server) -> None:
    hints = RedisWaiting(own_server, "w")

    async def query(_segment: int) -> BitMap:
        stands = asyncio.Event()
        hints.add([7], stands.set)  # behind what the store said, and lost
        await stands.wait()
        own_redis.call("FLUSHALL")
        return BitMap()

    assert not await hints.rebuild(0, query)
    assert await hints.who_may_wait([7]) == {7}


async def test_a_question_during_which_redis_lost_everything_clears_nothing(own_redis, own_server) -> None:
    hints = RedisWaiting(own_server, "w")
    ask = await hints.ask([7])
    own_redis.call("FLUSHALL")
    await hints.rebuild(0, nobody)
    stands = asyncio.Event()
    hints.add([7], stands.set)
    await stands.wait()
    await hints.clear(ask, [7])
    assert await hints.who_may_wait([7]) == {7}


async def test_hints_that_redis_did_not_take_are_kept_and_said_again(own_redis, own_server) -> None:
    hints = RedisWaiting(own_server, "w")
    for segment in (0, 1):
        await hints.rebuild(segment, nobody)
    own_redis.freeze()
    stands = asyncio.Event()
    hints.add([7, 70_000], stands.set)
    async with asyncio.timeout(WITHIN_S):
        await stands.wait()
    own_redis.thaw()
    task = asyncio.create_task(hints.run(nobody))
    other = RedisWaiting(own_server, "w")
    try:
        async with asyncio.timeout(10):
            while await until_answered(lambda: other.who_may_wait([6, 7, 70_000])) != {7, 70_000}:
                await asyncio.sleep(0.05)
    finally:
        task.cancel()


async def test_asking_and_clearing_never_raise(own_redis, own_server) -> None:
    hints = RedisWaiting(own_server, "w")
    own_redis.stop()
    await hints.clear(await hints.ask([7]), [7])


async def test_routes_that_redis_lost_are_repaired_with_their_epochs(own_redis, own_server) -> None:
    routes = RedisRoutes(own_server)
    attached = await routes.attach("n1", [7, 8, 70_000])
    own_redis.call("FLUSHALL")
    await asyncio.sleep(0.002)  # a loss within the millisecond of the attach would give the same epoch
    (moved,) = await routes.attach("n2", [8])
    assert moved.previous is None
    assert moved.epoch > attached[1].epoch
    assert await routes.repair("n1", 0, [(7, attached[0].epoch), (8, attached[1].epoch)]) == [
        (8, Route("n2", moved.epoch))
    ]
    assert await routes.repair("n1", 1, [(70_000, attached[2].epoch)]) == []
    assert await routes.segments() == [0, 1]
    assert await routes.find([7, 8, 70_000]) == [
        Route("n1", attached[0].epoch),
        Route("n2", moved.epoch),
        Route("n1", attached[2].epoch),
    ]
    assert await routes.count("n1") == 2


async def test_an_attach_whose_caller_went_away_harms_nobody(own_redis, own_server) -> None:
    routes = RedisRoutes(own_server)
    own_redis.freeze()
    first = asyncio.create_task(routes.attach("n1", [7]))
    second = asyncio.create_task(routes.attach("n1", [8]))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(StoreUnavailable):
        await second
    own_redis.thaw()
    assert len(await until_answered(lambda: routes.attach("n1", [9]))) == 1


async def test_one_server_of_a_cluster_that_is_away_leaves_the_others_at_work(own_cluster, cluster_server) -> None:
    routes = RedisRoutes(cluster_server)
    everywhere = [segment << 16 for segment in range(30)]
    await routes.attach("n1", everywhere)
    for way, back in (("freeze", "thaw"), ("kill", "restart")):
        getattr(own_cluster.nodes[0], way)()
        answered = set()
        for _ in range(2):
            for device_no in everywhere:
                try:
                    await routes.attach("n1", [device_no])
                except StoreUnavailable:
                    continue
                answered.add(device_no)
        assert 5 < len(answered) < 30
        await in_time(routes.attach("n1", everywhere))
        getattr(own_cluster.nodes[0], back)()
        assert len(await until_answered(lambda: routes.attach("n1", everywhere))) == 30


async def test_a_redis_that_was_never_there_is_said_by_its_name_without_its_password() -> None:
    for scheme in ("redis", "redis+cluster"):
        server = connect(f"{scheme}://user:hunter2@127.0.0.1:1/0", 1.0)
        with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1") as raised:
            await server.ping()
        assert "hunter2" not in str(raised.value)
        await server.aclose()


async def test_a_wrong_password_is_unavailability_that_says_so(tmp_path) -> None:
    with Redis(tmp_path, keeps_data=False) as engine:
        assert engine.call("ACL SETUSER longwire on >secret ~* &* +@all") == "+OK"
        address = engine.url.removeprefix("redis://")
        good = connect(f"redis://longwire:secret@{address}")
        await good.ping()
        await good.aclose()
        bad = connect(f"redis://longwire:wrong@{address}")
        with pytest.raises(StoreUnavailable, match="password"):
            await bad.ping()
        await bad.aclose()


async def test_a_redis_that_is_full_is_unavailability_and_reads_go_on(tmp_path) -> None:
    with Redis(tmp_path, keeps_data=False) as engine:
        assert engine.call("CONFIG SET maxmemory 1") == "+OK"
        server = connect(engine.url)
        routes = RedisRoutes(server)
        with pytest.raises(StoreUnavailable, match="memory"):
            await routes.attach("n1", [7])
        assert await routes.find([7]) == [None]
        await server.aclose()


@pytest.mark.parametrize("url", ["", "localhost:6379", "http://localhost", "redis://", "unix:///tmp/redis"])
def test_what_is_no_url_of_a_redis_is_refused_with_the_forms(url) -> None:
    with pytest.raises(ValueError, match=r"redis\+cluster://"):
        connect(url)


async def test_a_call_that_fails_leaves_those_beside_it(server: RedisServer, prefix) -> None:
    results = await server.try_run(
        [Call("SET", [f"{prefix}:a"], ["1"]), Call("HGET", [f"{prefix}:a"], ["x"]), Call("GET", [f"{prefix}:a"])]
    )
    assert isinstance(results[1], StoreUnavailable)
    assert results[2] == b"1"
