"""Placement: nodes that live and do not drain, another than the one that could not be reached."""

import pytest

from longwire.accounts.placement import Placement
from longwire.accounts.refusals import Refused
from longwire.model import NodeInfo


class FixedRegistry:
    """A registry that lists what it is given."""

    def __init__(self, *nodes: NodeInfo) -> None:
        self.listed = list(nodes)

    async def register(self, node: NodeInfo) -> None:
        raise NotImplementedError

    async def leave(self, node_id: str) -> None:
        raise NotImplementedError

    def nodes(self) -> list[NodeInfo]:
        return list(self.listed)


def node(node_id: str, *, is_draining: bool = False) -> NodeInfo:
    return NodeInfo(node_id, "h", 7300, None, "ws://h:7300/ws", is_draining)


def test_nodes_take_turns() -> None:
    placement = Placement(FixedRegistry(node("b~1"), node("a~1"), node("c~1")))
    chosen = [placement.choose().node_id for _ in range(6)]
    assert sorted(chosen[:3]) == ["a~1", "b~1", "c~1"]
    assert chosen[:3] == chosen[3:]


def test_a_draining_node_is_not_chosen_and_none_at_all_is_said() -> None:
    placement = Placement(FixedRegistry(node("a~1", is_draining=True), node("b~1")))
    assert {placement.choose().node_id for _ in range(4)} == {"b~1"}
    for registry in (FixedRegistry(), FixedRegistry(node("a~1", is_draining=True))):
        with pytest.raises(Refused) as caught:
            Placement(registry).choose()
        assert caught.value.code == "no-node"
        assert caught.value.retry_after_s


@pytest.mark.parametrize("avoid", ["a~1", "a"])
def test_the_node_to_avoid_is_avoided_by_id_or_name(avoid) -> None:
    placement = Placement(FixedRegistry(node("a~1"), node("b~1")))
    assert {placement.choose(avoid).node_id for _ in range(4)} == {"b~1"}


def test_a_node_that_came_back_is_not_the_one_to_avoid() -> None:
    placement = Placement(FixedRegistry(node("a~2"), node("b~1")))
    assert {placement.choose("a~1").node_id for _ in range(4)} == {"a~2", "b~1"}


def test_a_lone_node_is_given_although_it_is_to_be_avoided() -> None:
    assert Placement(FixedRegistry(node("a~1"))).choose("a~1").node_id == "a~1"


def test_clients_that_find_no_node_are_told_to_come_back_at_different_moments() -> None:
    told = set()
    for _ in range(20):
        with pytest.raises(Refused) as caught:
            Placement(FixedRegistry()).choose()
        told.add(caught.value.retry_after_s)
    assert len(told) == 20
    assert all(5 <= wait_s <= 10 for wait_s in told)
