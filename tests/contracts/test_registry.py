"""What every Registry does, whatever engine it stands on. An adapter joins by a maker in ``MAKERS``."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import pytest

from longwire.adapters.embedded.registry import EmbeddedRegistry
from longwire.model import NodeInfo
from longwire.ports.registry import Registry

MAKERS: dict[str, Callable[[], Registry]] = {"embedded": EmbeddedRegistry}


@dataclass
class Nodes:
    one = NodeInfo("n1~0a", "127.0.0.1", 7300, None, "ws://127.0.0.1:7300/ws")
    two = NodeInfo("n2~0b", "127.0.0.1", 7310, 7311, "ws://127.0.0.1:7310/ws")


@pytest.fixture(params=sorted(MAKERS))
def registry(request: pytest.FixtureRequest) -> Registry:
    return MAKERS[request.param]()


async def test_nodes_are_listed_while_they_are_registered(registry) -> None:
    assert registry.nodes() == []
    await registry.register(Nodes.one)
    await registry.register(Nodes.two)
    assert sorted(registry.nodes(), key=lambda node: node.node_id) == [Nodes.one, Nodes.two]
    await registry.leave(Nodes.one.node_id)
    assert registry.nodes() == [Nodes.two]


async def test_registering_again_replaces_what_is_listed(registry) -> None:
    await registry.register(Nodes.one)
    draining = msgspec.structs.replace(Nodes.one, is_draining=True, connections=5)
    await registry.register(draining)
    assert registry.nodes() == [draining]


async def test_leaving_without_being_listed_is_no_error(registry) -> None:
    await registry.leave("nobody")
    await registry.register(Nodes.one)
    await registry.leave(Nodes.one.node_id)
    await registry.leave(Nodes.one.node_id)
    assert registry.nodes() == []


async def test_a_list_that_was_given_out_does_not_change(registry) -> None:
    await registry.register(Nodes.one)
    listed = registry.nodes()
    await registry.leave(Nodes.one.node_id)
    assert listed == [Nodes.one]
