"""Routes of dead nodes: swept once the node has been off the list for a minute, by the process that leads."""

import asyncio

import pytest

from longwire.adapters.embedded.registry import EmbeddedRegistry
from longwire.adapters.embedded.routes import EmbeddedRoutes
from longwire.errors import StoreUnavailable
from longwire.model import NodeInfo
from longwire.push.route_sweep import RouteSweep
from longwire.testing import ManualClock


class StaleRegistry(EmbeddedRegistry):
    since: int | None = None

    @property
    def stale_since_ms(self):
        return self.since


class AwayRoutes(EmbeddedRoutes):
    is_away = False

    async def nodes(self):
        if self.is_away:
            raise StoreUnavailable("away")
        return await super().nodes()


class World:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.routes = AwayRoutes(self.clock)
        self.registry = StaleRegistry()
        self.leads = True
        self.sweep = RouteSweep(self.routes, self.registry, lambda: self.leads, self.clock, self.clock.sleep)

    async def node(self, node_id: str, *device_nos: int) -> None:
        await self.registry.register(NodeInfo(node_id, "127.0.0.1", 1, None, "ws://x"))
        await self.routes.attach(node_id, device_nos)


@pytest.fixture
async def world():
    world = World()
    await world.node("lives", 1, 2)
    await world.node("dies", 3, 70_000)
    running = asyncio.ensure_future(world.sweep.run())
    yield world
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_routes_of_a_node_that_is_gone_are_removed_after_a_minute_and_no_others(world) -> None:
    await world.clock.run_for(120)
    assert await world.routes.nodes() == {"lives", "dies"}
    await world.registry.leave("dies")
    await world.clock.run_for(75)
    assert await world.routes.count("dies") == 2
    await world.clock.run_for(30)
    assert await world.routes.nodes() == {"lives"}
    assert await world.routes.count("lives") == 2


async def test_a_node_that_is_listed_again_keeps_its_routes(world) -> None:
    await world.registry.leave("dies")
    await world.clock.run_for(61)
    await world.node("dies")
    await world.clock.run_for(31)
    await world.registry.leave("dies")
    await world.clock.run_for(75)
    assert await world.routes.count("dies") == 2


async def test_who_does_not_lead_sweeps_nothing(world) -> None:
    world.leads = False
    await world.registry.leave("dies")
    await world.clock.run_for(300)
    assert await world.routes.count("dies") == 2


async def test_nothing_is_swept_by_a_list_that_may_be_out_of_date(world) -> None:
    await world.registry.leave("dies")
    world.registry.since = 1
    await world.clock.run_for(300)
    assert await world.routes.count("dies") == 2
    world.registry.since = None
    await world.clock.run_for(60)
    assert await world.routes.count("dies") == 2
    await world.clock.run_for(60)
    assert await world.routes.count("dies") == 0


async def test_a_route_table_that_is_away_is_tried_again(world) -> None:
    await world.registry.leave("dies")
    world.routes.is_away = True
    await world.clock.run_for(120)
    world.routes.is_away = False
    await world.clock.run_for(121)
    assert await world.routes.count("dies") == 0
