"""After 4009-4011: which message caused it is found out, set aside, and never locks the device out."""

import asyncio
from collections.abc import Callable

import pytest
from client_fake_node import Answer, FakeNode, Link
from client_manual_time import ManualTimers, settle, until

from longwire.client import Device, SetAside, State
from longwire.wire.packets import Close, Received, Reply, Request, Send

MakeDevice = Callable[..., Device]


def chokes_on(node: FakeNode, payload: bytes, code: int = 4010) -> Callable[[Link, Received, Send], Answer]:
    """A node that closes when it reads this, and has answered what came before by then."""

    def on_send(link: Link, frame: Received, send: Send) -> Answer:
        if send.payload == payload:
            return Close(code, "body exceeds 100", True, 60_000)
        return node.backend.accept(link.device_id, send)

    return on_send


@pytest.mark.parametrize("code", [4009, 4010, 4011])
async def test_a_message_alone_on_the_way_is_set_aside_at_once(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers, transport: str, code: int
) -> None:
    node.on_send = chokes_on(node, b"bad", code)
    async with make_device(transport=transport) as device:
        await device.send("", b"good")
        with pytest.raises(SetAside, match=str(code)):
            await device.send("", b"bad")
        (aside,) = device.set_aside_messages()
        assert (aside.payload, aside.why) == (b"bad", f"{code} body exceeds 100")
        await until(lambda: device.state is State.WAITING)
        await clock.advance(59)
        assert len(node.connects) == 1
        await clock.advance(1.1)
        await until(lambda: device.state is State.CONNECTED)
        await device.send("", b"good again")
    assert node.backend.payloads() == [b"good", b"good again"]


async def test_of_many_on_the_way_the_guilty_one_is_found_and_the_others_arrive(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    node.on_send = chokes_on(node, b"7")
    async with make_device() as device:
        sends = [asyncio.ensure_future(device.send("", str(i))) for i in range(20)]
        await until(lambda: device.state is State.WAITING)
        assert device.set_aside_messages() == []  # 8 to 19 might have been it as well
        await clock.advance(60.1)
        await until(lambda: len(node.connects) == 2)
        await until(lambda: device.state is State.WAITING)
        assert [aside.payload for aside in device.set_aside_messages()] == [b"7"]
        await clock.advance(179)
        assert len(node.connects) == 2  # thrice the first wait
        await clock.advance(1.1)
        outcomes = await asyncio.gather(*sends, return_exceptions=True)
    assert [i for i, outcome in enumerate(outcomes) if isinstance(outcome, SetAside)] == [7]
    assert node.backend.payloads() == [str(i).encode() for i in range(20) if i != 7]


async def test_a_message_behind_an_answered_one_is_no_suspect(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    """The node reads in order: what it committed late but read before the fault is innocent."""

    def on_send(link: Link, frame: Received, send: Send) -> Answer:
        if send.payload == b"bad":
            return Close(4009, "", True, 60_000)
        answer = node.backend.accept(link.device_id, send)
        return None if send.payload == b"slow" and len(node.connects) == 1 else answer

    node.on_send = on_send
    async with make_device() as device:
        slow = asyncio.ensure_future(device.send("", b"slow"))
        await settle()
        await device.send("", b"quick")
        with pytest.raises(SetAside):
            await device.send("", b"bad")
        await clock.advance(60.1)
        assert (await slow).is_duplicate


async def test_a_request_of_the_application_is_a_suspect_too(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    node.on_send = lambda link, frame, send: None
    async with make_device() as device:
        send = asyncio.ensure_future(device.send("", b"innocent"))
        await settle()
        request = asyncio.ensure_future(device.request("bad"))
        await until(lambda: node.link.of(Request))
        node.link.close(4009, "", 60_000)
        with pytest.raises(Exception, match="before the reply"):
            await request
        assert device.set_aside_messages() == []
        node.on_send = lambda link, frame, send: node.backend.accept(link.device_id, send)
        await clock.advance(60.1)
        await send


async def test_a_fault_that_no_message_caused_sets_nothing_aside_and_triples_the_wait(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    node.on_connect = lambda connect: Close(4011, "version 1 is not 2", True, 60_000)
    async with make_device() as device:
        for wait_s in (60, 180, 540, 1_620, 3_600, 3_600):
            connects = len(node.connects)
            await settle()
            await clock.advance(wait_s - 1)
            assert len(node.connects) == connects
            await clock.advance(1.1)
            await until(lambda seen=connects: len(node.connects) == seen + 1)
        node.on_connect = lambda connect: None
        await clock.advance(3_601)
        await until(lambda: device.state is State.CONNECTED)


async def test_a_websocket_close_1009_counts_as_too_large(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    from longwire.wire import websocket

    def on_send(link: Link, frame: Received, send: Send) -> Answer:
        link.transport.write(websocket.encode_close(1009, "too big"))
        return None

    node.on_send = on_send
    async with make_device(transport="websocket") as device:
        with pytest.raises(SetAside, match="4010 too big"):
            await device.send("", b"x")


async def test_a_message_set_aside_can_be_retried_or_discarded(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    node.on_send = chokes_on(node, b"bad")
    async with make_device() as device:
        with pytest.raises(SetAside) as caught:
            await device.send("", b"bad")
        message_id = caught.value.message_id
        with pytest.raises(SetAside):
            await device.send("", b"bad", message_id=message_id)
        node.on_send = lambda link, frame, send: node.backend.accept(link.device_id, send)
        await clock.advance(61)
        await until(lambda: device.state is State.CONNECTED)
        assert device.retry(message_id)
        assert not device.retry(message_id)
        await device.drained()
        assert node.backend.payloads() == [b"bad"]
        assert not device.discard(message_id)


async def test_requests_that_are_answered_clear_the_suspicion(node: FakeNode, make_device: MakeDevice) -> None:
    node.replies["ok"] = Reply(0, b"")
    node.on_send = chokes_on(node, b"bad")
    async with make_device() as device:
        await device.request("ok")
        await device.send("", b"x", receipt=False)
        await device.request("ok")
        with pytest.raises(SetAside):
            await device.send("", b"bad")
