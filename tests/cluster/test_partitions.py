"""A node that some do not reach: its link, Redis or ZooKeeper is cut off by a proxy."""

import time
from contextlib import ExitStack

import pytest
from cluster_house import refusal

from longwire.reasons import CloseCode
from longwire.testing.cluster import Mesh
from longwire.testing.engines import free_ports
from longwire.testing.faults import Direction, FaultProxy


class Island:
    """A fourth gateway, with a proxy before everything that may be cut off from it."""

    def __init__(self, cluster, stack: ExitStack) -> None:
        engines = cluster.engines
        self.process = cluster.add("gateway", is_started=False)
        stack.callback(cluster.remove, self.process)
        self.process.ports = free_ports(3)
        self.link = stack.enter_context(FaultProxy(("127.0.0.1", self.process.internal_port)))
        self.redis = stack.enter_context(FaultProxy(("127.0.0.1", engines.redis.port)))
        self.zookeeper = stack.enter_context(FaultProxy(engines.zookeeper.hosts))
        self.process.variables |= {
            "LONGWIRE_INTERNAL_URL": f"http://{self.link.address}",
            "LONGWIRE_REDIS_URL": f"redis://{self.redis.address}/0",
            "LONGWIRE_ZOOKEEPER_HOSTS": self.zookeeper.address,
        }
        self.process.start()


@pytest.fixture
def island(cluster):
    with ExitStack() as stack:
        yield Island(cluster, stack)


@pytest.fixture
def split(cluster, island, prefix):
    """Six devices, of which the odd ones are on the island."""
    with Mesh(cluster, 6, prefix=prefix, via=lambda number: 3 if number % 2 else 0) as mesh:
        yield mesh


@pytest.mark.parametrize(
    "fault",
    [
        "stall",
        pytest.param("refuse", marks=pytest.mark.chaos),
        pytest.param("blackhole", marks=pytest.mark.chaos),
        pytest.param("down", marks=pytest.mark.chaos),
        pytest.param("up", marks=pytest.mark.chaos),
    ],
)
def test_what_was_sent_while_the_link_was_cut_arrives_in_order(cluster, island, split, fault) -> None:
    with split.talking(50):
        split.wait_talked(100)
        connects = len(split.connects)
        if fault in ("up", "down"):
            island.link.drop(Direction(fault))
        else:
            getattr(island.link, fault)()
            if fault == "refuse":
                island.link.cut()
        split.push()
        split.wait_talked(300)
        time.sleep(6)  # longer than a call may take
        island.link.pass_on()
        split.wait_talked(100)
    split.check()
    assert len(split.connects) == connects
    cluster.routes_equal_nodes()


def test_a_node_that_lost_redis_keeps_its_devices_and_takes_no_others(cluster, island, split, prefix) -> None:
    token = cluster.register([f"{prefix}-new"])[f"{prefix}-new"]
    with split.talking(50):
        split.wait_talked(100)
        connects = len(split.connects)
        island.redis.stall()
        split.wait_talked(200)
        close = refusal(island.process.port, f"{prefix}-new", token)
        assert close is not None
        assert close.code == CloseCode.OVERLOADED
        split.push()
        island.redis.pass_on()
        split.wait_talked(100)
    split.check()
    assert len(split.connects) == connects
    cluster.routes_equal_nodes()


def test_a_node_that_lost_zookeeper_is_taken_for_dead_and_comes_back(cluster, island, split) -> None:
    with split.talking(50):
        split.wait_talked(100)
        island.zookeeper.blackhole()
        cluster.wait_until(lambda: len(cluster.nodes()) == 3, "it is not listed")
        split.wait_talked(200)
        island.zookeeper.pass_on()
        cluster.wait_until(lambda: len(cluster.nodes()) == 4, "it is listed again")
        split.push()
        split.wait_talked(100)
    split.check()
    cluster.routes_equal_nodes()
