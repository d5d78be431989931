"""SQL is away: devices stay, known tokens connect, uplink is taken; what needs the store is answered politely."""

import pytest
from cluster_house import a_cluster, back

from longwire.client import OutboxLimits
from longwire.ids import new_message_id
from longwire.reasons import Status
from longwire.testing.cluster import Mesh, SharedEngines
from longwire.testing.process import RawClient
from longwire.wire.packets import FLAG_RECEIPT, Send, Sent


@pytest.mark.parametrize("how", ["stopped", pytest.param("frozen", marks=pytest.mark.chaos)])
def test_known_tokens_connect_and_what_cannot_be_kept_is_not_confirmed(
    cluster, engines, strict, away, prefix, how
) -> None:
    _go_without_store(cluster, engines, strict, away, prefix, how)


@pytest.mark.chaos
@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_the_same_without_postgresql(tmp_path, prefix, how) -> None:
    with (
        SharedEngines.start(tmp_path / "engines", store="postgres") as engines,
        a_cluster(tmp_path / "cluster", engines) as cluster,
        Mesh(cluster, 12, prefix=prefix, outbox=OutboxLimits(in_flight=1)) as mesh,
    ):
        away = lambda engine, how: engine.freeze() if how == "frozen" else engine.stop()  # noqa: E731
        _go_without_store(cluster, engines, mesh, away, prefix, how)


def _go_without_store(cluster, engines, mesh, away, prefix, how) -> None:
    name = f"{prefix}-known"
    token = cluster.register([name])[name]
    with RawClient(cluster.gateways[0].port) as client:
        client.connect(name, token)
    with mesh.talking(50):
        mesh.wait_talked(100)
        connects = len(mesh.connects)
        away(engines.store, how)
        with RawClient(cluster.gateways[1].port) as client:
            client.connect(name, token)
            for to, wanted in ((f"device:{name}", Status.NOT_DURABLE), ("", Status.OK)):
                client.send(Send(new_message_id(), to, "k", b""), 5, FLAG_RECEIPT)
                while not isinstance(packet := client.next().packet, Sent):
                    pass
                assert packet.status == wanted, to
        answer = cluster.api().post("/v1/pushes", json={"audience": {"devices": [name]}, "message": {"kind": "k"}})
        assert (answer.status_code, answer.json()["code"]) == (503, "store-unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        back(engines.store)
        mesh.wait_talked(100)
        mesh.push()
    mesh.check()
    assert len(mesh.connects) == connects
    cluster.routes_equal_nodes()
