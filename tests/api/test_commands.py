"""``/v1/devices/{id}/commands`` and ``/v1/commands``: what goes in and out; how a device is asked is the node's."""

import asyncio

import pytest

from longwire.accounts.api_keys import Scope
from longwire.operations_model import SessionView
from longwire.ports.link import Called
from longwire.reasons import Status

PATH = "/v1/devices/d-1/commands"


@pytest.fixture
async def online(site, operator):
    """A client, and a device d-1 that has a session."""
    await operator.post("/v1/devices/batch", json={"items": [{"device_id": "d-1"}]})
    site.link.sessions_of[1] = SessionView(1, "1-1", "n1", 2, 0, 0, "native")
    site.link.reply = Called(Status.OK, b"{}")
    return operator


async def test_a_synchronous_command_answers_with_the_reply(site, online) -> None:
    site.link.reply = Called(Status.OK, b'{"on": false}')
    body = {"method": "lights.off", "payload": {"room": 1}, "timeout_ms": 500}
    answer = await online.post(PATH, json=body)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert site.link.called == [(1, "lights.off", b'{"room":1}', 500)]
    assert (told["status"], told["payload"], told["is_late"]) == ("replied", {"on": False}, False)
    assert (told["payload_b64"], told["reply_status"], told["device_id"]) == (None, 0, "d-1")
    assert (await online.get(f"/v1/commands/{told['command_id']}")).json() == told


@pytest.mark.parametrize(
    ("reply", "payload", "payload_b64"),
    [(b"", None, None), (b"7", 7, None), (b"\xff", None, "/w=="), (b"1e999", None, "MWU5OTk="), (b"null", None, None)],
)
async def test_a_reply_is_json_or_base64(site, online, reply, payload, payload_b64) -> None:
    site.link.reply = Called(Status.OK, reply)
    told = (await online.post(PATH, json={"method": "x", "payload_b64": "AAE="})).json()
    assert (told["payload"], told["payload_b64"]) == (payload, payload_b64)
    assert site.link.called == [(1, "x", b"\x00\x01", 10_000)]


async def test_an_asynchronous_command_is_accepted_and_found_where_location_says(site, online) -> None:
    site.link.reply = Called(Status.UNSUPPORTED, b"", "no such method")
    answer = await online.post(PATH, json={"method": "x", "mode": "async"})
    assert answer.status_code == 202
    assert answer.json()["status"] == "sent"
    where = answer.headers["location"]
    assert where == f"/v1/commands/{answer.json()['command_id']}"
    async with asyncio.timeout(20):
        while (found := (await online.get(where)).json())["status"] == "sent":
            await asyncio.sleep(0.001)
    assert (found["status"], found["reply_status"], found["detail"]) == ("failed", 15, "no such method")


async def test_offline_unknown_and_silent_devices_are_told_apart(site, online, check_problem) -> None:
    site.link.reply = Called(Status.TIMEOUT, detail="the device did not reply")
    problem = check_problem(await online.post(PATH, json={"method": "x"}), 504, "command-timeout")
    found = (await online.get(f"/v1/commands/{problem['command_id']}")).json()
    assert (found["status"], found["replied_at"]) == ("timed-out", None)
    check_problem(await online.post("/v1/devices/d-9/commands", json={"method": "x"}), 404, "not-found")
    site.link.sessions_of.clear()
    check_problem(await online.post(PATH, json={"method": "x"}), 409, "device-offline")
    check_problem(await online.get("/v1/commands/cmd_" + "0" * 32), 404, "not-found")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"method": ""},
        {"method": "x" * 65},
        {"method": "x", "timeout_ms": 99},
        {"method": "x", "timeout_ms": 60_001},
        {"method": "x", "mode": "later"},
        {"method": "x", "payload": 1, "payload_b64": "AA=="},
        {"method": "x", "payload_b64": "no"},
    ],
)
async def test_what_is_no_command_is_refused(site, online, check_problem, body) -> None:
    check_problem(await online.post(PATH, json=body), 400, "invalid-parameter")
    assert site.link.called == []


async def test_a_number_that_json_cannot_write_is_refused(site, online, check_problem) -> None:
    body, kind = '{"method":"x","payload":1e999}', {"Content-Type": "application/json"}
    check_problem(await online.post(PATH, content=body, headers=kind), 400, "invalid-parameter")


async def test_a_payload_that_is_too_large_is_told_with_the_limit(site, online, check_problem) -> None:
    body = {"method": "x", "payload": "x" * 61_440}
    problem = check_problem(await online.post(PATH, json=body), 413, "payload-too-large")
    assert (problem["limit"], problem["actual"]) == (61_440, 61_442)


async def test_a_repeat_under_the_same_key_asks_the_device_once(site, online) -> None:
    keyed = {"Idempotency-Key": "one"}
    first = await online.post(PATH, json={"method": "x"}, headers=keyed)
    again = await online.post(PATH, json={"method": "x"}, headers=keyed)
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json() == again.json()
    assert len(site.link.called) == 1


async def test_a_timeout_is_told_again_under_the_same_key_and_the_device_is_not_asked_twice(
    site, online, check_problem
) -> None:
    keyed = {"Idempotency-Key": "one"}
    site.link.reply = Called(Status.TIMEOUT)
    first = check_problem(await online.post(PATH, json={"method": "x"}, headers=keyed), 504, "command-timeout")
    again = check_problem(await online.post(PATH, json={"method": "x"}, headers=keyed), 504, "command-timeout")
    assert first["command_id"] == again["command_id"]
    assert len(site.link.called) == 1


async def test_commands_need_their_scopes(site, online, check_problem) -> None:
    reader = await site.operator(Scope.DEVICE_READ)
    check_problem(await reader.post(PATH, json={"method": "x"}), 403, "scope-missing")
    writer = await site.operator(Scope.DEVICE_WRITE)
    check_problem(await writer.get("/v1/commands/cmd_" + "0" * 32), 403, "scope-missing")


async def test_the_callers_trace_goes_with_the_request(site, online) -> None:
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    ids = []
    for headers in ({"traceparent": traceparent}, {"traceparent": traceparent[:-1]}, {}):
        answer = await online.post(PATH, json={"method": "x"}, headers=headers)
        assert answer.status_code == 200
        ids.append(answer.headers["x-request-id"].removeprefix("req_"))
    traces = [trace[:16].hex() for trace in site.link.traces]
    assert traces == ["4bf92f3577b34da6a3ce929d0e0e4736", *ids[1:]]
    assert [trace[23] & 1 for trace in site.link.traces] == [1, 0, 0]
