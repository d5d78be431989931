"""Messages to one device or user, batches of them, and inboxes."""

import base64

import pytest

from longwire.model import InboxQuery


@pytest.fixture
async def fleet(site):
    """Ann's d-0 and d-1, of which the first has a session, and nobody's d-2."""
    numbers = await site.devices("d-0", "d-1", user="ann") + await site.devices("d-2")
    await site.connect(numbers[0])
    return numbers


async def inbox(site, device_no):
    return (await site.messages.waiting([InboxQuery(device_no, 0, 100)], site.clock.now_ms()))[0]


@pytest.mark.parametrize("to", ["device:d-0", {"device": "d-0"}])
async def test_a_message_is_durable_and_on_its_way_when_the_call_answers(site, operator, fleet, to) -> None:
    answer = await operator.post("/v1/messages", json={"to": to, "kind": "chat", "payload": {"a": 1}})
    assert answer.status_code == 202
    body = answer.json()
    assert (body["delivered_to"], body["queued_for"]) == (["d-0"], [])
    assert "acked" not in body
    (waiting,) = await inbox(site, fleet[0])
    assert (waiting.kind, waiting.payload) == ("chat", b'{"a":1}')
    assert body["message_id"] == f"msg_{waiting.message_id.hex()}"


async def test_a_user_gets_it_on_every_device_now_or_later(site, operator, fleet) -> None:
    answer = await operator.post("/v1/messages", json={"to": {"user": "ann"}, "kind": "chat"})
    assert (answer.json()["delivered_to"], answer.json()["queued_for"]) == (["d-0"], ["d-1"])


@pytest.mark.parametrize("is_acking", [True, False])
async def test_a_caller_may_wait_for_the_acknowledgement(site, operator, fleet, is_acking) -> None:
    site.link.is_acking = is_acking
    answer = await operator.post("/v1/messages", json={"to": "device:d-0", "kind": "chat", "wait_ack_ms": 1_000})
    assert answer.json()["acked"] is is_acking


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"),
    [
        ({"to": "device:none", "kind": "a"}, 404, "not-found", None),
        ({"to": "user:none", "kind": "a"}, 404, "not-found", None),
        ({"to": "device:d-2", "kind": "a", "ttl_s": 0}, 409, "device-offline", None),
        ({"to": "device:d-2", "kind": "a", "payload": "x" * 61_440}, 413, "payload-too-large", None),
        ({"to": "device:d-2", "kind": "a", "ttl_s": 864_001}, 422, "ttl-out-of-range", "#/ttl_s"),
        ({"to": "device:d-2", "kind": "a", "ttl_s": -1}, 422, "ttl-out-of-range", "#/ttl_s"),
        ({"to": "group:g", "kind": "a"}, 400, "invalid-parameter", None),
        ({"to": "d-2", "kind": "a"}, 400, "invalid-parameter", None),
        ({"to": {}, "kind": "a"}, 400, "invalid-parameter", None),
        ({"to": {"device": "d-0", "user": "ann"}, "kind": "a"}, 400, "invalid-parameter", None),
        ({"to": "device:d-2"}, 400, "invalid-parameter", "#/kind"),
        ({"to": "device:d-2", "kind": "longwire.x"}, 400, "invalid-parameter", "#/kind"),
        ({"to": "device:d-2", "kind": "a", "tll_s": 1}, 400, "unknown-field", "#/tll_s"),
        ({"to": "device:d-2", "kind": "a", "wait_ack_ms": 30_001}, 400, "invalid-parameter", "#/wait_ack_ms"),
        ([], 400, "invalid-parameter", "#"),
    ],
)
async def test_a_message_that_cannot_be_is_refused(
    site, operator, fleet, check_problem, body, status, code, pointer
) -> None:
    problem = check_problem(await operator.post("/v1/messages", json=body), status, code)
    if pointer is not None:
        assert problem["errors"][0]["pointer"] == pointer
    assert await inbox(site, fleet[2]) == []


async def test_a_call_without_a_body_is_refused(operator, check_problem) -> None:
    check_problem(await operator.post("/v1/messages"), 400, "invalid-parameter")
    answer = await operator.post("/v1/messages", content=b"{}", headers={"Content-Type": "text/plain"})
    check_problem(answer, 400, "malformed-json")
    check_problem(await operator.post("/v1/messages?x=1", json={}), 400, "invalid-parameter")


async def test_each_message_of_a_batch_has_its_own_outcome(site, operator, fleet) -> None:
    items = [
        {"to": "device:d-0", "kind": "a", "payload": 1},
        {"to": "device:none", "kind": "a"},
        {"to": "user:ann", "kind": "b", "payload_b64": base64.b64encode(b"\0").decode()},
        {"to": "device:d-2", "kind": "a", "ttl_s": 0},
    ]
    answer = await operator.post("/v1/messages/batch", json={"items": items})
    assert answer.status_code == 200
    first, second, third, fourth = answer.json()["items"]
    assert (first["delivered_to"], first["queued_for"]) == (["d-0"], [])
    assert second["problem"]["code"] == "not-found"
    assert (third["delivered_to"], third["queued_for"]) == (["d-0"], ["d-1"])
    assert fourth["problem"]["code"] == "device-offline"
    assert [waiting.payload for waiting in await inbox(site, fleet[0])] == [b"1", b"\0"]


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({"items": []}, 400, "#/items"),
        ({"items": [{"to": "device:d-0", "kind": "a"}] * 501}, 400, "#/items"),
        ({"items": [{"to": "device:d-0", "kind": "a"}, {"to": "device:d-0"}]}, 400, "#/items/1/kind"),
        ({"items": [{"to": "device:d-0", "kind": "a", "wait_ack_ms": 1}]}, 400, "#/items/0/wait_ack_ms"),
        ({"items": [{"to": "device:d-0", "kind": "a", "ttl_s": -1}]}, 422, "#/items/0/ttl_s"),
    ],
)
async def test_a_batch_of_the_wrong_shape_is_refused_whole(site, operator, fleet, body, status, pointer) -> None:
    answer = await operator.post("/v1/messages/batch", json=body)
    assert answer.status_code == status
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert await inbox(site, fleet[0]) == []


