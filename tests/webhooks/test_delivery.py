"""From the outbox and the uplink log to a receiver: in order, again until it is taken, and what becomes of the rest."""

import asyncio
import json
import logging

import pytest
from webhook_world import HANG, HANG_GUARD_S, OK, REFUSAL, Receiver, World

from longwire.errors import StoreUnavailable
from longwire.ids import new_message_id, prefixed
from longwire.operations_model import Event
from longwire.webhooks.signing import sign

DAY_S = 86_400


async def test_events_arrive_signed_and_in_order(world: World, receiver: Receiver) -> None:
    made = (await world.endpoints.add(receiver.url(), ["push.*"])).webhook
    await world.note(1, 2)
    await world.note(3, kind="push.completed")
    await world.note(4)
    await world.until(lambda: len(receiver.told) == 4, step_s=0.1)
    assert [event["n"] for event in receiver.told] == [1, 2, 3, 4]
    first = receiver.told[0]
    assert first == {"id": "evt_1", "kind": "push.acked", "at": "2025-11-24T16:00:00.000Z", "n": 1}
    got = receiver.got[0]
    at_s = int(got.headers["longwire-signature"].split(",")[0].removeprefix("t="))
    assert got.headers["longwire-signature"] == sign(made.secret, at_s, got.body)
    assert got.headers["longwire-delivery"] == json.loads(got.body)["delivery_id"]


async def test_posts_are_counted_and_told_to_who_follows_them_with_the_messages_in_them(
    world: World, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "longwire.webhooks")
    message_id = prefixed("msg", new_message_id())
    receiver.answers.append(REFUSAL)
    await world.endpoints.add(receiver.url(), ["message.acked"])
    acked = Event("message.acked", world.clock.now_ms(), 0, b'{"message_id":"%s"}' % message_id.encode())
    await world.database.write(lambda connection: world.events.note(connection, [acked]))
    await world.until(lambda: world.endpoints.posts.times.total, step_s=0.1)
    assert world.endpoints.posts.failures == 1
    lines = [text for one in caplog.records if "delivery dlv_" in (text := one.getMessage())]
    assert ["was not taken" in line for line in lines] == [True, False]
    assert all(message_id in line for line in lines)


async def test_what_a_webhook_does_not_ask_for_is_neither_kept_nor_told(world: World, receiver: Receiver) -> None:
    assert not world.events.wants("push.acked")
    await world.endpoints.add(receiver.url(), ["push.completed", "message.*"])
    assert [kind for kind in ("push.acked", "push.completed", "message.missed") if world.events.wants(kind)] == [
        "push.completed",
        "message.missed",
    ]
    await world.note(1)
    await world.note(2, kind="push.completed")
    await world.until(lambda: receiver.told)
    assert [event["n"] for event in receiver.told] == [2]
    assert await world.count("events") == 1


async def test_a_webhook_begins_with_what_happens_from_then_on(world: World, receiver: Receiver) -> None:
    await world.endpoints.add(receiver.url(), ["push.*"])
    await world.note(1)
    await world.until(lambda: receiver.told)
    other = await Receiver().start()
    await world.endpoints.add(other.url(), ["push.*"])
    await world.note(2)
    await world.until(lambda: other.told and len(receiver.told) == 2, step_s=0.1)
    assert [event["n"] for event in other.told] == [2]
    await other.stop()


async def test_the_device_is_named_also_when_it_is_deleted_before_the_event_is_told(
    world: World, receiver: Receiver
) -> None:
    await world.endpoints.add(receiver.url(), ["message.acked"])

    def write(connection) -> None:
        connection.exec_driver_sql("INSERT INTO devices (device_no, device_id, registered_at_ms) VALUES (5, 'd-5', 0)")
        world.events.note(connection, [Event("message.acked", 0, 5, b'{"message_id":"msg_1"}')])
        world.events.note(connection, [Event("message.acked", 0, 6, b"{}")])
        connection.exec_driver_sql("DELETE FROM devices")

    await world.database.write(write)
    await world.until(lambda: len(receiver.told) == 2, step_s=0.1)
    assert [event.get("device_id") for event in receiver.told] == ["d-5", None]
    assert receiver.told[0]["message_id"] == "msg_1"


