"""Placement: nodes that live and do not drain, another than the one that could not be reached, spread as chosen."""

import random
from collections import Counter
from collections.abc import Callable, Iterable
from math import ceil

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longwire.accounts.placement import Placement
from longwire.accounts.placing import LOAD_FACTOR, PlacementStrategy, fullness
from longwire.accounts.refusals import Refused
from longwire.model import NodeInfo

ALL = list(PlacementStrategy)
AUTO, ROUND_ROBIN, WEIGHTED, HASH, CONSISTENT_HASH = (
    PlacementStrategy(name) for name in ("auto", "round_robin", "weighted", "hash", "consistent_hash")
)


class FixedRegistry:
    """A registry that lists what it is given."""

    stale_since_ms = None

    def __init__(self, *nodes: NodeInfo) -> None:
        self.listed = list(nodes)

    async def register(self, node: NodeInfo) -> None:
        raise NotImplementedError

    def update(self, node: NodeInfo) -> None:
        self.listed = [node if node.node_id == listed.node_id else listed for listed in self.listed]

    async def leave(self, node_id: str) -> None:
        raise NotImplementedError

    def nodes(self) -> list[NodeInfo]:
        return self.listed

    def on_change(self, callback: Callable[[], None]) -> None:
        raise NotImplementedError


def node(node_id: str, **facts: object) -> NodeInfo:
    return NodeInfo(node_id, "h", 7300, None, "ws://h:7300/ws", **facts)  # type: ignore[arg-type]


def placement(strategy: PlacementStrategy, *nodes: NodeInfo) -> Placement:
    return Placement(FixedRegistry(*nodes), strategy, random_=random.Random(7))


def chosen(placement: Placement, devices: Iterable[int], avoid: str | None = None) -> list[str]:
    return [placement.choose(f"d-{device}", avoid).node_id for device in devices]


def spread(placement: Placement, devices: int) -> Counter[str]:
    return Counter(chosen(placement, range(devices)))


# -- every strategy --------------------------------------------------------------------------------------------------

node_infos = st.builds(
    node,
    st.from_regex(r"n[0-9]{1,2}~[0-9a-f]", fullmatch=True),
    is_draining=st.booleans(),
    connections=st.integers(0, 50),
    capacity=st.sampled_from([0, 1, 30, 1000]),
    weight=st.sampled_from([-1.0, 0.0, 0.5, 1.0, 3.0, 1e9]),
    cpu_share=st.floats(0, 4),
    loop_lag_ms=st.floats(0, 1e6),
)


@given(
    st.sampled_from(ALL),
    st.lists(node_infos, min_size=1, max_size=12, unique_by=lambda info: info.node_id),
    st.lists(st.tuples(st.text(min_size=1, max_size=20), st.sampled_from([None, "n1", "n1~0", "n2"])), max_size=20),
)
def test_every_strategy_gives_a_live_node_with_room_and_not_the_one_to_avoid(strategy, nodes, asked) -> None:
    placing = placement(strategy, *nodes)
    live = [info for info in nodes if not info.is_draining]
    for device_id, avoid in asked:
        if not live:
            with pytest.raises(Refused):
                placing.choose(device_id, avoid)
            continue
        placing.check()
        best = [info for info in live if not info.capacity or placing.connections(info) < info.capacity] or live
        best = [info for info in best if avoid not in (info.node_id, info.node_id.partition("~")[0])] or best
        assert placing.choose(device_id, avoid) in best


@pytest.mark.parametrize("strategy", ALL)
def test_a_draining_node_is_not_chosen_and_none_at_all_is_said(strategy) -> None:
    placing = placement(strategy, node("a~1", is_draining=True), node("b~1"))
    assert set(chosen(placing, range(4))) == {"b~1"}
    for nodes in ((), (node("a~1", is_draining=True),)):
        with pytest.raises(Refused) as caught:
            placement(strategy, *nodes).choose("d-1")
        assert caught.value.code == "no-node"
        assert caught.value.retry_after_s


@pytest.mark.parametrize("strategy", ALL)
@pytest.mark.parametrize("avoid", ["a~1", "a"])
def test_the_node_to_avoid_is_avoided_by_id_or_name(avoid, strategy) -> None:
    placing = placement(strategy, node("a~1"), node("b~1"))
    assert set(chosen(placing, range(20), avoid)) == {"b~1"}


