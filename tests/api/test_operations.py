"""Stats, nodes, the audit, and what devices sent, as operators see them."""

import asyncio
import dataclasses

import pytest
from msgspec.structs import replace

from longwire.ids import new_message_id
from longwire.model import UplinkRecord
from longwire.operations_model import NodeReport

REPORT = NodeReport("n1~0a", 2, 18_000, 10, 20, 30, 40, 0.25, 1 << 20, 0.5, 3.0, 99, (1.0, 2.0, 3.0))


async def test_stats_are_sums_with_rates_from_two_looks(site, operator) -> None:
    numbers = await site.devices("d-1", "d-2")
    await site.connect(*numbers)
    site.link.report_of["n1~0a"] = REPORT
    site.drift = 3
    app = site.build()
    client = await site.operator(app=app)
    first = (await client.get("/v1/stats")).json()
    assert (first["online"], first["connections"], first["queued_bytes"]) == (2, 2, 99)
    assert (first["connects_per_s"], first["push_count_drift"]) == (None, 3)
    assert first["ack_latency_ms"] == {"p50": 1.0, "p95": 2.0, "p99": 3.0}
    site.clock.advance(2)
    site.link.report_of["n1~0a"] = replace(REPORT, connects=20, uplink=60, downlink=33, acks=40)
    second = (await client.get("/v1/stats")).json()
    names = ("connects_per_s", "uplink_per_s", "downlink_per_s", "acks_per_s")
    assert [second[name] for name in names] == [5.0, 20.0, 1.5, 0.0]
    assert [second["nodes"][0][name] for name in names] == [5.0, 20.0, 1.5, 0.0]
    site.clock.advance(0.5)
    assert (await client.get("/v1/stats")).json()["uplink_per_s"] == 20.0


async def test_a_node_is_shown_with_what_it_says_of_itself(site, operator, check_problem) -> None:
    await site.connect(*await site.devices("d-1"))
    site.link.report_of["n1~0a"] = REPORT
    (node,) = (await operator.get("/v1/nodes")).json()["items"]
    assert node == (await operator.get("/v1/nodes/n1~0a")).json()
    assert (node["node_id"], node["host"], node["port"]) == ("n1~0a", "127.0.0.1", 7300)
    assert (node["connections"], node["routed"], node["drift"]) == (2, 1, 1)
    assert (node["cpu_share"], node["memory_bytes"], node["loop_late_ms"]) == (0.25, 1 << 20, 0.5)
    check_problem(await operator.get("/v1/nodes/n2~0a"), 404, "not-found")


async def test_a_node_that_does_not_answer_is_listed_all_the_same(operator) -> None:
    (node,) = (await operator.get("/v1/nodes")).json()["items"]
    assert (node["node_id"], node["connections"], node["drift"]) == ("n1~0a", None, None)
    stats = (await operator.get("/v1/stats")).json()
    assert (stats["connections"], stats["connects_per_s"]) == (0, None)


async def committed(site) -> None:
    """Entries go with the next commit, and nobody waits for them."""
    await site.database.write(lambda _: None)


async def test_the_audit_says_who_did_what_and_how_it_ended(site, operator) -> None:
    await site.devices("d-1")
    push = {"audience": {"all": True}, "message": {"kind": "a"}}
    made = await operator.post("/v1/pushes", json=push)
    await operator.post(f"/v1/pushes/{made.json()['id']}/cancel", headers={"X-Request-Id": "mine"})
    await operator.delete("/v1/devices/none")
    await operator.post("/v1/devices/d-1/disconnect", json={"cod": 1})
    for path in ("/v1/messages", "/v1/pushes/validate", "/v1/presence/query"):
        await operator.post(path, json={})
    await operator.get("/v1/devices")
    await committed(site)
    entries = (await operator.get("/v1/audit")).json()["items"]
    push_id = made.json()["id"]
    assert [(e["action"], e["target"], e["status"]) for e in entries] == [
        ("POST /v1/devices/{device_id}/disconnect", "d-1", 400),
        ("DELETE /v1/devices/{device_id}", "none", 404),
        ("POST /v1/pushes/{push_id}/cancel", push_id, 200),
        ("POST /v1/pushes", push_id, 202),
        ("POST /v1/devices/batch", "", 200),
    ]
    assert entries[2]["request_id"] == "mine"
    assert entries[2]["caller"].startswith("key_")
    assert entries[2]["at"] == "2025-11-24T16:00:00.000Z"