async def test_a_transaction_that_fails_tells_nothing(world: World, receiver: Receiver) -> None:
    await world.endpoints.add(receiver.url(), ["push.*"])

    def write(connection) -> None:
        world.events.note(connection, [Event("push.acked", 0, 0, b'{"n":1}')])
        raise ValueError

    with pytest.raises(ValueError):
        await world.database.write(write)
    await world.note(2)
    await world.until(lambda: receiver.told)
    assert [event["n"] for event in receiver.told] == [2]


async def test_many_events_go_in_few_posts_of_bounded_size(world: World, receiver: Receiver) -> None:
    await world.endpoints.add(receiver.url(), ["push.*"])
    await world.note(*range(1_200))
    await world.until(lambda: len(receiver.told) == 1_200, step_s=0.1)
    assert [event["n"] for event in receiver.told] == list(range(1_200))
    assert max(len(got.events) for got in receiver.got) == 500
    assert len(receiver.got) <= 4
    large = [Event("push.acked", 0, 0, b'{"n":"%b"}' % (b"x" * 60_000)) for _ in range(10)]
    await world.database.write(lambda connection: world.events.note(connection, large))
    await world.until(lambda: len(receiver.told) == 1_210, step_s=0.1)
    assert max(len(got.body) for got in receiver.got) < 262_144 + 200


