"""Kafka is away: the SDK keeps what is for the application, receipts of pushes wait, all else goes on."""

import pytest
from cluster_house import answer_to, back

from longwire.client import OutboxLimits
from longwire.reasons import Status
from longwire.testing.cluster import Mesh
from longwire.testing.process import RawClient


@pytest.mark.parametrize("how", ["stopped", pytest.param("frozen", marks=pytest.mark.chaos)])
def test_uplink_is_kept_by_the_sdk_and_receipts_wait(cluster, engines, strict, away, prefix, how) -> None:
    token = cluster.register([f"{prefix}-raw"])[f"{prefix}-raw"]
    # A device's messages leave in their order: behind one that the SDK keeps, others wait.
    mesh, limits = strict, OutboxLimits(in_flight=1)
    with (
        Mesh(cluster, 4, prefix=f"{prefix}-up", outbox=limits) as telling,
        mesh.talking(50, uplink=0),
        telling.talking(20, uplink=1),
    ):
        mesh.wait_talked(100)
        connects = len(mesh.connects)
        away(engines.kafka, how)
        push = mesh.push()
        with RawClient(cluster.gateways[0].port) as client:
            client.connect(f"{prefix}-raw", token)
            assert answer_to(client, "") is Status.NOT_DURABLE
        mesh.wait_talked(100)
        cluster.wait_until(
            lambda: len({number for number, message in mesh.others if message.kind == mesh.pushes[push]}) == 12,
            "the push reaches everyone",
        )
        back(engines.kafka)
        telling.wait_talked(100)
        mesh.check()
        telling.check()
    assert len(mesh.connects) == connects
    cluster.routes_equal_nodes()