@pytest.mark.parametrize("strategy", ALL)
def test_a_node_that_came_back_is_not_the_one_to_avoid(strategy) -> None:
    placing = placement(strategy, node("a~2"), node("b~1"))
    assert set(chosen(placing, range(20), "a~1")) == {"a~2", "b~1"}


@pytest.mark.parametrize("strategy", ALL)
def test_a_lone_node_is_given_although_it_is_to_be_avoided(strategy) -> None:
    assert placement(strategy, node("a~1")).choose("d-1", "a~1").node_id == "a~1"


@pytest.mark.parametrize("strategy", ALL)
def test_a_full_node_is_given_only_where_all_are_full(strategy) -> None:
    placing = placement(strategy, node("a~1", capacity=10, connections=10), node("b~1", capacity=30, connections=0))
    assert spread(placing, 30) == {"b~1": 30}
    assert "a~1" in spread(placing, 60)


@pytest.mark.parametrize("strategy", ALL)
def test_a_full_node_is_worse_than_the_one_to_avoid(strategy) -> None:
    placing = placement(strategy, node("a~1"), node("b~1", capacity=5, connections=5))
    assert set(chosen(placing, range(10), "a~1")) == {"a~1"}


def test_clients_that_find_no_node_are_told_to_come_back_at_different_moments() -> None:
    told = set()
    for _ in range(20):
        with pytest.raises(Refused) as caught:
            Placement(FixedRegistry()).choose("d-1")
        told.add(caught.value.retry_after_s)
    assert len(told) == 20
    assert all(5 <= wait_s <= 10 for wait_s in told)


# -- round robin and weighted ----------------------------------------------------------------------------------------


def test_nodes_take_turns() -> None:
    turns = chosen(placement(ROUND_ROBIN, node("b~1"), node("a~1"), node("c~1")), range(6))
    assert sorted(turns[:3]) == ["a~1", "b~1", "c~1"]
    assert turns[:3] == turns[3:]


def test_weights_are_met_exactly_and_the_heaviest_does_not_come_in_a_row() -> None:
    turns = chosen(placement(WEIGHTED, node("a~1", weight=4), node("b~1"), node("c~1")), range(600))
    assert Counter(turns) == {"a~1": 400, "b~1": 100, "c~1": 100}
    assert "a~1 a~1 a~1 a~1" not in " ".join(turns[:6])


# -- hash and consistent hash ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [HASH, CONSISTENT_HASH])
def test_a_device_is_given_the_same_node_by_every_api_while_the_nodes_stay(strategy) -> None:
    nodes = [node(f"n{at}~1", connections=1000) for at in range(7)]
    one, other = placement(strategy, *nodes), placement(strategy, *reversed(nodes))
    assert chosen(one, range(300)) == chosen(other, range(300)) == chosen(one, range(300))


def test_a_hash_is_the_same_in_every_release() -> None:
    nodes = [node(f"n{at}~1") for at in range(5)]
    assert chosen(placement(HASH, *nodes), range(8)) == [f"n{at}~1" for at in (1, 0, 4, 4, 3, 0, 4, 1)]


def moved(before: Iterable[NodeInfo], after: Iterable[NodeInfo], devices: int) -> float:
    """The share of the devices that get another node; the nodes say that they hold a lot, and all the same."""
    one = chosen(placement(CONSISTENT_HASH, *before), range(devices))
    other = chosen(placement(CONSISTENT_HASH, *after), range(devices))
    return sum(a != b for a, b in zip(one, other, strict=True)) / devices


@pytest.mark.parametrize("count", [3, 10, 30])
def test_a_node_that_comes_or_goes_moves_hardly_more_than_its_share_of_the_devices(count) -> None:
    nodes = [node(f"n{at}~1", connections=100_000) for at in range(count + 1)]
    assert 0.5 / (count + 1) <= moved(nodes[:-1], nodes, 3_000) <= 1.5 / (count + 1)
    assert 0.5 / (count + 1) <= moved(nodes, nodes[1:], 3_000) <= 1.5 / (count + 1)


@given(st.lists(st.integers(0, 300), min_size=2, max_size=12), st.integers(1, 200))
def test_nobody_is_given_more_than_the_bound_while_others_are_below_it(held, devices) -> None:
    nodes = [node(f"n{at}~1", connections=count) for at, count in enumerate(held)]
    placing = placement(CONSISTENT_HASH, *nodes)
    for device in range(devices):
        bound = ceil(LOAD_FACTOR * (sum(held) + device + 1) / len(nodes))
        assert placing.connections(placing.choose(f"d-{device}")) <= bound


