"""Keeping within the node's rate, and keeping the order where a node refuses all the same."""

import asyncio
from collections.abc import Callable

from client_fake_node import Answer, FakeNode, Link
from client_manual_time import ManualTimers, settle, until

from longwire.client import Device, OutboxLimits
from longwire.client.pace import Pace
from longwire.wire.packets import Received, Reply, Send, Sent

MakeDevice = Callable[..., Device]


def spend_all(pace: Pace) -> int:
    spent = 0
    while pace.wait_s() == 0:
        pace.spend()
        spent += 1
    return spent


async def test_a_burst_goes_at_once_and_the_rest_at_the_rate(clock: ManualTimers) -> None:
    pace = Pace(clock, 100, 50)
    assert spend_all(pace) == 50
    await clock.advance(1)
    assert spend_all(pace) == 50  # the bucket holds no more
    await clock.advance(0.2)
    assert spend_all(pace) == 20
    assert 0 < pace.wait_s() <= 0.02


async def test_a_refusal_halves_the_rate_until_a_minute_passes_without_one(clock: ManualTimers) -> None:
    pace = Pace(clock, 100, 50)
    await clock.advance(1)
    pace.refused()
    pace.refused()  # of the same moment: one lesson
    assert spend_all(pace) == 0
    assert pace.wait_s() == 1 / 50
    await clock.advance(1)
    pace.refused()
    assert pace.wait_s() == 1 / 25
    await clock.advance(60)
    assert spend_all(pace) == 50


async def test_a_session_by_the_default_limits_is_never_refused_and_in_order(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    """The node's own bucket: 1,000 a second, a burst of 1,000."""
    tokens, filled_at = 1_000.0, clock.monotonic()
    refusals = 0
    node.replies["m"] = Reply(0, b"")

    def on_send(link: Link, frame: Received, send: Send) -> Answer:
        nonlocal tokens, filled_at, refusals
        now = clock.monotonic()
        tokens, filled_at = min(1_000, tokens + (now - filled_at) * 1_000), now
        if tokens < 1:
            refusals += 1
            return Sent(13, "", 1)
        tokens -= 1
        return node.backend.accept(link.device_id, send)

    node.on_send = on_send
    async with make_device(outbox=OutboxLimits()) as device:
        sends = [asyncio.ensure_future(device.send("", str(i))) for i in range(3_000)]
        for _ in range(100):
            await clock.advance(0.025)
        await asyncio.gather(*sends)
    assert refusals == 0
    assert node.backend.payloads() == [str(i).encode() for i in range(3_000)]


async def test_requests_and_messages_without_receipt_count_in_the_same_rate(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    node.replies["m"] = Reply(0, b"")
    async with make_device(outbox=OutboxLimits(per_s=10, burst=10)) as device:
        for _ in range(5):
            await device.request("m")
            await device.send("", b"x", receipt=False)
        send = asyncio.ensure_future(device.send("", b"y"))
        await settle()
        assert node.link.of(Send)[-1].payload == b"x"
        await clock.advance(0.11)
        await send


async def test_a_stricter_node_is_learnt_within_a_few_refusals(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    tokens, filled_at = 20.0, clock.monotonic()
    refusals = 0

    def on_send(link: Link, frame: Received, send: Send) -> Answer:
        nonlocal tokens, filled_at, refusals
        now = clock.monotonic()
        tokens, filled_at = min(20, tokens + (now - filled_at) * 50), now
        if tokens < 1:
            refusals += 1
            return Sent(13, "", 20)
        tokens -= 1
        return node.backend.accept(link.device_id, send)

    node.on_send = on_send
    async with make_device(outbox=OutboxLimits(in_flight=8)) as device:
        sends = [asyncio.ensure_future(device.send("", str(i))) for i in range(120)]
        for _ in range(400):
            await clock.advance(0.04)
            if all(send.done() for send in sends):
                break
        await asyncio.gather(*sends)
    assert refusals < 40
    assert node.backend.payloads() == [str(i).encode() for i in range(120)]


async def test_an_inbox_that_frees_place_by_place_does_not_shuffle_the_messages(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    places = 20
    seen = 0
    is_freeing = False

    def on_send(link: Link, frame: Received, send: Send) -> Answer:
        nonlocal places, seen
        seen += 1
        if is_freeing and seen % 3 == 0:
            places += 1  # the receiver acknowledges while the sender tries
        if places == 0:
            return Sent(14, "inbox is full", 50)
        places -= 1
        return node.backend.accept(link.device_id, send)

    node.on_send = on_send
    async with make_device(outbox=OutboxLimits(in_flight=50, per_s=0)) as device:
        sends = [asyncio.ensure_future(device.send("device:slow", str(i))) for i in range(120)]
        await until(lambda: device._outbox._holds._holds)
        await settle()  # what was on its way is refused as well, by a receiver that does nothing yet
        is_freeing = True
        for _ in range(400):
            await clock.advance(0.051)
            if device.unsent == 0:
                break
        await asyncio.gather(*sends)
    assert node.backend.payloads() == [str(i).encode() for i in range(120)]


async def test_a_hold_survives_a_reconnect(node: FakeNode, make_device: MakeDevice, clock: ManualTimers) -> None:
    is_full = True
    node.on_send = lambda link, frame, send: (
        Sent(14, "", 500) if is_full else (node.backend.accept("d-1", send) if len(node.connects) > 1 else None)
    )
    async with make_device() as device:
        sends = [asyncio.ensure_future(device.send("device:full", str(i))) for i in range(10)]
        await until(lambda: len(node.link.of(Send)) == 10)
        await settle()
        is_full = False
        await clock.advance(0.6)
        await until(lambda: len(node.link.of(Send)) == 11)  # one goes alone, and gets no answer
        node.link.drop()
        await until(lambda: device.state.value == "waiting")
        await clock.advance(1)
        await asyncio.gather(*sends)
    assert node.backend.payloads() == [str(i).encode() for i in range(10)]


async def test_a_message_discarded_while_it_went_alone_does_not_block_those_behind(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    refusals = 3
    probes: list[bytes] = []

    def on_send(link: Link, frame: Received, send: Send) -> Answer:
        nonlocal refusals
        if refusals:
            refusals -= 1
            return Sent(14, "", 500)
        probes.append(send.message_id)
        return node.backend.accept("d-1", send) if len(probes) > 1 else None

    node.on_send = on_send
    async with make_device() as device:
        sends = [asyncio.ensure_future(device.send("device:full", str(i))) for i in range(3)]
        await until(lambda: refusals == 0)
        await clock.advance(0.6)
        await until(lambda: probes)
        assert device.discard(probes[0])
        results = await asyncio.gather(*sends, return_exceptions=True)
    assert [isinstance(result, Exception) for result in results] == [True, False, False]
