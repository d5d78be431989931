"""``/v1/trace`` and what belongs to it: one question a call, no payloads, and no more than the caller may see."""

import pytest

from longwire.accounts.api_keys import Scope
from longwire.operations_model import LastSession, SessionView


@pytest.fixture
async def sent(site, operator) -> str:
    """A message to hall-7, which has not connected yet."""
    await site.devices("hall-7")
    body = {"to": {"device": "hall-7"}, "kind": "news", "payload": {"secret": "sesame"}}
    answer = await operator.post("/v1/messages", json=body, headers={"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-00"})
    assert answer.status_code == 202, answer.text
    return answer.json()["message_id"]


async def test_a_message_is_found_by_every_name_that_it_has(operator, sent) -> None:
    digits = sent.removeprefix("msg_")
    uuid = f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
    questions = [
        {"q": sent},
        {"q": digits},
        {"q": uuid},
        {"message_id": sent},
        {"message_id": uuid},
        {"trace_id": "ab" * 16},
        {"q": "ab" * 16},
        {"q": sent, "device_id": "hall-7"},
    ]
    for question in questions:
        answer = await operator.get("/v1/trace", params=question)
        assert answer.status_code == 200, question
        assert (answer.json()["kind"], answer.json()["id"]) == ("message", sent), question
        assert "sesame" not in answer.text


async def test_the_answer_has_a_verdict_facts_and_a_time_line(operator, sent) -> None:
    found = (await operator.get("/v1/trace", params={"q": sent})).json()
    assert found["verdict"]["code"] == "waiting-never-connected"
    assert found["trace_id"] == "ab" * 16
    assert found["facts"]["sent_at"] == found["timeline"][0]["at"]
    assert [step["step"] for step in found["timeline"]][:3] == ["accepted", "resolved", "queued"]
    assert found["timeline"][-1]["state"] == "ahead"
    assert found["receivers"][0]["device_id"] == "hall-7"
    assert (found["receivers_more"], found["kept_until"] > found["facts"]["expires_at"]) == (0, True)


async def test_none_and_several_questions_at_once_are_refused(operator, sent, check_problem) -> None:
    for question in ({}, {"q": sent, "user": "anna"}, {"device_id": "hall-7", "trace_id": "ab" * 16}, {"q": "a b"}):
        check_problem(await operator.get("/v1/trace", params=question), 400, "invalid-parameter")


async def test_what_nobody_knows_is_an_answer_and_no_error(operator) -> None:
    for question in ("nobody", "msg_" + "0" * 32, "psh_" + "1" * 32, "cmd_" + "2" * 32, "req_" + "3" * 32, "ö"):
        answer = await operator.get("/v1/trace", params={"q": question})
        if question == "ö":
            assert answer.status_code == 400
        else:
            assert answer.json()["verdict"]["code"] in ("unknown", "too-old"), question


async def test_a_push_is_shown_to_those_who_may_see_pushes(site, operator, check_problem) -> None:
    await site.devices("hall-7")
    body = {"audience": {"devices": ["hall-7"]}, "message": {"kind": "sale", "payload": "x"}}
    made = await operator.post("/v1/pushes", json=body, headers={"traceparent": f"00-{'12' * 16}-{'cd' * 8}-00"})
    push_id = made.json()["id"]
    found = (await operator.get("/v1/trace", params={"push_id": push_id, "device_id": "hall-7"})).json()
    assert (found["verdict"]["code"], found["receivers"][0]["state"]) == ("waiting-never-connected", "pending")
    viewer = await site.operator(Scope.DEVICE_READ)
    check_problem(await viewer.get("/v1/trace", params={"push_id": push_id}), 403, "scope-missing")
    check_problem(await viewer.get("/v1/trace", params={"trace_id": "12" * 16}), 403, "scope-missing")
    assert (await viewer.get("/v1/trace", params={"q": "hall-7"})).status_code == 200
    reader = await site.operator(Scope.PUSH_READ)
    check_problem(await reader.get("/v1/trace", params={"push_id": push_id}), 403, "scope-missing")


async def test_a_call_is_found_by_the_request_id_of_its_answer(site, operator) -> None:
    made = await operator.post("/v1/groups", json={"group_id": "crew"})
    await site.database.write(lambda _: None)
    found = (await operator.get("/v1/trace", params={"q": made.headers["x-request-id"]})).json()
    assert (found["kind"], found["verdict"]["code"]) == ("request", "call-only")
    assert "POST /v1/groups" in found["verdict"]["text"]
    viewer = await site.operator(Scope.DEVICE_READ, Scope.PUSH_READ)
    hidden = (await viewer.get("/v1/trace", params={"q": made.headers["x-request-id"]})).json()
    assert hidden["verdict"]["code"] == "unknown"


async def test_connections_are_listed_newest_first_by_the_page(site, operator, check_problem) -> None:
    (number,) = await site.devices("hall-7")
    for epoch in (1, 2, 3):
        site.presence.ended(
            LastSession(number, epoch * 2 + 1, epoch * 1_000 + 9, "n1~0a", "websocket", 4005, epoch * 1_000)
        )
    await site.database.write(lambda _: None)
    site.link.sessions_of[number] = SessionView(number, f"{number:x}-4", "n1~0a", 8, 5_000, 5_000, "native")
    page = (await operator.get("/v1/devices/hall-7/sessions", params={"limit": 2})).json()
    assert [item["session_id"] for item in page["items"]] == [f"{number:x}-{epoch}" for epoch in (4, 3, 2)]
    assert [item["close"] for item in page["items"][:2]] == [None, {"code": 4005, "reason": "heartbeat_timeout"}]
    rest = await operator.get("/v1/devices/hall-7/sessions", params={"limit": 2, "cursor": page["next_cursor"]})
    assert [item["began_at"] for item in rest.json()["items"]] == ["1970-01-01T00:00:01.000Z"]
    assert rest.json()["next_cursor"] is None
    check_problem(await operator.get("/v1/devices/nobody/sessions"), 404, "not-found")


async def test_messages_of_a_device_are_listed_with_what_became_of_them(site, operator, sent, check_problem) -> None:
    await operator.delete("/v1/devices/hall-7/inbox")
    body = {"to": {"device": "hall-7"}, "kind": "later", "payload": 1}
    later = (await operator.post("/v1/messages", json=body)).json()["message_id"]
    items = (await operator.get("/v1/devices/hall-7/messages")).json()["items"]
    assert [(item["message_id"], item["state"]) for item in items] == [(later, "waiting"), (sent, "withdrawn")]
    check_problem(await operator.get("/v1/devices/nobody/messages"), 404, "not-found")