async def test_the_audit_comes_in_pages(site, operator) -> None:
    for n in range(5):
        await operator.delete(f"/v1/devices/d-{n}")
    await committed(site)
    first = (await operator.get("/v1/audit", params={"limit": 3})).json()
    second = (await operator.get("/v1/audit", params={"limit": 3, "cursor": first["next_cursor"]})).json()
    assert [e["target"] for e in first["items"] + second["items"]] == [f"d-{n}" for n in reversed(range(5))]
    assert second["next_cursor"] is None


async def append(site, *records: UplinkRecord) -> None:
    told: list[object] = []
    for record in records:
        site.uplink.append(record, lambda r, s: told.append(s))
    while len(told) < len(records):
        await asyncio.sleep(0.001)


async def test_what_devices_sent_is_shown_and_sought(site, operator, check_problem) -> None:
    one, two = await site.devices("d-1", "d-2")
    now = site.clock.now_ms()
    await append(
        site,
        UplinkRecord(one, "d-1", new_message_id(), "telemetry", b"\0a", now),
        UplinkRecord(two, "d-2", new_message_id(), "telemetry", b"b", now + 1_000),
        UplinkRecord(one, "d-1", new_message_id(), "order", b"c", now + 2_000, bytes(range(24))),
    )

    async def found(**query: object) -> list[str]:
        page = (await operator.get("/v1/uplink", params=query)).json()
        assert page["next_cursor"] is None
        return [item["payload_b64"] for item in page["items"]]

    assert await found() == ["Yw==", "Yg==", "AGE="]
    assert await found(device="d-1") == ["Yw==", "AGE="]
    assert await found(kind="telemetry") == ["Yg==", "AGE="]
    assert await found(since="2025-11-24T16:00:01Z") == ["Yw==", "Yg=="]
    assert await found(device="d-1", kind="telemetry", since="2025-11-24T16:00:01Z") == []
    page = (await operator.get("/v1/uplink", params={"limit": 2})).json()
    assert page["items"][0]["trace_id"] == bytes(range(16)).hex()
    rest = (await operator.get("/v1/uplink", params={"limit": 2, "cursor": page["next_cursor"]})).json()
    assert ([item["payload_b64"] for item in rest["items"]], rest["next_cursor"]) == (["AGE="], None)
    check_problem(await operator.get("/v1/uplink?device=none"), 404, "not-found")
    check_problem(await operator.get("/v1/uplink?since=now"), 400, "invalid-parameter")


PUSH = {"audience": {"all": True}, "message": {"kind": "news"}}


def events(text: str) -> list[str]:
    return [block.partition("\n")[0].removeprefix("event: ") for block in text.split("\n\n") if block]


async def test_a_push_is_watched_until_it_is_over(site, operator) -> None:
    (number,) = await site.devices("d-1")
    await site.connect(number)
    site.settings = dataclasses.replace(site.settings, stream_s=60)
    client = await site.operator()
    made = (await client.post("/v1/pushes", json=PUSH)).json()["id"]
    watching = asyncio.ensure_future(client.get(f"/v1/pushes/{made}/events"))
    await asyncio.sleep(0.05)
    await site.dispatch()
    await asyncio.sleep(0.05)
    await site.acknowledge(made, number)
    answer = await asyncio.wait_for(watching, 5)
    assert answer.headers["content-type"].startswith("text/event-stream")
    seen = events(answer.text)
    assert seen[-1] == "end"
    assert set(seen[:-1]) == {"progress"}
    assert '"status":"completed"' in answer.text.split("\n\n")[-2]


async def test_a_stream_ends_after_its_time_without_an_end(site, operator) -> None:
    await site.devices("d-1")
    made = (await operator.post("/v1/pushes", json=PUSH)).json()["id"]
    assert "end" not in events((await operator.get(f"/v1/pushes/{made}/events")).text)
    assert "progress" in events((await operator.get("/v1/stats/stream")).text)


async def test_streams_are_bounded_and_their_places_come_back(site, check_problem) -> None:
    site.settings = dataclasses.replace(site.settings, max_streams=2)
    client = await site.operator(app=site.build())
    open_ones = [asyncio.ensure_future(client.get("/v1/stats/stream")) for _ in range(2)]
    await asyncio.sleep(0.05)
    check_problem(await client.get("/v1/stats/stream"), 503, "overloaded")
    await asyncio.gather(*open_ones)
    assert (await client.get("/v1/stats/stream")).status_code == 200


@pytest.mark.parametrize("path", ["/v1/audit?cursor=1", "/v1/nodes?cursor=x", "/v1/uplink?cursor=-1", "/v1/nodes/x"])
async def test_what_is_not_understood_is_refused(operator, check_problem, path) -> None:
    check_problem(await operator.get(path), 400, "invalid-parameter")
