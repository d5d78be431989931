import asyncio
import random

from pyroaring import BitMap

from longwire.adapters.redis import RedisRoutes, RedisServer, bits, connect
from longwire.adapters.redis.server import Call
from longwire.ports.routes import Route


class CountingServer(RedisServer):
    """The real one; counts the round trips and calls that go through it."""

    def __init__(self, url: str) -> None:
        made = connect(url)
        super().__init__(made.client, made.name, 2.0)
        self.trips: list[int] = []

    async def try_run(self, calls):
        if calls:
            self.trips.append(len(calls))
        return await super().try_run(calls)


async def test_attaches_that_come_while_one_is_under_way_go_together(redis_engine, prefix) -> None:
    server = CountingServer(redis_engine.url)
    routes = RedisRoutes(server, prefix)
    await routes.attach("n1", [1])
    server.trips.clear()
    attached = await asyncio.gather(*(routes.attach("n1", [no, no + 65_536]) for no in range(200)))
    assert server.trips[0] == 1 or server.trips[0] == 2
    assert sum(server.trips) <= 6  # told of one new segment, then one call a segment
    assert await routes.find([199, 65_735]) == [Route("n1", one.epoch) for one in attached[199]]
    await server.aclose()


async def test_a_repeat_within_what_goes_together_takes_over_in_the_order_of_the_calls(server, prefix) -> None:
    routes = RedisRoutes(server, prefix)
    ((first,), (second,)) = await asyncio.gather(routes.attach("n1", [7]), routes.attach("n2", [7]))
    assert first.previous is None
    assert second.previous == Route("n1", first.epoch)
    assert await routes.find([7]) == [Route("n2", second.epoch)]


async def test_the_keys_are_those_that_the_design_says(server, prefix) -> None:
    (attached,) = await RedisRoutes(server, prefix).attach("node~ab", [65_536 * 3 + 256 * 5 + 9])
    epoch, there, nodes, segments = await server.run(
        [
            Call("HGET", [f"{prefix}:{{3}}:r:5"], [9]),
            Call("GET", [f"{prefix}:{{3}}:on:node~ab"]),
            Call("SMEMBERS", [f"{prefix}:{{3}}:nodes"]),
            Call("SMEMBERS", [f"{prefix}:segments"]),
        ]
    )
    assert epoch == b"node~ab|%d" % attached.epoch
    assert bits.load(there, 3) == BitMap([65_536 * 3 + 256 * 5 + 9])
    assert set(nodes) == {b"node~ab"}
    assert set(segments) == {b"3"}


async def test_a_device_takes_no_more_than_a_listpack_entry(server, prefix) -> None:
    await RedisRoutes(server, prefix).attach("a-node-of-24-bytes~ab12c", list(range(256)))
    encoding, size = await server.run(
        [Call("OBJECT ENCODING", [f"{prefix}:{{0}}:r:0"]), Call("MEMORY USAGE", [f"{prefix}:{{0}}:r:0"])]
    )
    assert encoding == b"listpack"
    assert size / 256 < 56  # with the longest name a node may have; about 40 with one of 10 bytes


async def test_epochs_follow_the_clock_of_redis_and_nothing_else(server, prefix) -> None:
    """So that after a loss of everything they are above all that were given."""
    routes = RedisRoutes(server, prefix)
    for _ in range(20):
        attached = await routes.attach("n1", list(range(500)))
        await routes.detach("n1", [(no, one.epoch) for no, one in enumerate(attached)])
    ((seconds, micros),) = await server.run([Call("TIME", [])])
    assert max(one.epoch for one in attached) <= seconds * 1000 + micros // 1000 + 20


async def test_nothing_of_a_node_is_left_when_its_last_route_goes(server, prefix) -> None:
    routes = RedisRoutes(server, prefix)
    attached = await routes.attach("n1", [7, 8])
    await routes.detach("n1", [(no, one.epoch) for no, one in zip((7, 8), attached, strict=True)])
    assert await routes.nodes() == set()
    assert await server.run([Call("EXISTS", [f"{prefix}:{{0}}:on:n1"])]) == [0]


async def test_a_takeover_leaves_no_bit_behind(server, prefix) -> None:
    routes = RedisRoutes(server, prefix)
    rng = random.Random(7)
    for _ in range(30):
        await routes.attach(rng.choice(["n1", "n2", "n3"]), [rng.randrange(200_000) for _ in range(300)])
    for segment in await routes.segments():
        there = await routes.whereabouts(segment)
        everybody = BitMap().union(*there.values())
        assert sum(map(len, there.values())) == len(everybody)
        for device_no, route in zip(everybody, await routes.find(list(everybody)), strict=True):
            assert route is not None
            assert device_no in there[route.node_id]


async def test_a_sweep_gives_way_to_others_between_its_parts(server, prefix) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    routes = RedisRoutes(server, prefix, sleep=sleep)
    await routes.attach("n1", list(range(2_200)))
    assert await routes.sweep("n1") == 2_200
    assert len(pauses) == 4
