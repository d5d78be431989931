"""Nodes that are left in good order: by a signal, by the API, one after the other."""

import time
from collections import Counter

import pytest

from longwire.testing.cluster import Mesh


def test_a_node_that_is_told_to_stop_hands_its_devices_on(cluster, mesh) -> None:
    leaver = cluster.gateways[1]
    with mesh.talking(100):
        mesh.wait_talked(200)
        leaver.stop()
        assert leaver.exit_status == 0
        mesh.wait_talked(200)
    mesh.check()
    leaver.start()
    cluster.routes_equal_nodes()


def test_a_drain_by_the_api_goes_on_to_its_end_and_is_taken_back(cluster, mesh) -> None:
    node_id = cluster.node_id(cluster.gateways[2])
    with mesh.talking(50):
        mesh.wait_talked(50)
        told = cluster.call("POST", f"/v1/nodes/{node_id}/drain", json={"within_s": 10})
        assert told["state"] in ("draining", "drained")
        cluster.wait_until(lambda: not [one for one in mesh.devices if one.node_id == node_id], "all have moved")
        mesh.wait_connected()
        cluster.call("POST", f"/v1/nodes/{node_id}/undrain", number=1)
        cluster.call("POST", "/v1/rebalance", json={"within_s": 5})
        mesh.wait_talked(50)
    mesh.check()
    assert not any(node["is_draining"] for node in cluster.nodes())
    cluster.routes_equal_nodes()


@pytest.mark.chaos
def test_a_rolling_restart_under_load_loses_nothing_and_reconnects_are_spread(cluster, prefix) -> None:
    with Mesh(cluster, 300, prefix=prefix) as mesh, mesh.talking(100):
        for gateway in cluster.gateways:
            began = time.monotonic()
            gateway.stop()
            assert gateway.exit_status == 0
            seconds = Counter(int(when - began) for when, _ in mesh.connects if when > began)
            assert max(seconds.values()) <= max(20, 2.5 * sum(seconds.values()) / max(seconds)), seconds
            gateway.start()
            mesh.wait_talked(100)
        mesh.check()
        cluster.routes_equal_nodes()
