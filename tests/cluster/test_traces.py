"""One message's trace, from the API through two processes of one cluster, at a real collector; and marks."""

import secrets

import pytest
from cluster_house import handled

from longwire.testing.cluster import Mesh


@pytest.fixture
def pair(cluster, prefix):
    """Two devices, on the first gateway and on the second."""
    with Mesh(cluster, 2, prefix=prefix, via=lambda number: number) as mesh:
        yield mesh


def names(spans) -> list[str]:
    return [span.name for span in spans]


def test_a_message_is_one_trace_over_the_api_and_the_node_of_its_device(cluster, collector, pair) -> None:
    trace_id, name = secrets.token_hex(16), pair.name(1)
    headers = {"traceparent": f"00-{trace_id}-{'ab' * 8}-01"}
    body = {"to": f"device:{name}", "kind": "news", "payload": "x"}
    cluster.call("POST", "/v1/messages", json=body, headers=headers)
    wanted = {"api.call", "message.accepted", "link.forward", "link.arrived", "message.written", "message.acked"}
    cluster.wait_until(lambda: wanted <= set(names(collector.of(trace_id))), "every hop is at the collector")
    spans = {span.name: span for span in collector.of(trace_id)}
    assert spans["api.call"].parent_id == "ab" * 8
    assert {spans[hop].parent_id for hop in wanted - {"api.call"}} == {spans["api.call"].span_id}
    nodes = {hop: spans[hop].resource["service.instance.id"] for hop in wanted}
    there = cluster.node_id(cluster.gateways[1])
    assert {nodes[hop] for hop in ("link.arrived", "message.written", "message.acked")} == {there}
    assert nodes["api.call"] == nodes["link.forward"] != there
    assert spans["message.written"].facts["longwire.device_id"] == name


def test_a_marked_device_is_told_by_every_process_and_no_other_device_is(cluster, collector, pair) -> None:
    marked, other = pair.name(0), pair.name(1)
    before = len(collector.spans)
    mark = cluster.call("POST", "/v1/marks", json={"device_id": marked, "for_s": 120})

    def told() -> set[str]:
        pair.run(pair.devices[0].send("", "1", "step"))
        pair.run(pair.devices[1].send("", "1", "step"))
        pair.run(pair.devices[1].send(f"device:{marked}", "1", "news"))
        return set(names(collector.spans[before:]))

    wanted = {"uplink.accepted", "sink.handled", "message.accepted", "link.arrived", "message.written"}
    cluster.wait_until(lambda: wanted <= told(), "the marked device's messages are told")
    assert handled(cluster, "uplink")
    handled_of = {span.trace_id: span.parent_id for span in collector.spans[before:] if span.name == "sink.handled"}

    def entries() -> dict[str, str]:
        return {span.trace_id: span.span_id for span in collector.spans[before:] if span.name == "uplink.accepted"}

    # Each process exports by itself: the gateway's may come behind the sink's.
    cluster.wait_until(lambda: handled_of.keys() <= entries().keys(), "the gateways' spans are there too")
    assert handled_of.items() <= entries().items(), "the sink's hop is a child of the gateway's"
    uplink = [span for span in collector.spans[before:] if span.name in ("uplink.accepted", "sink.handled")]
    assert {span.facts["longwire.device_id"] for span in uplink} == {marked}, f"and not {other}"
    cluster.call("DELETE", f"/v1/marks/{mark['id']}")
    assert cluster.call("GET", "/v1/marks", number=1)["items"] == []
