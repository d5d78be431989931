"""``/v1/dead-letters``: what handlers would not take, seen and given to them again."""

import asyncio
import base64

from longwire.model import UplinkRecord


async def bury(site, number: int, payload: bytes = b"{}") -> None:
    record = UplinkRecord(7, "d-7", number.to_bytes(16, "big"), "order", payload, site.clock.now_ms(), b"\1" * 24)
    done = asyncio.get_running_loop().create_future()
    site.uplink.append(record, lambda _record, status: done.set_result(status))
    await done
    await site.uplink.bury("application", record, "handler_failed in attempt 10: boom")


async def test_letters_come_in_pages_newest_first_without_their_payloads(site, operator) -> None:
    for number in (1, 2, 3):
        await bury(site, number)
    first = (await operator.get("/v1/dead-letters", params={"limit": 2})).json()
    second = (await operator.get("/v1/dead-letters", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [item["letter_id"] for item in first["items"] + second["items"]] == ["ltr_3", "ltr_2", "ltr_1"]
    assert second["next_cursor"] is None
    assert second["items"][0] == {
        "letter_id": "ltr_1",
        "device_id": "d-7",
        "message_id": "msg_00000000000000000000000000000001",
        "kind": "order",
        "payload_bytes": 2,
        "sent_at": "2025-11-24T16:00:00.000Z",
        "error": "handler_failed in attempt 10: boom",
        "buried_at": "2025-11-24T16:00:00.000Z",
        "replayed_at": None,
        "trace_id": "01" * 16,
    }


async def test_one_letter_is_shown_with_its_payload(site, operator) -> None:
    await bury(site, 1, b"\xff\x00")
    answer = (await operator.get("/v1/dead-letters/ltr_1")).json()
    assert base64.b64decode(answer["payload_b64"]) == b"\xff\x00"


async def test_a_letter_is_replayed_and_repeating_the_call_changes_nothing(site, operator) -> None:
    await bury(site, 1)
    first = await operator.post("/v1/dead-letters/ltr_1/replay")
    assert first.json()["replayed_at"] == "2025-11-24T16:00:00.000Z"
    site.clock.advance(60)
    assert (await operator.post("/v1/dead-letters/ltr_1/replay")).json() == first.json()


async def test_a_letter_that_is_not_there_is_not_found(operator, check_problem) -> None:
    check_problem(await operator.get("/v1/dead-letters/ltr_1"), 404, "not-found")
    check_problem(await operator.post("/v1/dead-letters/ltr_1/replay"), 404, "not-found")
    check_problem(await operator.get("/v1/dead-letters/1"), 400, "invalid-parameter")
