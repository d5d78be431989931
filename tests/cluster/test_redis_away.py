"""Redis is away: devices stay, new ones are asked to come later, messages across nodes wait in the inbox."""

import pytest
from cluster_house import back, refusal

from longwire.client import Device
from longwire.reasons import CloseCode
from longwire.testing.cluster import Mesh


@pytest.mark.parametrize("how", [pytest.param("stopped", marks=pytest.mark.chaos), "frozen"])
def test_devices_stay_and_everything_arrives_when_redis_is_back(cluster, engines, mesh, away, prefix, how) -> None:
    names = [f"{prefix}-new", f"{prefix}-away"]
    tokens = cluster.register(names)
    with mesh.talking(50):
        mesh.wait_talked(100)
        connects = len(mesh.connects)
        away(engines.redis, how)
        mesh.push()
        mesh.wait_talked(200)
        close = refusal(cluster.gateways[0].port, names[0], tokens[names[0]])
        assert close is not None
        assert close.code == CloseCode.OVERLOADED
        assert close.retry_after_ms > 0
        mesh.run(mesh.devices[0].send(f"device:{names[1]}", "kept", "note"))
        back(engines.redis)
        mesh.wait_talked(100)
    mesh.check()
    assert len(mesh.connects) == connects
    with Mesh(cluster, 1, prefix=f"{prefix}-late") as late:
        late.check()
    cluster.routes_equal_nodes()


def test_a_table_that_was_emptied_is_whole_again_with_its_hints(cluster, engines, mesh, prefix) -> None:
    names = [f"{prefix}-away-{number}" for number in range(3)]
    tokens = cluster.register(names)
    for name in names:
        mesh.run(mesh.devices[0].send(f"device:{name}", "kept", "note"))
    with mesh.talking(50):
        mesh.wait_talked(100)
        connects = len(mesh.connects)
        engines.redis.call("FLUSHALL")
        mesh.push()
        mesh.wait_talked(100)
        cluster.routes_equal_nodes(75)
    for name in names:

        async def first(name: str = name) -> str:
            async with Device(device_id=name, token=tokens[name], address=cluster.gateways[1].address) as device:
                return (await device.receive(75)).text()

        assert mesh.run(first(), 90) == "kept"
    mesh.check()
    assert len(mesh.connects) == connects
    cluster.routes_equal_nodes()
