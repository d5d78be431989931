"""A gateway is gone: its devices come to others, and everything that was confirmed arrives."""

import time

import pytest


def test_devices_of_a_killed_node_go_elsewhere_and_lose_nothing(cluster, mesh) -> None:
    victim = cluster.gateways[0]
    node_id = cluster.node_id(victim)
    with mesh.talking(100):
        mesh.wait_talked(200)
        began = time.monotonic()
        there = {number for number, device in enumerate(mesh.devices) if device.node_id == node_id}
        victim.kill()
        mesh.push()
        mesh.wait_talked(200)
        mesh.wait_connected()
    mesh.check()
    assert there
    assert set(mesh.connects_since(began)) == there
    victim.start()
    cluster.routes_equal_nodes()


@pytest.mark.chaos
def test_a_node_that_was_frozen_wakes_up_without_ghosts(cluster, mesh) -> None:
    sleeper = cluster.gateways[0]
    with mesh.talking(50):
        mesh.wait_talked(100)
        sleeper.freeze()
        time.sleep(30)
        mesh.push()
        sleeper.thaw()
        mesh.wait_talked(100)
    mesh.check()
    cluster.wait_until(lambda: len(cluster.nodes()) == 3, "it is listed again")
    cluster.routes_equal_nodes()
