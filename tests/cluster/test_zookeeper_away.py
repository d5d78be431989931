"""ZooKeeper is away: everything goes on with the nodes that were known last."""

import time

import pytest
from cluster_house import back

from longwire.testing.cluster import Mesh

LONGER_THAN_A_SESSION_S = 8.0


@pytest.mark.parametrize("how", ["stopped", pytest.param("frozen", marks=pytest.mark.chaos)])
def test_devices_stay_and_come_and_write_without_zookeeper(cluster, engines, mesh, away, prefix, how) -> None:
    with mesh.talking(50):
        mesh.wait_talked(100)
        connects = len(mesh.connects)
        away(engines.zookeeper, how)
        time.sleep(LONGER_THAN_A_SESSION_S)
        mesh.push()
        with Mesh(cluster, 3, prefix=f"{prefix}-new") as new:
            with new.talking(50):
                new.wait_talked(50)
            new.check()
        mesh.wait_talked(100)
        mesh.check_pushes()
        back(engines.zookeeper)
        mesh.wait_talked(100)
    mesh.check()
    assert len(mesh.connects) == connects
    cluster.wait_until(lambda: len(cluster.nodes()) == 3, "all nodes are listed")
    cluster.routes_equal_nodes()
