"""SQL is away: devices stay, known tokens connect, uplink is taken; what needs the store is answered politely."""

import pytest
from cluster_house import a_cluster, answer_to, back, go_away

from longwire.client import OutboxLimits
from longwire.reasons import Status
from longwire.testing.cluster import Mesh, SharedEngines
from longwire.testing.process import RawClient


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
        _go_without_store(cluster, engines, mesh, go_away, prefix, how)


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
            assert answer_to(client, f"device:{name}") is Status.NOT_DURABLE
            assert answer_to(client, "") is Status.OK
        answer = cluster.api().post("/v1/pushes", json={"audience": {"devices": [name]}, "message": {"kind": "k"}})
        assert (answer.status_code, answer.json()["code"]) == (503, "store-unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        back(engines.store)
        mesh.wait_talked(100)
        mesh.push()
    mesh.check()
    assert len(mesh.connects) == connects
    cluster.routes_equal_nodes()
