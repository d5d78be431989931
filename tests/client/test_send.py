"""What becomes of a message on its way out, while the connection holds."""

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AsyncExitStack

import msgspec
import pytest
from client_fake_node import Answer, FakeNode, Link
from client_manual_time import ManualTimers, settle, until

from longwire.client import (
    Device,
    Discarded,
    Expired,
    NotConnected,
    Offline,
    OutboxFull,
    OutboxLimits,
    Overloaded,
    Refused,
    SendTimeout,
    TooLarge,
    UnknownTarget,
)
from longwire.errors import LocalProtocolError
from longwire.reasons import Status
from longwire.wire.packets import Received, Send, Sent

MakeDevice = Callable[..., Device]


async def test_send_resolves_on_sent_over_either_transport(
    node: FakeNode, make_device: MakeDevice, transport: str
) -> None:
    async with make_device(transport=transport) as device:
        result = await device.send("device:d-2", {"x": 1}, "chat", ttl_s=60, collapse_key="c")
        assert result.status is Status.OK
        assert not result.is_duplicate
        again = await device.send("device:d-2", {"x": 1}, "chat", message_id=result.message_id)
        assert again.is_duplicate
    (sent,) = node.backend.accepted
    assert sent == Send(result.message_id, "device:d-2", "chat", b'{"x":1}', 60, "c")
    assert node.link.is_websocket is (transport == "websocket")


