"""Pushes through the operators' door: made, looked at, steered; what they may say, and what they answer."""

import base64
import json

import pytest

from longwire.adapters.sql.push_segments import forget_device
from longwire.push_model import PushQuery

NEWS = {"kind": "news", "payload": {"title": "Hello"}}
STATES = ("acked", "expired", "failed", "collapsed", "canceled", "withdrawn", "pending")


def push(audience, message=NEWS, **options):
    return {"audience": audience, "message": message, "options": options}


def adds_up(answer) -> bool:
    stats = answer.json()["stats"]
    return stats["targeted"] == sum(stats[state] for state in STATES)


@pytest.fixture
async def fleet(site):
    """Five devices; the first two have sessions."""
    numbers = await site.devices(*(f"d-{n}" for n in range(5)), user="ann", tags=["vip"])
    await site.connect(*numbers[:2])
    return numbers


async def test_a_push_is_made_dispatched_acknowledged_and_shown(site, operator, fleet) -> None:
    made = await operator.post("/v1/pushes", json=push({"all": True}, collapse_key="news"))
    body = made.json()
    assert made.status_code == 202
    assert made.headers["location"] == f"/v1/pushes/{body['id']}"
    assert (body["status"], body["audience"], body["kind"]) == ("accepted", {"all": True}, "news")
    assert (body["priority"], body["collapse_key"], body["ttl_s"]) == ("normal", "news", 86_400)
    assert (body["created_at"], body["expires_at"]) == ("2025-11-24T16:00:00.000Z", "2025-11-25T16:00:00.000Z")
    assert (body["stats"]["targeted"], body["stats"]["pending"], body["unresolved"]) == (5, 5, None)
    await site.dispatch()
    await site.acknowledge(body["id"], fleet[0])
    shown = await operator.get(made.headers["location"])
    stats = shown.json()["stats"]
    assert shown.json()["status"] == "dispatched"
    assert (stats["online_at_send"], stats["written"], stats["acked"], stats["pending"]) == (2, 2, 1, 4)
    assert stats["latency_ms"]["p50"] == pytest.approx(12, rel=0.1)
    assert shown.json()["progress"] == {
        "targeted": 5,
        "dispatched": 5,
        "percent": 100.0,
        "rate_per_s": None,
        "eta_s": None,
    }
    assert adds_up(shown)


@pytest.mark.parametrize(
    ("audience", "targeted"),
    [
        ({"all": True}, 5),
        ({"devices": ["d-0", "d-4", "d-0"]}, 2),
        ({"users": ["ann"]}, 5),
        ({"tags": {"any": ["vip"], "none": ["nobody"]}}, 5),
        ({"tags": {"all": ["vip", "sys:registered=2025-11-24"]}}, 5),
        ({"tags": {"any": ["nobody"]}}, 0),
    ],
)
async def test_each_kind_of_audience_means_its_devices(operator, fleet, audience, targeted) -> None:
    answer = await operator.post("/v1/pushes", json=push(audience))
    assert answer.status_code == 202
    assert answer.json()["stats"]["targeted"] == targeted
    assert (answer.json()["status"] == "completed") == (targeted == 0)
    tags = {"any": [], "all": [], "none": []}
    shown = {"tags": tags | audience["tags"]} if "tags" in audience else audience
    assert answer.json()["audience"] == shown


async def test_a_group_and_an_upload_are_audiences(operator, fleet) -> None:
    await operator.post("/v1/groups", json={"group_id": "g"})
    await operator.post("/v1/groups/g/members", json={"add": [{"device": "d-1"}, {"device": "d-2"}]})
    assert (await operator.post("/v1/pushes", json=push({"groups": ["g"]}))).json()["stats"]["targeted"] == 2
    lines = "d-0\nd-1\nd-3\nnobody\n"
    upload = await operator.post("/v1/audience-uploads", content=lines, headers={"Content-Type": "text/plain"})
    assert upload.status_code == 201
    assert upload.json()["unresolved"] == {"count": 1, "sample": ["nobody"]}
    answer = await operator.post("/v1/pushes", json=push({"upload": upload.json()["id"]}))
    assert answer.json()["stats"]["targeted"] == 3


