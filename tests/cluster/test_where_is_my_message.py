"""Where is my message, asked of an api that neither took it nor holds its device."""

import secrets

import pytest
from cluster_house import handled

from longwire.ids import new_message_id, prefixed
from longwire.testing.cluster import Mesh


@pytest.fixture
def pair(cluster, prefix):
    """Two devices, on the first gateway and on the second."""
    with Mesh(cluster, 2, prefix=prefix, via=lambda number: number) as mesh:
        yield mesh


def test_the_way_of_a_message_is_told_across_nodes(cluster, pair, prefix) -> None:
    trace, name = secrets.token_hex(16), pair.name(1)
    body = {"to": {"device": name}, "kind": "news", "payload": "x"}
    headers = {"traceparent": f"00-{trace}-{'ab' * 8}-01"}
    message = cluster.call("POST", "/v1/messages", json=body, headers=headers)["message_id"]

    def ask(**question: str) -> dict:
        return cluster.call("GET", "/v1/trace", number=1, params=question)

    def is_said(code: str, **question: str) -> bool:
        return ask(**question)["verdict"]["code"] == code

    cluster.wait_until(lambda: is_said("acked", q=message), "the message is acknowledged")
    found = ask(trace_id=trace)
    assert (found["kind"], found["id"], found["facts"]["to"]) == ("message", message, f"device:{name}")
    node = cluster.node_id(cluster.gateways[1])
    told = {step["step"]: step["node_id"] for step in found["timeline"]}
    assert (told["routed"], told["acked"]) == (node, node)
    assert ask(device_id=name)["verdict"]["code"] == "device-online"

    gone = f"{prefix}-gone"
    cluster.register([gone])
    waits = cluster.call("POST", "/v1/messages", json=body | {"to": {"device": gone}})["message_id"]
    assert is_said("waiting-never-connected", q=waits)

    sender = pair.devices[0]
    said = new_message_id()
    pair.run(sender.send("", "9", "step", message_id=said))
    cluster.wait_until(lambda: ["step", pair.name(0), "9"] in handled(cluster, "uplink"), "the sink took it")
    uplink = ask(message_id=prefixed("msg", said))
    assert (uplink["kind"], uplink["verdict"]["code"]) == ("uplink", "taken")

    cluster.call("POST", f"/v1/devices/{name}/disconnect", json={"code": 4002})
    history = f"/v1/devices/{name}/sessions"
    cluster.wait_until(
        lambda: any(one["close"] for one in cluster.call("GET", history, number=1)["items"]), "its end is kept"
    )
    ended = next(one for one in cluster.call("GET", history)["items"] if one["close"])
    assert (ended["node_id"], ended["close"]) == (node, {"code": 4002, "reason": "rebalanced"})
