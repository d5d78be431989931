"""Messages of the system: a push that is withdrawn before the application has it, and kinds nobody knows yet."""

import asyncio
from collections.abc import Callable

import pytest
from client_fake_node import FakeNode
from client_manual_time import settle, until

from longwire.client import Device, Message
from longwire.ids import message_id_text
from longwire.wire.packets import Push

MakeDevice = Callable[..., Device]


def news(number: int, kind: str = "news") -> Push:
    return Push(number.to_bytes(16), kind, "", b"%d" % number, 1_764_000_000_000, "", "")


def withdrawn(number: int, notice: int = 99) -> Push:
    payload = b'{"message_id":"%b"}' % message_id_text(number.to_bytes(16)).encode()
    return Push(notice.to_bytes(16), "longwire.withdrawn", "", payload, 1_764_000_000_000, "", "")


async def test_a_withdrawn_message_that_nobody_took_never_reaches_the_application(
    node: FakeNode, make_device: MakeDevice
) -> None:
    async with make_device() as device:
        handles = [node.link.deliver(push) for push in (news(1), news(2), withdrawn(1))]
        await until(lambda: handles[2] in node.link.acked)
        assert (await device.receive()).text() == "2"
        assert handles[0] not in node.link.acked


async def test_a_withdrawal_of_what_a_task_has_changes_nothing(node: FakeNode, make_device: MakeDevice) -> None:
    async with make_device() as device:
        first = node.link.deliver(news(1))
        got = await device.receive()
        notice = node.link.deliver(withdrawn(1))
        await until(lambda: notice in node.link.acked)
        node.link.deliver(news(2))
        assert got.text() == "1"
        assert (await device.receive()).text() == "2"
        await until(lambda: first in node.link.acked)


async def test_what_waits_behind_a_callback_is_withdrawn_too(node: FakeNode, make_device: MakeDevice) -> None:
    gate = asyncio.Event()
    got: list[str] = []
    async with make_device() as device:

        @device.on("news")
        async def on_news(message: Message) -> None:
            await gate.wait()
            got.append(message.text())

        for push in (news(1), news(2), news(3), withdrawn(2)):
            node.link.deliver(push)
        await settle()
        gate.set()
        await until(lambda: len(got) == 2)
        await settle()
    assert got == ["1", "3"]


async def test_a_callback_for_withdrawals_is_told(node: FakeNode, make_device: MakeDevice) -> None:
    told: list[object] = []
    async with make_device() as device:

        @device.on("longwire.withdrawn")
        def on_withdrawn(message: Message) -> None:
            told.append(message.json())

        handle = node.link.deliver(withdrawn(7))
        await until(lambda: handle in node.link.acked)
    assert told == [{"message_id": message_id_text((7).to_bytes(16))}]


@pytest.mark.parametrize("kind", ["longwire.withdrawn", "longwire.of-a-later-version"])
async def test_kinds_of_the_system_are_acknowledged_and_given_to_nobody_who_did_not_ask(
    node: FakeNode, make_device: MakeDevice, kind: str
) -> None:
    got: list[str] = []
    async with make_device() as device:

        @device.on()
        def on_any(message: Message) -> None:
            got.append(message.kind)

        handle = node.link.deliver(Push(b"s" * 16, kind, "", b"?", 5, "", ""))
        await until(lambda: handle in node.link.acked)
    assert got == []


async def test_a_device_cannot_speak_as_the_system(node: FakeNode, make_device: MakeDevice) -> None:
    async with make_device() as device:
        node.link.deliver(news(1))
        forged = withdrawn(1)
        node.link.deliver(Push(forged.message_id, forged.kind, "device:d-9", forged.payload, 5, "", ""))
        assert (await device.receive()).text() == "1"
        assert (await device.receive()).kind == "longwire.withdrawn"