@pytest.mark.parametrize(
    ("payload", "travels"),
    [
        (b"\x00\xff", b"\x00\xff"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        ("grüße", "grüße".encode()),
        ([1, None], b"[1,null]"),
        ({}, b"{}"),
    ],
)
async def test_payloads_become_bytes(node: FakeNode, make_device: MakeDevice, payload: object, travels: bytes) -> None:
    async with make_device() as device:
        await device.send("", payload)
    assert node.backend.payloads() == [travels]


async def test_structs_travel_as_json(node: FakeNode, make_device: MakeDevice) -> None:
    class Reading(msgspec.Struct):
        celsius: float

    async with make_device() as device:
        await device.send("", Reading(21.5))
        with pytest.raises(TypeError):
            await device.send("", object())
    assert node.backend.payloads() == [b'{"celsius":21.5}']


@pytest.mark.parametrize(
    "values",
    [
        {"kind": ""},
        {"kind": "k" * 65},
        {"kind": "\ud800"},
        {"collapse_key": "\ud800"},
        {"ttl_s": 864_001},
        {"message_id": b"short"},
    ],
)
async def test_values_that_cannot_be_are_refused_before_the_outbox(
    make_device: MakeDevice, values: dict[str, object]
) -> None:
    async with make_device() as device:
        with pytest.raises(LocalProtocolError):
            await device.send("", b"", **values)
        assert device.unsent == 0


async def test_many_sends_are_on_the_way_at_once_and_arrive_in_order(
    node: FakeNode, make_device: MakeDevice, transport: str
) -> None:
    async with make_device(transport=transport) as device:
        results = await asyncio.gather(*(device.send("", str(i)) for i in range(2_000)))
        assert device.unsent == 0
    assert all(result.status is Status.OK for result in results)
    assert node.backend.payloads() == [str(i).encode() for i in range(2_000)]


async def test_no_more_messages_are_in_flight_than_the_limit(node: FakeNode, make_device: MakeDevice) -> None:
    node.is_mute = True
    async with make_device(outbox=OutboxLimits(in_flight=10)) as device:
        sends = [asyncio.ensure_future(device.send("", str(i))) for i in range(50)]
        await until(lambda: len(node.link.of(Send)) == 10)
        await settle()
        assert len(node.link.of(Send)) == 10
        assert device.unsent == 50
    for send in sends:
        with pytest.raises(NotConnected):
            await send


@pytest.mark.parametrize(("status", "error"), [(10, UnknownTarget), (12, TooLarge), (19, Offline), (99, Refused)])
async def test_a_refusal_raises_the_error_of_its_status(
    node: FakeNode, make_device: MakeDevice, status: int, error: type[Refused]
) -> None:
    node.on_send = lambda link, frame, send: Sent(status, "because", 250)
    async with make_device() as device:
        with pytest.raises(error, match="because") as caught:
            await device.send("device:nobody", b"")
        assert device.unsent == 0
    assert (caught.value.status, caught.value.detail, caught.value.retry_after_ms) == (status, "because", 250)
    assert type(caught.value) is error


@pytest.mark.parametrize("status", [13, 14, 20])
async def test_what_is_refused_for_now_is_tried_again_after_the_time_that_the_node_names(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers, status: int
) -> None:
    refusals = [Sent(status, "", 700), Sent(status, "", 900)]
    node.on_send = lambda link, frame, send: refusals.pop(0) if refusals else node.backend.accept(link.device_id, send)
    async with make_device() as device:
        send = asyncio.ensure_future(device.send("device:d-2", b"x"))
        await until(lambda: len(node.link.of(Send)) == 1)
        await clock.advance(0.69)
        assert len(node.link.of(Send)) == 1
        await clock.advance(0.02)
        await until(lambda: len(node.link.of(Send)) == 2)
        await clock.advance(0.87)
        assert len(node.link.of(Send)) == 2
        await clock.advance(0.04)
        assert (await send).status is Status.OK
    assert len({send.message_id for send in node.link.of(Send)}) == 1


async def test_a_rate_limit_holds_everything_back_and_keeps_the_order(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    tokens = 3

    def on_send(link: Link, frame: Received, send: Send) -> Answer:
        nonlocal tokens
        if tokens == 0:
            return Sent(13, "", 100)
        tokens -= 1
        return node.backend.accept(link.device_id, send)

    node.on_send = on_send
    async with make_device(outbox=OutboxLimits(in_flight=4)) as device:
        sends = [asyncio.ensure_future(device.send("", str(i))) for i in range(30)]
        for _ in range(20):
            await settle()
            tokens = 3
            await clock.advance(0.11)
        await asyncio.gather(*sends)
    assert node.backend.payloads() == [str(i).encode() for i in range(30)]


async def test_a_full_inbox_holds_back_its_own_messages_only(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    is_full = True
    node.on_send = lambda link, frame, send: (
        Sent(14, "inbox of 1000 is full", 500)
        if send.to == "device:full" and is_full
        else node.backend.accept(link.device_id, send)
    )
    async with make_device(outbox=OutboxLimits(in_flight=1)) as device:
        held = [asyncio.ensure_future(device.send("device:full", f"full {i}")) for i in range(3)]
        free = [asyncio.ensure_future(device.send("device:free", f"free {i}")) for i in range(3)]
        await asyncio.gather(*free)
        assert len([send for send in node.link.of(Send) if send.to == "device:full"]) == 1
        is_full = False
        await clock.advance(0.6)
        await asyncio.gather(*held)
    assert node.backend.payloads()[3:] == [b"full 0", b"full 1", b"full 2"]


async def test_without_a_time_from_the_node_retries_back_off_by_themselves(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    node.on_send = lambda link, frame, send: Sent(20)
    async with make_device() as device:
        send = asyncio.ensure_future(device.send("", b"x"))
        for _ in range(60):
            await clock.advance(1)
        assert 5 <= len(node.link.of(Send)) <= 12
        send.cancel()


async def test_retries_end_with_the_ttl(node: FakeNode, make_device: MakeDevice, clock: ManualTimers) -> None:
    node.on_send = lambda link, frame, send: Sent(14, "", 1_000)
    async with make_device() as device:
        send = asyncio.ensure_future(device.send("device:d-2", b"x", ttl_s=5))
        for _ in range(6):
            await clock.advance(1.01)
        with pytest.raises(Expired):
            await send
        assert device.unsent == 0
    assert 4 <= len(node.link.of(Send)) <= 6


async def test_the_ttl_that_travels_is_what_is_left_of_it(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    refusals = [Sent(14, "", 40_000)]
    node.on_send = lambda link, frame, send: refusals.pop() if refusals else node.backend.accept(link.device_id, send)
    async with make_device() as device:
        send = asyncio.ensure_future(device.send("device:d-2", b"x", ttl_s=60))
        await until(lambda: node.link.of(Send))
        await clock.advance(40.1)
        await send
    assert [send.ttl_s for send in node.link.of(Send)] == [60, 20]


async def test_a_timeout_ends_the_waiting_and_not_the_message(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    node.on_send = lambda link, frame, send: None
    outcomes: list[tuple[bytes, object]] = []
    async with make_device(on_sent=lambda *outcome: outcomes.append(outcome)) as device:
        send = asyncio.ensure_future(device.send("", b"x", timeout_s=3))
        await until(lambda: node.link.of(Send))
        await clock.advance(3.1)
        with pytest.raises(SendTimeout) as caught:
            await send
        assert device.unsent == 1
        again = asyncio.ensure_future(device.send("", b"x", message_id=caught.value.message_id))
        await settle()
        assert len(node.link.of(Send)) == 1  # it waits for the same message
        frame = next(frame for frame in node.link.received if isinstance(frame.packet, Send))
        node.link.write(Sent(0), frame.correlation)
        assert (await again).message_id == caught.value.message_id
    assert outcomes == []


async def test_the_outcome_of_a_message_that_nobody_waits_for_goes_to_on_sent(
    node: FakeNode, make_device: MakeDevice
) -> None:
    node.on_send = lambda link, frame, send: None
    outcomes: list[tuple[bytes, object]] = []
    async with make_device(on_sent=lambda *outcome: outcomes.append(outcome)) as device:
        send = asyncio.ensure_future(device.send("", b"x", message_id=b"i" * 16))
        await until(lambda: node.link.of(Send))
        send.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await send
        node.link.write(Sent(0), node.link.received[-1].correlation)
        await until(lambda: outcomes)
    assert outcomes[0][0] == b"i" * 16
    assert outcomes[0][1].status is Status.OK


async def test_a_message_beyond_the_nodes_body_limit_fails_at_once_and_never_goes_out(
    node: FakeNode, make_device: MakeDevice
) -> None:
    node.terms["max_body_bytes"] = 2_000
    async with make_device() as device:
        with pytest.raises(TooLarge, match="exceeds 2000"):
            await device.send("", b"x" * 2_000)
        with pytest.raises(TooLarge):
            await device.send("", b"x" * 2_000, receipt=False)
        await device.send("", b"x" * 1_900)
        assert device.unsent == 0
    assert [len(send.payload) for send in node.link.of(Send)] == [1_900]


async def test_the_body_limit_is_exact_to_the_byte(node: FakeNode, make_device: MakeDevice) -> None:
    # 1 array, 18 id, 1 to, 8 kind, 3 + 1965 payload, 1 ttl, 1 collapse key: 1998 bytes.
    node.terms["max_body_bytes"] = 1_998
    async with make_device() as device:
        await device.send("", b"x" * 1_965)
        with pytest.raises(TooLarge):
            await device.send("", b"x" * 1_966)
    assert node.link.fault is None


async def test_the_outbox_is_bounded_in_messages_and_bytes(
    node: FakeNode, make_device: MakeDevice, devices: AsyncExitStack
) -> None:
    node.is_mute = True
    device = await devices.enter_async_context(make_device(outbox=OutboxLimits(max_messages=3, max_bytes=100)))
    sends = [asyncio.ensure_future(device.send("", b"x" * 40)) for _ in range(2)]
    await settle()
    with pytest.raises(OutboxFull, match="100"):
        await device.send("", b"x" * 40)
    sends.append(asyncio.ensure_future(device.send("", b"")))
    await settle()
    with pytest.raises(OutboxFull, match="3 messages"):
        await device.send("", b"")
    for send in sends:
        send.cancel()


async def test_without_receipt_a_message_is_written_once_and_not_answered(
    node: FakeNode, make_device: MakeDevice
) -> None:
    async with make_device() as device:
        result = await device.send("device:d-2", b"now", receipt=False)
        assert not result.is_confirmed
        await until(lambda: node.link.of(Send))
        assert not node.link.received[-1].wants_receipt
        await node.stop()
        await until(lambda: device.state.value == "waiting")
        with pytest.raises(NotConnected):
            await device.send("device:d-2", b"now", receipt=False)


async def test_without_receipt_nothing_piles_up_where_the_node_does_not_read(
    node: FakeNode, make_device: MakeDevice
) -> None:
    async with make_device() as device:
        node.link.transport.pause_reading()

        async def flood() -> None:
            for _ in range(1_000):
                await device.send("", b"x" * 60_000, receipt=False)
                await asyncio.sleep(0)

        with pytest.raises(Overloaded):
            await flood()
        node.link.transport.resume_reading()


async def test_ttl_0_is_now_or_never(node: FakeNode, make_device: MakeDevice, clock: ManualTimers) -> None:
    node.on_send = lambda link, frame, send: Sent(14, "", 1_000)
    async with make_device() as device:
        with pytest.raises(Overloaded):
            await device.send("device:d-2", b"x", ttl_s=0)
        node.is_mute = True
        send = asyncio.ensure_future(device.send("device:d-2", b"x", ttl_s=0))
        await until(lambda: len(node.link.of(Send)) == 2)
        await node.stop()
        with pytest.raises(Offline):
            await send
        with pytest.raises(Offline):
            await device.send("device:d-2", b"x", ttl_s=0)
        assert device.unsent == 0


async def test_a_discarded_message_is_not_sent_again(node: FakeNode, make_device: MakeDevice) -> None:
    node.is_mute = True
    async with make_device() as device:
        send = asyncio.ensure_future(device.send("", b"x", message_id=b"i" * 16))
        await until(lambda: node.link.of(Send))
        assert device.discard(b"i" * 16)
        assert not device.discard(b"i" * 16)
        with pytest.raises(Discarded):
            await send
        assert device.unsent == 0


async def test_drained_waits_for_an_empty_outbox(node: FakeNode, make_device: MakeDevice) -> None:
    async with make_device() as device:
        sends = [asyncio.ensure_future(device.send("", str(i))) for i in range(20)]
        await asyncio.sleep(0)
        assert device.unsent == 20
        await device.drained()
        assert len(node.backend.accepted) == 20
        await asyncio.gather(*sends)
        await device.drained()


async def test_a_restless_sender_leaves_no_timers_behind(make_device: MakeDevice, clock: ManualTimers) -> None:
    async with make_device() as device:
        for i in range(1_000):
            await device.send("", str(i), ttl_s=60)
        assert len(clock.delays) < 10
        assert len(device._outbox._expiries._heap) < 200