async def test_names_that_mean_nobody_are_told(operator, fleet, check_problem) -> None:
    answer = await operator.post("/v1/pushes", json=push({"devices": ["d-1", "x-1", "x-2"]}))
    assert answer.json()["unresolved"] == {"count": 2, "sample": ["x-1", "x-2"]}
    check_problem(await operator.post("/v1/pushes", json=push({"devices": ["x-1"]})), 422, "no-target")


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"),
    [
        (push({"all": True}, ttl=5), 400, "unknown-field", "#/options/ttl"),
        (push({"all": True}, {"kind": "a", "paylod": 1}), 400, "unknown-field", "#/message/paylod"),
        (push({"all": True, "devices": ["d-1"]}), 400, "invalid-parameter", "#/audience"),
        (push({}), 400, "invalid-parameter", "#/audience"),
        (push({"all": False}), 400, "invalid-parameter", "#/audience/all"),
        (push({"devices": []}), 400, "invalid-parameter", "#/audience/devices"),
        (push({"devices": ["a b"]}), 400, "invalid-parameter", "#/audience/devices/0"),
        (push({"tags": {"none": ["a"]}}), 400, "invalid-parameter", "#/audience/tags"),
        (push({"all": True}, {"kind": "longwire.x"}), 400, "invalid-parameter", "#/message/kind"),
        (push({"all": True}, {"kind": "x" * 65}), 400, "invalid-parameter", "#/message/kind"),
        (
            push({"all": True}, {"kind": "a", "payload": 1, "payload_b64": ""}),
            400,
            "invalid-parameter",
            "#/message",
        ),
        (push({"all": True}, {"kind": "a", "payload_b64": "?"}), 400, "invalid-parameter", "#/message/payload_b64"),
        (push({"all": True}, rate_per_s=0), 400, "invalid-parameter", "#/options/rate_per_s"),
        (push({"all": True}, send_at="soon"), 400, "invalid-parameter", "#/options/send_at"),
        (push({"all": True}, send_at="2025-13-24T16:00:00Z"), 400, "invalid-parameter", "#/options/send_at"),
        (push({"all": True}, send_at="2026-02-24T16:00:00Z"), 400, "invalid-parameter", None),
        (push({"all": True}, send_at="2025-11-24T15:59:00Z"), 422, "schedule-in-past", None),
        (push({"all": True}, ttl_s=864_001), 422, "ttl-out-of-range", None),
        (push({"all": True}, ttl_s=-1), 422, "ttl-out-of-range", None),
        (push({"devices": [f"d-{n}" for n in range(1_001)]}), 422, "audience-too-complex", None),
        (push({"groups": [f"g-{n}" for n in range(21)]}), 422, "audience-too-complex", None),
        (push({"tags": {"any": [f"t-{n}" for n in range(51)]}}), 422, "audience-too-complex", None),
        (push({"all": True}, {"kind": "a", "payload": "x" * 4_095}), 413, "payload-too-large", None),
        (push({"upload": "upl_" + "0" * 32}), 404, "not-found", None),
        (push({"groups": ["none"]}), 422, "no-target", None),
    ],
)
async def test_a_push_that_cannot_be_is_refused_and_validated_alike(
    operator, fleet, check_problem, body, status, code, pointer
) -> None:
    for path in ("/v1/pushes", "/v1/pushes/validate"):
        problem = check_problem(await operator.post(path, json=body), status, code)
        if pointer is not None:
            assert problem["errors"][0]["pointer"] == pointer
        if code in ("audience-too-complex", "payload-too-large", "ttl-out-of-range"):
            assert problem["limit"] != problem["actual"]
    assert (await operator.get("/v1/pushes")).json()["items"] == []


