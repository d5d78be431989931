"""What every Registry does, whatever engine it stands on. An adapter joins by a maker in ``MAKERS``."""

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import msgspec
import pytest

from longwire.adapters.embedded.registry import EmbeddedRegistry
from longwire.adapters.zookeeper.client import ZooKeeperClient
from longwire.adapters.zookeeper.registry import ZooKeeperRegistry
from longwire.clock import SystemClock
from longwire.model import NodeInfo
from longwire.ports.registry import Registry

_bases = itertools.count()


@asynccontextmanager
async def embedded(_request: pytest.FixtureRequest) -> AsyncIterator[Registry]:
    yield EmbeddedRegistry()


@asynccontextmanager
async def zookeeper(request: pytest.FixtureRequest) -> AsyncIterator[Registry]:
    client = ZooKeeperClient(request.getfixturevalue("zookeeper_engine").hosts)
    registry = ZooKeeperRegistry(client, SystemClock(), base=f"/contract-{next(_bases)}")
    await client.start()
    await registry.start()
    yield registry
    await registry.stop()
    await client.stop()


MAKERS: dict[str, Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Registry]]] = {
    "embedded": embedded,
    "zookeeper": zookeeper,
}


@dataclass
class Nodes:
    one = NodeInfo("n1~0a", "127.0.0.1", 7300, None, "ws://127.0.0.1:7300/ws")
    two = NodeInfo("n2~0b", "127.0.0.1", 7310, 7311, "ws://127.0.0.1:7310/ws")


@pytest.fixture(params=sorted(MAKERS))
async def registry(request: pytest.FixtureRequest) -> AsyncIterator[Registry]:
    async with MAKERS[request.param](request) as registry:
        yield registry


async def test_nodes_are_listed_while_they_are_registered(registry) -> None:
    assert registry.nodes() == []
    await registry.register(Nodes.one)
    await registry.register(Nodes.two)
    assert sorted(registry.nodes(), key=lambda node: node.node_id) == [Nodes.one, Nodes.two]
    await registry.leave(Nodes.one.node_id)
    assert registry.nodes() == [Nodes.two]
    assert registry.stale_since_ms is None


async def test_registering_again_replaces_what_is_listed(registry) -> None:
    await registry.register(Nodes.one)
    draining = msgspec.structs.replace(Nodes.one, is_draining=True, connections=5)
    await registry.register(draining)
    assert registry.nodes() == [draining]


async def test_a_node_that_left_may_register_again(registry) -> None:
    await registry.register(Nodes.one)
    await registry.leave(Nodes.one.node_id)
    await registry.register(Nodes.one)
    assert registry.nodes() == [Nodes.one]


async def test_an_update_replaces_what_is_listed_at_once(registry) -> None:
    await registry.register(Nodes.one)
    busy = msgspec.structs.replace(Nodes.one, connections=5, cpu_share=0.5)
    registry.update(busy)
    assert registry.nodes() == [busy]


async def test_an_update_of_a_node_that_is_not_registered_lists_nothing(registry) -> None:
    registry.update(Nodes.one)
    assert registry.nodes() == []
    await registry.register(Nodes.one)
    await registry.leave(Nodes.one.node_id)
    registry.update(Nodes.one)
    assert registry.nodes() == []


async def test_leaving_without_being_listed_is_no_error(registry) -> None:
    await registry.leave("nobody")
    await registry.register(Nodes.one)
    await registry.leave(Nodes.one.node_id)
    await registry.leave(Nodes.one.node_id)
    assert registry.nodes() == []


async def test_a_list_that_was_given_out_does_not_change(registry) -> None:
    await registry.register(Nodes.one)
    listed = registry.nodes()
    registry.update(msgspec.structs.replace(Nodes.one, connections=5))
    await registry.leave(Nodes.one.node_id)
    assert listed == [Nodes.one]


async def test_listeners_hear_of_nodes_that_come_go_or_drain_but_not_of_figures(registry) -> None:
    seen: list[list[tuple[str, bool]]] = []
    registry.on_change(lambda: seen.append([(node.node_id, node.is_draining) for node in registry.nodes()]))
    await registry.register(Nodes.one)
    registry.update(msgspec.structs.replace(Nodes.one, connections=5))
    registry.update(msgspec.structs.replace(Nodes.one, is_draining=True))
    await registry.leave(Nodes.one.node_id)
    assert seen == [[("n1~0a", False)], [("n1~0a", True)], []]


async def test_a_listener_that_fails_keeps_nobody_from_hearing(registry, caplog) -> None:
    heard: list[None] = []
    registry.on_change(lambda: 1 / 0)
    registry.on_change(lambda: heard.append(None))
    await registry.register(Nodes.one)
    assert heard
    assert registry.nodes() == [Nodes.one]
    assert "a listener of the registry failed" in caplog.text