def test_the_ring_is_in_proportion_to_the_weights() -> None:
    nodes = [node("a~1", weight=4.0, connections=400_000), *(node(f"b{at}~1", connections=100_000) for at in range(4))]
    assert 0.4 <= spread(placement(CONSISTENT_HASH, *nodes), 4_000)["a~1"] / 4_000 <= 0.6


# -- auto ------------------------------------------------------------------------------------------------------------


class Fleet:
    """Nodes that hold what they are given and say so now and then; apis that place by what they last said."""

    def __init__(self, *held: int, apis: int = 1, strategy: PlacementStrategy = AUTO) -> None:
        self.registry = FixedRegistry(*(node(f"n{at:02}~1", connections=count) for at, count in enumerate(held)))
        self.held = Counter({info.node_id: info.connections for info in self.registry.listed})
        self.apis = [Placement(self.registry, strategy, random_=random.Random(at)) for at in range(apis)]
        self.now = 0

    def arrive(self, devices: int, every: int) -> None:
        """Devices come to the apis in turn; the nodes publish after every so many."""
        for device in range(devices):
            self.held[self.apis[device % len(self.apis)].choose(f"d-{device}").node_id] += 1
            if device % every == every - 1:
                self.publish()

    def publish(self) -> None:
        self.now += 1
        for info in self.registry.listed:
            held = self.held[info.node_id]
            self.registry.update(msgspec.structs.replace(info, connections=held, figures_at_ms=self.now))

    def join(self, *added: NodeInfo) -> None:
        self.registry.listed = [*self.registry.listed, *added]

    @property
    def apart(self) -> float:
        """How far the fullest is above the emptiest, against the mean."""
        counts = [self.held[info.node_id] for info in self.registry.listed]
        return (max(counts) - min(counts)) / (sum(counts) / len(counts))


@pytest.mark.parametrize("apis", [1, 4])
def test_auto_fills_equal_nodes_equally_however_seldom_they_publish(apis) -> None:
    fleet = Fleet(*[0] * 10, apis=apis)
    fleet.arrive(10_000, every=5_000)
    assert fleet.apart < 0.05


@pytest.mark.parametrize("apis", [1, 4])
def test_auto_equalises_after_a_node_has_joined_without_giving_it_everybody(apis) -> None:
    fleet = Fleet(*[1_000] * 5, apis=apis)
    fleet.join(node("new~1"))
    fleet.arrive(300, every=100)
    assert fleet.held["new~1"] <= 0.45 * 300
    fleet.arrive(6_000, every=300)
    assert fleet.apart < 0.1


def test_auto_does_not_herd_to_the_emptiest_between_two_figures() -> None:
    fleet = Fleet(900, 1_000, 1_000, 1_000, 1_000, apis=4)
    fleet.arrive(1_000, every=1_000)
    assert fleet.held["n00~1"] <= 1_350
    assert fleet.apart < 0.3


def test_auto_gives_by_weight() -> None:
    turns = spread(placement(AUTO, node("a~1", weight=4.0), *(node(f"b{at}~1") for at in range(4))), 8_000)
    assert turns["a~1"] == pytest.approx(4_000, rel=0.05)


@pytest.mark.parametrize("hot", [{"cpu_share": 0.95}, {"loop_lag_ms": 200.0}])
def test_auto_spares_a_node_that_is_busy(hot) -> None:
    nodes = [node("a~1", connections=500, **hot), *(node(f"b{at}~1", connections=1_000) for at in range(4))]
    assert spread(placement(AUTO, *nodes), 1_000)["a~1"] == 0


def test_auto_overlooks_what_is_no_strain() -> None:
    calm = node("a~1", cpu_share=0.5, loop_lag_ms=20.0)
    assert fullness(calm, 100) == fullness(node("b~1"), 100)


def test_what_was_given_counts_until_the_node_says_something_new() -> None:
    registry = FixedRegistry(node("a~1", connections=10, figures_at_ms=1))
    placing = Placement(registry)
    chosen(placing, range(5))
    assert placing.connections(registry.nodes()[0]) == 15
    registry.update(node("a~1", connections=10, figures_at_ms=1, is_draining=False))
    placing.check()
    assert placing.connections(registry.nodes()[0]) == 15
    registry.update(node("a~1", connections=14, figures_at_ms=2))
    placing.check()
    assert placing.connections(registry.nodes()[0]) == 14