async def test_a_number_that_json_cannot_write_is_refused(operator, fleet, check_problem) -> None:
    text = json.dumps(push({"all": True}, {"kind": "a", "payload": [0]})).replace("[0]", "[1e999]")
    answer = await operator.post("/v1/pushes", content=text, headers={"Content-Type": "application/json"})
    assert check_problem(answer, 400, "invalid-parameter")["errors"][0]["pointer"] == "#/message/payload"


@pytest.mark.parametrize(
    ("message", "payload"),
    [
        ({"kind": "a", "payload": {"é": [1, None, True]}}, '{"é":[1,null,true]}'.encode()),
        ({"kind": "a", "payload": None}, b"null"),
        ({"kind": "a", "payload_b64": base64.b64encode(b"\0\xff").decode()}, b"\0\xff"),
        ({"kind": "a"}, b""),
    ],
)
async def test_a_payload_travels_as_its_compact_text_or_as_its_bytes(site, operator, fleet, message, payload) -> None:
    made = (await operator.post("/v1/pushes", json=push({"all": True}, message))).json()
    found = await site.push_store.find(bytes.fromhex(made["id"][4:]), site.clock.now_ms())
    assert found.new.message.payload == payload
    assert made["payload_bytes"] == len(payload)


async def test_validating_tells_what_a_push_would_be_and_sends_nothing(operator, fleet) -> None:
    answer = await operator.post("/v1/pushes/validate", json=push({"devices": ["d-0", "d-4", "x"]}))
    assert answer.json() == {
        "valid": True,
        "targeted": 2,
        "online": 1,
        "payload_bytes": 17,
        "warnings": ["1 of the targets mean nothing or are registered no more"],
        "unresolved": {"count": 1, "sample": ["x"]},
    }
    assert (await operator.get("/v1/pushes")).json()["items"] == []


async def test_pushes_are_listed_in_pages_newest_first_and_by_status(operator, fleet) -> None:
    made = [(await operator.post("/v1/pushes", json=push({"all": True}))).json()["id"] for _ in range(5)]
    await operator.post(f"/v1/pushes/{made[2]}/cancel")
    seen, cursor = [], None
    for _ in range(3):
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await operator.get("/v1/pushes", params=query)).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert seen == list(reversed(made))
    canceled = (await operator.get("/v1/pushes", params={"status": "canceled"})).json()["items"]
    assert [item["id"] for item in canceled] == [made[2]]


async def test_a_list_shows_ten_names_of_an_audience_and_the_push_all(operator, site) -> None:
    names = [f"d-{n}" for n in range(30)]
    await site.devices(*names)
    made = (await operator.post("/v1/pushes", json=push({"devices": names}))).json()
    (listed,) = (await operator.get("/v1/pushes")).json()["items"]
    assert listed["audience"] == {"devices": names[:10]}
    assert (await operator.get(f"/v1/pushes/{made['id']}")).json()["audience"] == {"devices": names}


@pytest.mark.parametrize("query", ["status=x", "limit=0", "limit=501", "cursor=x", "cursor=0", "state=acked"])
async def test_a_query_that_is_not_understood_is_refused(operator, check_problem, query) -> None:
    check_problem(await operator.get(f"/v1/pushes?{query}"), 400, "invalid-parameter")


