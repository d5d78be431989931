"""Two of everything: whichever is asked knows what the others did."""

import os
import signal

import pytest
from cluster_house import a_cluster, refusal

from longwire.testing.cluster import Mesh
from longwire.testing.engines.process import family


def test_what_one_api_does_the_other_one_sees(cluster, prefix) -> None:
    name, group = f"{prefix}-a", f"{prefix}-g"
    cluster.register([name])
    cluster.call("POST", "/v1/groups", number=0, json={"group_id": group})
    cluster.call("POST", f"/v1/groups/{group}/members", number=1, json={"add": [{"device": name}]})
    assert cluster.call("GET", f"/v1/devices/{name}", number=1)["device_id"] == name
    members = cluster.call("GET", f"/v1/groups/{group}/members", number=0)["items"]
    assert [member["device"] for member in members] == [name]


def test_a_revoked_device_is_closed_on_its_node_and_its_token_is_no_good_anywhere(cluster, mesh) -> None:
    cluster.call("POST", f"/v1/devices/{mesh.name(0)}/revoke", number=1)
    cluster.wait_until(lambda: mesh.devices[0].last_close is not None, "its session has ended", 10)
    token, device_id = mesh.devices[0].token, mesh.name(0)
    for gateway in cluster.gateways:
        close = refusal(gateway.port, device_id, token)
        assert close is not None
        assert close.code >= 4100


def test_every_process_says_that_it_is_ready(cluster) -> None:
    assert [process.readiness()[0] for process in cluster.processes()] == [200] * 9
    # One that a test before has killed is listed until its ZooKeeper session ends.
    cluster.wait_until(lambda: len(cluster.nodes()) == 3, "three nodes are listed")


@pytest.mark.chaos
def test_workers_are_nodes_and_one_that_is_killed_comes_again(tmp_path, standing, prefix) -> None:
    with a_cluster(tmp_path, standing.engines(), workers=3) as cluster, Mesh(cluster, 12, prefix=prefix) as mesh:
        cluster.wait_until(lambda: len(cluster.nodes()) == 3, "three nodes are listed")
        with mesh.talking(50):
            mesh.wait_talked(100)
            os.kill(list(family(cluster.gateways[0].pid))[1], signal.SIGKILL)
            mesh.wait_talked(100)
        mesh.check()
        cluster.routes_equal_nodes()