async def test_a_repeat_under_the_same_key_is_one_message_though_the_answer_was_lost(site, operator, fleet) -> None:
    body = {"items": [{"to": "device:d-0", "kind": "a"}, {"to": "device:d-0", "kind": "a"}]}
    answers = []
    for _ in range(2):
        answers.append(await operator.post("/v1/messages/batch", json=body, headers={"Idempotency-Key": "k"}))
        # As after a crash between the commit of the messages and that of the answer.
        await site.database.write(lambda c: c.exec_driver_sql("DELETE FROM idempotency").close())
    first, second = ([item["message_id"] for item in answer.json()["items"]] for answer in answers)
    assert first == second
    assert len(set(first)) == 2
    assert len(await inbox(site, fleet[0])) == 2


async def test_an_inbox_is_shown_in_pages_and_emptied(site, operator, fleet) -> None:
    for n in range(5):
        await operator.post("/v1/messages", json={"to": "device:d-2", "kind": f"k-{n}", "collapse_key": f"c-{n}"})
    push = {"audience": {"devices": ["d-2"]}, "message": {"kind": "p"}}
    for _ in range(2):
        assert (await operator.post("/v1/pushes", json=push)).status_code == 202
    seen, cursor = [], None
    for _ in range(4):
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await operator.get("/v1/devices/d-2/inbox", params=query)).json()
        seen += [(item["source"], item["kind"]) for item in page["items"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert seen == [("message", f"k-{n}") for n in range(5)] + [("push", "p")] * 2
    assert (await operator.delete("/v1/devices/d-2/inbox")).json() == {"withdrawn": 5}
    left = (await operator.get("/v1/devices/d-2/inbox")).json()["items"]
    assert [item["source"] for item in left] == ["push", "push"]


async def test_a_page_that_ends_with_the_messages_goes_on_with_the_pushes(operator, fleet) -> None:
    for _ in range(2):
        await operator.post("/v1/messages", json={"to": "device:d-2", "kind": "m"})
    await operator.post("/v1/pushes", json={"audience": {"devices": ["d-2"]}, "message": {"kind": "p"}})
    page = (await operator.get("/v1/devices/d-2/inbox", params={"limit": 2})).json()
    assert (len(page["items"]), page["next_cursor"]) == (2, "p0")
    page = (await operator.get("/v1/devices/d-2/inbox", params={"limit": 2, "cursor": "p0"})).json()
    assert ([item["kind"] for item in page["items"]], page["next_cursor"]) == (["p"], None)


async def test_an_unknown_device_has_no_inbox(operator, check_problem) -> None:
    check_problem(await operator.get("/v1/devices/none/inbox"), 404, "not-found")
    check_problem(await operator.delete("/v1/devices/none/inbox"), 404, "not-found")
    check_problem(await operator.get("/v1/devices/none/inbox?cursor=7"), 400, "invalid-parameter")


TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("headers", "is_taken", "is_sampled"),
    [
        ([("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01")], True, True),
        ([("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-00")], True, False),
        ([("Traceparent", f"cc-{TRACE_ID}-{SPAN_ID}-00-later")], True, False),
        ([("traceparent", f"00-00000000000000000000000000000000-{SPAN_ID}-01")], False, False),
        ([("traceparent", f"ff-{TRACE_ID}-{SPAN_ID}-01")], False, False),
        ([("traceparent", f"00-{TRACE_ID.upper()}-{SPAN_ID}-01")], False, False),
        ([("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01")] * 2, False, False),
        ([("traceparent", "x" * 5_000)], False, False),
        ([], False, False),
    ],
)
async def test_the_callers_trace_goes_with_messages_and_without_a_sound_one_that_of_the_request(
    site, operator, fleet, headers, is_taken, is_sampled
) -> None:
    one = {"to": "device:d-2", "kind": "chat"}
    first = await operator.post("/v1/messages", json=one, headers=headers)
    assert first.status_code == 202
    batch = await operator.post("/v1/messages/batch", json={"items": [one, one]}, headers=headers)
    assert batch.status_code == 200
    ids = [answer.headers["x-request-id"].removeprefix("req_") for answer in (first, batch, batch)]
    traces = [waiting.trace for waiting in await inbox(site, fleet[2])]
    assert [trace[:16].hex() for trace in traces] == ([TRACE_ID] * 3 if is_taken else ids)
    assert [trace[23] & 1 for trace in traces] == [is_sampled] * 3
    assert all(trace[16:].hex() != SPAN_ID for trace in traces)
