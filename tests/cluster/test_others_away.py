"""One route, one sink, one api is killed at its work: another one takes over."""

import pytest
from cluster_house import handled

from longwire.testing.cluster.harness import at_once


def test_the_other_route_sink_and_api_take_over(cluster, mesh) -> None:
    with mesh.talking(50, uplink=0.5):
        mesh.wait_talked(100)
        for victims in (cluster.apis, cluster.routes, cluster.sinks):
            push = mesh.push(number=1)
            victims[0].kill()
            assert cluster.call("GET", f"/v1/pushes/{push}", number=1)["id"] == push
            mesh.wait_talked(100)
        at_once([victims[0].start for victims in (cluster.apis, cluster.routes, cluster.sinks)])
        mesh.wait_talked(100)
    mesh.check()
    cluster.routes_equal_nodes()
    names = {mesh.name(number) for number in range(12)}
    wanted = [str(key) for key in mesh.confirmed if key.receiver < 0]
    calls = [payload for kind, name, payload in handled(cluster, "uplink") if name in names and kind == mesh.tag]
    assert set(wanted) == set(calls)


@pytest.mark.chaos
@pytest.mark.parametrize("role", ["routes", "sinks", "apis"])
def test_each_of_a_role_is_killed_in_turn(cluster, mesh, role) -> None:
    victims = getattr(cluster, role)
    with mesh.talking(50, uplink=0.5):
        for turn in range(6):
            number = turn % 2
            push = mesh.push(number=1 - number if role == "apis" else 0)
            victims[number].kill()
            mesh.wait_talked(100)
            victims[number].start()
            assert cluster.call("GET", f"/v1/pushes/{push}")["id"] == push
    mesh.check()
    cluster.routes_equal_nodes()