async def test_a_batch_is_tried_again_with_the_same_bytes_after_longer_and_longer_waits(
    world: World, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.always = REFUSAL
    number = (await world.endpoints.add(receiver.url(), ["push.*"])).webhook.webhook_no
    await world.note(1, 2)
    waits = []
    for tries in range(1, 12):
        await world.until(lambda tries=tries: len(receiver.got) == tries and world.clock.sleepers)
        state = await world.endpoints.find(number)
        waits.append((state.next_try_ms - world.clock.now_ms()) / 1000)
        await world.note(2 + tries)  # must not overtake
        world.clock.advance(waits[-1])
    assert all(0.75 * 2**n <= wait <= 1.25 * 2**n for n, wait in enumerate(waits[:8]))
    assert max(waits) == 300
    assert len({got.body for got in receiver.got}) == 1
    receiver.always = OK
    await world.until(lambda: any(event["n"] == 13 for event in receiver.told), step_s=300)
    taken = [event["n"] for got in receiver.got[11:] for event in got.events]
    assert taken == list(range(1, 14))
    state = await world.idle(number)
    assert (state.waiting, state.next_try_ms, state.last_error, state.webhook.failing_since_ms) == (0, None, "", None)
    assert state.webhook.last_success_ms is not None
    assert caplog.text.count("does not take events") == 1


async def test_the_receiver_may_ask_for_a_longer_wait_but_not_for_more_than_five_minutes(
    world: World, receiver: Receiver
) -> None:
    answer = b"HTTP/1.1 503 X\r\nRetry-After: %d\r\nContent-Length: 0\r\n\r\n"
    receiver.answers.extend([answer % 60, answer % 86_400])
    number = (await world.endpoints.add(receiver.url(), ["push.*"])).webhook.webhook_no
    await world.note(1)
    for tries, wait_s in ((1, 60), (2, 300)):
        await world.until(lambda tries=tries: len(receiver.got) == tries and world.clock.sleepers)
        state = await world.endpoints.find(number)
        assert state.next_try_ms - world.clock.now_ms() == wait_s * 1000
        assert state.last_error == "the answer is 503"
        world.clock.advance(wait_s)


@pytest.mark.parametrize("answer", [REFUSAL, b"garbage\r\n\r\n", b"HTTP/1.1 302 X\r\nLocation: /\r\n\r\n"])
async def test_after_a_day_a_batch_becomes_a_letter_and_what_is_behind_it_goes_on(
    world: World, receiver: Receiver, answer: bytes
) -> None:
    receiver.always = answer
    number = (await world.endpoints.add(receiver.url(), ["push.*"])).webhook.webhook_no
    await world.note(1, 2)
    await world.until(lambda: receiver.got)
    began_ms = world.clock.now_ms()
    await world.note(3)
    first = (await world.letters(1))[-1]
    assert DAY_S * 1000 <= first.buried_at_ms - began_ms <= (DAY_S + 900) * 1000
    receiver.always = None
    await world.note(4)
    await world.until(lambda: receiver.told[-1]["n"] == 4, step_s=300)
    letters = [await world.endpoints.letter(one.letter_no) for one in await world.endpoints.letters(0, 100)]
    buried = {one.letter_no: [event["n"] for event in json.loads(one.body)["events"]] for one in letters}
    assert buried.pop(first.letter_no) == [1, 2]
    assert all(one.error for one in letters)
    # What came while it failed is told behind it, or as old by then and a letter of its own; never lost.
    assert list(buried.values()) in ([], [[3]])
    assert [event["n"] for event in receiver.told][-1 if buried else -2 :] == ([4] if buried else [3, 4])
    async with asyncio.timeout(HANG_GUARD_S):
        while (await world.idle(number)).webhook.failing_since_ms is not None:
            await asyncio.sleep(0.001)


async def test_what_waited_a_day_behind_a_letter_follows_it_without_a_try_of_its_own(
    world: World, receiver: Receiver
) -> None:
    receiver.always = REFUSAL
    await world.endpoints.add(receiver.url(), ["push.*"])
    await world.note(*range(1_100))
    await world.letters(3)
    assert len(receiver.got) < 400
    events = [len(json.loads((await world.endpoints.letter(no)).body)["events"]) for no in (1, 2, 3)]
    assert events == [500, 500, 100]
    assert {event["n"] for event in receiver.told} == set(range(500))


async def test_a_letter_is_replayed_after_a_restart_once_and_for_its_webhook_alone(
    world: World, receiver: Receiver
) -> None:
    receiver.always = REFUSAL
    await world.endpoints.add(receiver.url(), ["push.*"])
    await world.note(1, 2)
    await world.letters(1)
    other = await Receiver().start()
    await world.endpoints.add(other.url(), ["push.*"])
    world = await world.restarted()
    receiver.got.clear()
    receiver.always = None
    (letter,) = await world.endpoints.letters(0, 10)
    assert (letter.body, letter.replayed_at_ms) == (b"", None)
    replayed = await world.endpoints.replay(letter.letter_no)
    assert replayed.replayed_at_ms == world.clock.now_ms()
    assert (await world.endpoints.replay(letter.letter_no)).replayed_at_ms == replayed.replayed_at_ms
    await world.note(3)
    await world.until(lambda: len(receiver.told) == 3 and other.told, step_s=1)
    assert [(event["id"], event["n"]) for event in receiver.told] == [("evt_1", 1), ("evt_2", 2), ("evt_5", 3)]
    assert [event["n"] for event in other.told] == [3]
    await other.stop()
    await world.stop()


async def test_what_was_not_taken_comes_again_after_a_restart_and_what_was_does_not(
    world: World, receiver: Receiver
) -> None:
    await world.endpoints.add(receiver.url(), ["push.*", "uplink"])
    await world.note(1)
    world.send(1)
    await world.until(lambda: len(receiver.told) == 2)
    receiver.always = REFUSAL
    await world.note(2)
    world.send(2)
    await world.until(lambda: len(receiver.got) >= 4, step_s=0.1)
    world = await world.restarted()
    receiver.got.clear()
    receiver.always = None
    await world.note(3)
    world.send(3)
    await world.until(lambda: len(receiver.told) == 4, step_s=0.1)
    assert [event["n"] for event in receiver.told if event["kind"] == "push.acked"] == [2, 3]
    uplink = [event["message_id"] for event in receiver.told if event["kind"] == "uplink"]
    assert uplink == [f"msg_{number:032x}" for number in (2, 3)]
    await world.stop()


async def test_the_day_goes_on_across_a_restart(world: World, receiver: Receiver) -> None:
    receiver.always = REFUSAL
    number = (await world.endpoints.add(receiver.url(), ["push.*"])).webhook.webhook_no
    await world.note(1)
    await world.until(lambda: receiver.got and world.clock.sleepers)
    since = (await world.endpoints.find(number)).webhook.failing_since_ms
    assert since == world.clock.now_ms()
    world.clock.advance(DAY_S - 10)
    world = await world.restarted()
    assert (await world.endpoints.find(number)).webhook.failing_since_ms == since
    await world.letters(1, step_s=10)
    assert world.clock.now_ms() - since < (DAY_S + 100) * 1000
    await world.stop()


async def test_uplink_is_told_in_the_order_of_the_log_with_its_payload(world: World, receiver: Receiver) -> None:
    world.send(1)
    await world.database.write(lambda _connection: None)
    await world.endpoints.add(receiver.url(), ["uplink"])
    payloads = [b'{"x": 1.0}', b"\xff\x00", b"", b'"\\ud800"', b"NaN", b"[" * 2_000 + b"]" * 2_000]
    for number, payload in enumerate(payloads, 2):
        world.send(number, payload)
    await world.until(lambda: len(receiver.told) == len(payloads), step_s=0.1)
    first = receiver.told[0]
    assert first["kind"] == "uplink"
    assert (first["device_id"], first["message_kind"], first["payload"]) == ("d-7", "order", {"x": 1.0})
    assert [event.get("payload_b64") for event in receiver.told[1:5]] == ["/wA=", "", "Ilx1ZDgwMCI=", "TmFO"]
    assert [event["message_id"] for event in receiver.told] == [f"msg_{no:032x}" for no in range(2, 8)]


async def test_a_dead_letter_of_a_handler_is_told(world: World, receiver: Receiver) -> None:
    await world.endpoints.add(receiver.url(), ["uplink.dead_letter"])
    world.send(1)
    (record,) = await world.uplink.read("application", 10)
    await world.uplink.bury("application", record, "no such order")
    await world.until(lambda: receiver.told)
    (event,) = receiver.told
    assert event["kind"] == "uplink.dead_letter"
    assert (event["device_id"], event["letter_id"], event["error"]) == ("d-7", "ltr_1", "no such order")


async def test_a_slow_receiver_holds_up_nobody_else(world: World, receiver: Receiver) -> None:
    slow = await Receiver().start()
    slow.always = HANG
    await world.endpoints.add(slow.url(), ["push.*"])
    await world.endpoints.add(receiver.url(), ["push.*"])
    for number in range(3):
        await world.note(number)
        await world.until(lambda number=number: len(receiver.told) == number + 1, step_s=0.1)
    assert len(slow.got) == 1
    await slow.stop()


async def test_a_disabled_webhook_waits_and_a_changed_one_is_tried_at_once(world: World, receiver: Receiver) -> None:
    receiver.always = REFUSAL
    made = (await world.endpoints.add(receiver.url(), ["push.*", "uplink"])).webhook
    await world.note(1)
    world.send(1)
    await world.until(lambda: len(receiver.got) >= 2 and world.clock.sleepers)
    await world.endpoints.change(made.webhook_no, is_enabled=False)
    tried = len(receiver.got)
    await world.note(2)
    world.clock.advance(1_000)
    state = await world.endpoints.find(made.webhook_no)
    assert (state.waiting, state.webhook.is_enabled) == (3, False)
    assert len(receiver.got) == tried
    other = await Receiver().start()
    await world.endpoints.change(made.webhook_no, url=other.url(), is_enabled=True, secret="another secret")
    await world.until(lambda: len(other.told) == 3, step_s=0.1)
    assert [event.get("n") for event in other.told if event["kind"] != "uplink"] == [1, 2]
    assert len(receiver.got) == tried
    got = other.got[0]
    at_s = int(got.headers["longwire-signature"].split(",")[0].removeprefix("t="))
    assert got.headers["longwire-signature"] == sign("another secret", at_s, got.body)
    await other.stop()


async def test_a_store_that_is_away_is_waited_for(
    world: World, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    await world.endpoints.add(receiver.url(), ["push.*"])
    await world.note(1)

    await world.until(lambda: receiver.told)
    flush, world.events.flush = world.events.flush, _away  # type: ignore[method-assign]
    await world.note(2)
    await world.until(lambda: "waits for the store" in caplog.text, step_s=0.1)
    world.events.flush = flush  # type: ignore[method-assign]
    await world.note(3)
    await world.until(lambda: len(receiver.told) == 3, step_s=0.1)
    # Taken and not flushed is not sent again by the process that knows it.
    assert [event["n"] for event in receiver.told] == [1, 2, 3]


async def _away(webhook_no: int, event_no: int, now_ms: int) -> None:
    raise StoreUnavailable("away")