async def test_recipients_are_listed_by_state_in_pages(site, operator, fleet) -> None:
    made = (await operator.post("/v1/pushes", json=push({"all": True}))).json()["id"]
    await site.dispatch()
    await site.acknowledge(made, fleet[1])
    acked = (await operator.get(f"/v1/pushes/{made}/recipients", params={"state": "acked"})).json()
    assert acked == {"items": [{"device_id": "d-1", "state": "acked", "reason": None}], "next_cursor": None}
    seen, cursor = [], None
    for _ in range(2):
        query = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = (await operator.get(f"/v1/pushes/{made}/recipients", params=query)).json()
        seen += [item["device_id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert (seen, cursor) == (["d-0", "d-2", "d-3", "d-4"], None)


async def test_what_became_of_one_device_is_told_in_words(site, operator, fleet, check_problem) -> None:
    await site.devices("stranger")
    made = (await operator.post("/v1/pushes", json=push({"devices": ["d-0", "d-4"]}))).json()["id"]
    await site.dispatch()
    await site.acknowledge(made, fleet[0])
    path = f"/v1/pushes/{made}/recipients"
    acked = (await operator.get(f"{path}/d-0")).json()
    assert (acked["in_audience"], acked["state"], acked["written"], acked["reason"]) == (True, "acked", True, None)
    assert acked["timeline"][0] == {"event": "created", "at": "2025-11-24T16:00:00.000Z"}
    assert acked["verdict"]
    outside = (await operator.get(f"{path}/stranger")).json()
    assert (outside["in_audience"], outside["state"]) == (False, None)
    check_problem(await operator.get(f"{path}/nobody"), 404, "not-found")


async def test_cancelling_ends_who_was_not_written_to_and_repeating_is_no_error(site, operator, fleet) -> None:
    made = (await operator.post("/v1/pushes", json=push({"all": True}))).json()["id"]
    for _ in range(2):
        answer = await operator.post(f"/v1/pushes/{made}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
        assert answer.json()["stats"]["canceled"] == 5
        assert adds_up(answer)


async def test_a_push_that_is_done_is_not_canceled_and_can_be_withdrawn(site, operator, fleet, check_problem) -> None:
    made = (await operator.post("/v1/pushes", json=push({"devices": ["d-0"]}))).json()["id"]
    await site.dispatch()
    await site.acknowledge(made, fleet[0])
    check_problem(await operator.post(f"/v1/pushes/{made}/cancel"), 409, "state-conflict")
    for _ in range(2):
        answer = await operator.post(f"/v1/pushes/{made}/withdraw")
        assert (answer.status_code, answer.json()["status"]) == (200, "withdrawn")
        assert answer.json()["stats"]["acked"] == 1
    # The notice is a push of the system's own: it is in no list.
    assert len((await operator.get("/v1/pushes")).json()["items"]) == 1


async def test_a_push_is_paused_paced_and_resumed(operator, fleet, check_problem) -> None:
    made = (await operator.post("/v1/pushes", json=push({"all": True}, rate_per_s=5))).json()["id"]
    path = f"/v1/pushes/{made}"
    for call, status in (("pause", "paused"), ("pause", "paused"), ("resume", None), ("resume", None)):
        answer = await operator.post(f"{path}/{call}")
        assert answer.status_code == 200
        assert answer.json()["status"] == (status or "accepted")
    assert (await operator.patch(path, json={"rate_per_s": 100})).json()["rate_per_s"] == 100
    assert (await operator.patch(path, json={"rate_per_s": None})).json()["rate_per_s"] is None
    check_problem(await operator.patch(path, json={"rate_per_s": 0}), 400, "invalid-parameter")
    check_problem(await operator.patch(path, json={}), 400, "invalid-parameter")
    check_problem(await operator.patch(path, json={"rate": 1}), 400, "unknown-field")
    await operator.post(f"{path}/cancel")
    for call in ("pause", "resume"):
        check_problem(await operator.post(f"{path}/{call}"), 409, "state-conflict")
    check_problem(await operator.patch(path, json={"rate_per_s": 1}), 409, "state-conflict")


async def test_a_scheduled_push_waits_for_its_time(operator, fleet) -> None:
    answer = await operator.post("/v1/pushes", json=push({"all": True}, send_at="2025-11-25T17:00:00+01:00", ttl_s=60))
    body = answer.json()
    assert (body["status"], body["send_at"]) == ("scheduled", "2025-11-25T16:00:00.000Z")
    assert body["expires_at"] == "2025-11-25T16:01:00.000Z"


async def test_what_expired_is_sent_again_as_a_new_push(site, operator, fleet, check_problem) -> None:
    made = (await operator.post("/v1/pushes", json=push({"all": True}, ttl_s=5))).json()["id"]
    path = f"/v1/pushes/{made}/retry"
    check_problem(await operator.post(path), 409, "state-conflict")
    await site.dispatch()
    await site.acknowledge(made, fleet[0])
    site.clock.advance(6)
    assert await site.push_store.close(site.clock.now_ms(), 10) == 1
    check_problem(await operator.post(path, json={"states": ["failed"]}), 422, "no-target")
    check_problem(await operator.post(path, json={"states": ["acked"]}), 400, "invalid-parameter")
    answer = await operator.post(path, json={"states": ["expired"]})
    assert answer.status_code == 202
    assert answer.json()["stats"]["targeted"] == 4
    assert answer.json()["retry_of"] == made
    assert answer.json()["audience"] == {"retry_of": made, "states": ["expired"]}
    assert answer.json()["id"] != made


@pytest.mark.parametrize("path", ["", "/events", "/recipients", "/recipients/d-0"])
async def test_an_unknown_push_is_not_found(operator, check_problem, path) -> None:
    check_problem(await operator.get(f"/v1/pushes/psh_{'0' * 32}{path}"), 404, "not-found")
    check_problem(await operator.get(f"/v1/pushes/x{path}"), 400, "invalid-parameter")


async def test_a_waiting_push_is_in_the_inbox_of_those_it_is_for(site, operator, fleet) -> None:
    made = (await operator.post("/v1/pushes", json=push({"devices": ["d-4"]}))).json()
    await site.dispatch()
    assert await site.push_waiting.waiting([PushQuery(fleet[4], 0, 10)], site.clock.now_ms()) != [[]]
    (item,) = (await operator.get("/v1/devices/d-4/inbox")).json()["items"]
    assert (item["source"], item["push_id"], item["kind"]) == ("push", made["id"], "news")
    assert (await operator.get("/v1/devices/d-3/inbox")).json()["items"] == []


async def test_the_callers_trace_goes_with_the_push_and_with_its_retry(site, operator, fleet) -> None:
    async def trace_of(made) -> str:
        kept = await site.push_store.find(bytes.fromhex(made.json()["id"][4:]), site.clock.now_ms())
        return kept.new.message.trace[:16].hex()

    trace, other = "4bf92f3577b34da6a3ce929d0e0e4736", "a" * 32
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    made = await operator.post("/v1/pushes", json=push({"all": True}, ttl_s=1), headers=headers)
    assert await trace_of(made) == trace
    malformed = await operator.post("/v1/pushes", json=push({"all": True}), headers={"traceparent": "00-1-2-01"})
    assert await trace_of(malformed) == malformed.headers["x-request-id"].removeprefix("req_")
    site.clock.advance(2)
    await site.push_store.close(site.clock.now_ms(), 10)
    path = f"/v1/pushes/{made.json()['id']}/retry"
    assert await trace_of(await operator.post(path)) == trace
    headers = {"traceparent": f"00-{other}-00f067aa0ba902b7-01"}
    assert await trace_of(await operator.post(path, headers=headers)) == other


async def test_failed_devices_are_listed_with_the_reason(site, operator, fleet) -> None:
    made = (await operator.post("/v1/pushes", json=push({"all": True}, ttl_s=60))).json()["id"]
    await site.dispatch()
    now = site.clock.now_ms()
    await site.database.write(lambda connection: forget_device(connection, fleet[4], now))
    assert (await operator.delete("/v1/devices/d-4")).status_code == 204
    page = (await operator.get(f"/v1/pushes/{made}/recipients", params={"state": "failed"})).json()
    assert page["items"] == [{"device_id": None, "state": "failed", "reason": "device-deleted"}]
    page = (await operator.get(f"/v1/pushes/{made}/recipients", params={"state": "pending"})).json()
    assert [item["reason"] for item in page["items"]] == [None] * 4
