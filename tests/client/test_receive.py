"""What becomes of a message on its way in: given once, acknowledged when the application has it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import pytest
from client_fake_node import FakeNode
from client_manual_time import ManualTimers, settle, until

from longwire.client import Device, DeviceClosed, Message, State, UndecodableMessage, Unhandled
from longwire.wire.packets import Ack, Push

MakeDevice = Callable[..., Device]


def push(number: int, kind: str = "chat", payload: bytes | None = None, sender: str = "device:d-2") -> Push:
    data = payload if payload is not None else str(number).encode()
    return Push(number.to_bytes(16), kind, sender, data, 1_764_000_000_000 + number, "", "")


async def reconnect(node: FakeNode, device: Device, clock: ManualTimers) -> None:
    connects = len(node.connects)
    node.link.drop()
    await until(lambda: device.state is State.WAITING)
    await clock.advance(1)
    await until(lambda: len(node.connects) > connects and device.state is State.CONNECTED)


async def test_a_message_has_all_that_the_push_said(node: FakeNode, make_device: MakeDevice, transport: str) -> None:
    async with make_device(transport=transport) as device:
        node.backend.push("d-1", Push(b"i" * 16, "chat", "device:d-2", b'{"x":[1]}', 5, "key", "group:g"))
        message = await device.receive()
    assert message == Message("device:d-2", "chat", b'{"x":[1]}', "group:g", b"i" * 16, 5, "key")
    assert message.json() == {"x": [1]}
    assert message.text() == '{"x":[1]}'
    assert message.decode(dict[str, list[int]]) == {"x": [1]}


async def test_a_message_is_acknowledged_when_the_next_one_is_asked_for(
    node: FakeNode, make_device: MakeDevice
) -> None:
    got: list[str] = []

    async def read(device: Device) -> None:
        async for message in device:
            await settle()
            assert len(node.link.acked) == len(got)  # not before the loop's body is through
            got.append(message.text())

    async with make_device() as device:
        reading = asyncio.ensure_future(read(device))
        for i in range(3):
            node.backend.push("d-1", push(i))
        await until(lambda: len(node.link.acked) == 3)
    await reading
    assert got == ["0", "1", "2"]
    assert node.backend.inboxes["d-1"] == []


async def test_what_waits_comes_on_connecting_oldest_first(node: FakeNode, make_device: MakeDevice) -> None:
    node.backend.inboxes["d-1"] = [push(i) for i in range(50)]
    async with make_device() as device:
        assert [(await device.receive()).text() for _ in range(50)] == [str(i) for i in range(50)]


async def test_breaking_out_of_the_loop_and_leaving_the_block_takes_the_last_message(
    node: FakeNode, make_device: MakeDevice
) -> None:
    node.backend.push("d-1", push(1))
    async with make_device() as device:
        async for _ in device:
            break
        await settle()
        assert node.link.acked == []
    await until(lambda: node.backend.inboxes["d-1"] == [])


async def test_an_exception_that_leaves_the_block_leaves_the_message_unacknowledged(
    node: FakeNode, make_device: MakeDevice
) -> None:
    node.backend.push("d-1", push(1))

    async def fail() -> None:
        async with make_device() as device:
            async for _ in device:
                raise KeyError

    with pytest.raises(KeyError):
        await fail()
    await until(lambda: node.link.is_lost)
    assert node.backend.inboxes["d-1"] == [push(1)]


async def test_a_loop_after_a_break_goes_on_behind_the_message_it_had(node: FakeNode, make_device: MakeDevice) -> None:
    for i in range(3):
        node.backend.push("d-1", push(i))
    got = []
    async with make_device() as device:
        for _ in range(3):
            async for message in device:
                got.append(message.text())
                break
    assert got == ["0", "1", "2"]


async def test_a_message_given_back_comes_again(node: FakeNode, make_device: MakeDevice) -> None:
    node.backend.push("d-1", push(1))
    async with make_device() as device:
        await device.receive()
        assert device.give_back()
        assert not device.give_back()
        node.link.deliver(push(1))
        assert (await device.receive()).text() == "1"


async def test_two_tasks_that_iterate_share_the_messages(node: FakeNode, make_device: MakeDevice) -> None:
    got: dict[str, list[str]] = {"a": [], "b": []}

    async def read(device: Device, name: str) -> None:
        async for message in device:
            got[name].append(message.text())
            await settle()

    async with make_device() as device:
        readers = [asyncio.ensure_future(read(device, name)) for name in got]
        await settle()
        for i in range(10):
            node.backend.push("d-1", push(i))
        await until(lambda: len(node.link.acked) == 10)
    await asyncio.gather(*readers)
    assert sorted(got["a"] + got["b"], key=int) == [str(i) for i in range(10)]
    assert got["a"]
    assert got["b"]


async def test_a_cancelled_receive_loses_nothing(node: FakeNode, make_device: MakeDevice) -> None:
    async with make_device() as device:
        reading = asyncio.ensure_future(device.receive())
        other = asyncio.ensure_future(device.receive())
        await settle()
        node.backend.push("d-1", push(1))
        while not device._inbox._for_tasks:
            await asyncio.sleep(0)
        reading.cancel()  # it was woken, and did not come to take the message
        assert (await other).text() == "1"


async def test_receive_has_a_deadline(make_device: MakeDevice, clock: ManualTimers) -> None:
    async with make_device() as device:
        reading = asyncio.ensure_future(device.receive(timeout_s=2))
        await clock.advance(2.1)
        with pytest.raises(TimeoutError):
            await reading
        reading = asyncio.ensure_future(device.receive())
        await settle()
    with pytest.raises(DeviceClosed):
        await reading


# Repeats


async def test_a_repeat_of_a_handled_message_is_acknowledged_and_not_given(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    node.forgets_acks = True
    got: list[str] = []
    async with make_device() as device:
        device.on("chat")(lambda message: got.append(message.text()))
        node.backend.push("d-1", push(1))
        await until(lambda: len(node.link.acked) == 1)
        node.link.deliver(push(1))
        await until(lambda: len(node.link.acked) == 2)
        await reconnect(node, device, clock)
        await until(lambda: len(node.link.acked) == 1)
    assert got == ["1"]


async def test_a_repeat_of_a_message_that_the_application_has_is_not_given_again(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    async with make_device() as device:
        node.backend.push("d-1", push(1))
        await device.receive()
        await reconnect(node, device, clock)
        other = asyncio.ensure_future(device.receive())
        await settle()
        assert not other.done()  # the repeat is not another message
        assert node.link.acked == []  # and this task has not said that it is through with it
        other.cancel()
    await until(lambda: node.backend.inboxes["d-1"] == [])


async def test_the_ack_of_a_lost_connection_is_owed_no_more_but_the_repeats_is(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    started, let_go = asyncio.Event(), asyncio.Event()
    calls = 0
    async with make_device() as device:

        @device.on("chat")
        async def chat(message: Message) -> None:
            nonlocal calls
            calls += 1
            started.set()
            await let_go.wait()

        node.backend.push("d-1", push(1))
        await started.wait()
        first = node.link
        await reconnect(node, device, clock)
        await settle()
        let_go.set()
        await until(lambda: node.backend.inboxes["d-1"] == [])
    assert calls == 1
    assert first.acked == []
    assert len(node.link.acked) == 1


async def test_messages_that_wait_here_survive_a_reconnect_in_order(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    async with make_device() as device:
        for i in range(5):
            node.backend.push("d-1", push(i))
        await until(lambda: len(device._inbox._for_tasks) == 5)
        await reconnect(node, device, clock)
        node.backend.push("d-1", push(5))
        assert [(await device.receive()).text() for _ in range(6)] == [str(i) for i in range(6)]
    await until(lambda: node.backend.inboxes["d-1"] == [])


async def test_a_message_of_a_task_that_failed_is_given_again(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    async def fail(device: Device) -> None:
        async for _ in device:
            raise KeyError

    async def succeed(device: Device) -> str:
        return (await device.receive()).text()

    async with make_device() as device:
        node.backend.push("d-1", push(1))
        with pytest.raises(KeyError):
            await asyncio.create_task(fail(device))
        await reconnect(node, device, clock)
        assert await asyncio.create_task(succeed(device)) == "1"
        node.link.deliver(push(1))
        await until(lambda: node.backend.inboxes["d-1"] == [])


async def test_the_same_id_of_another_sender_is_another_message(node: FakeNode, make_device: MakeDevice) -> None:
    async with make_device() as device:
        node.backend.push("d-1", push(1, sender="device:a"))
        node.backend.push("d-1", push(1, sender="device:b"))
        assert {(await device.receive()).sender for _ in range(2)} == {"device:a", "device:b"}


async def test_the_memory_holds_the_last_4096_and_no_more(node: FakeNode, make_device: MakeDevice) -> None:
    node.forgets_acks = True
    count = 0

    def chat(message: Message) -> None:
        nonlocal count
        count += 1

    async with make_device() as device:
        device.on("chat")(chat)
        for i in range(4_097):
            node.link.deliver(push(i))
        await until(lambda: count == 4_097)
        for i in range(1, 4_097):
            node.link.deliver(push(i))
        await until(lambda: len(node.link.acked) == 4_097 + 4_096)
        assert count == 4_097
        node.link.deliver(push(0))
        await until(lambda: count == 4_098)
        assert len(device._inbox._handled) == 4_096


# Acknowledgements


async def test_acks_of_one_turn_leave_in_one_frame(node: FakeNode, make_device: MakeDevice) -> None:
    node.backend.inboxes["d-1"] = [push(i) for i in range(40)]
    device = make_device()
    device.on("chat")(lambda message: None)
    async with device:
        await until(lambda: len(node.link.acked) == 40)
        assert node.link.ack_frames < 5


async def test_a_push_without_flag_2_is_given_and_not_acknowledged(node: FakeNode, make_device: MakeDevice) -> None:
    async with make_device() as device:
        for _ in range(2):
            node.link.deliver(push(1), flags=0)
        messages = [await device.receive() for _ in range(2)]
        assert not messages[0].is_reliable
    assert node.link.of(Ack) == []


async def test_beyond_the_bound_messages_are_dropped_unacknowledged(node: FakeNode, make_device: MakeDevice) -> None:
    async with make_device() as device:
        for i in range(1_005):
            node.link.deliver(push(i))
        await until(lambda: device.dropped == 5)
        for _ in range(1_000):
            await device.receive()
        node.link.deliver(push(1_000))
        assert (await device.receive()).text() == "1000"


# Callbacks


class Reading(msgspec.Struct):
    celsius: float


@dataclass
class Point:
    x: int


async def test_callbacks_get_what_their_annotations_ask_for(node: FakeNode, make_device: MakeDevice) -> None:
    got: list[object] = []
    async with make_device() as device:

        @device.on("struct")
        async def struct(reading: Reading, message: Message) -> None:
            got.append((reading, message.kind))

        @device.on("dataclass")
        def point(value: Point) -> None:
            got.append(value)

        @device.on("dict")
        def mapping(value: dict) -> None:
            got.append(value)

        @device.on("bytes")
        def raw(value: bytes) -> None:
            got.append(value)

        @device.on("str")
        def text(value: str) -> None:
            got.append(value)

        @device.on("nothing")
        def nothing() -> None:
            got.append(None)

        @device.on()
        def rest(message) -> None:
            got.append(message.kind)

        payloads = {"struct": b'{"celsius":1.5}', "dataclass": b'{"x":1}', "dict": b'{"y":2}'}
        kinds = ["struct", "dataclass", "dict", "bytes", "str", "nothing", "other"]
        for number, kind in enumerate(kinds):
            node.backend.push("d-1", push(number, kind, payloads.get(kind, b"raw")))
        await until(lambda: len(node.link.acked) == len(kinds))
    assert got == [(Reading(1.5), "struct"), Point(1), {"y": 2}, b"raw", "raw", None, "other"]


async def test_callbacks_run_one_after_the_other_in_order(node: FakeNode, make_device: MakeDevice) -> None:
    running = 0
    got: list[str] = []
    async with make_device() as device:

        @device.on("slow")
        async def slow(text: str) -> None:
            nonlocal running
            running += 1
            assert running == 1
            await settle()
            got.append(text)
            running -= 1

        @device.on("quick")
        def quick(text: str) -> None:
            assert running == 0
            got.append(text)

        for i in range(10):
            node.backend.push("d-1", push(i, "slow" if i % 3 == 0 else "quick"))
        await until(lambda: len(node.link.acked) == 10)
    assert got == [str(i) for i in range(10)]


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_callback_that_raises_is_reported_and_its_message_comes_again(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[Exception] = []
    calls: list[str] = []

    def handle(message: Message) -> None:
        calls.append(message.text())
        if len(calls) == 1:
            raise KeyError("once")

    async def handle_async(message: Message) -> None:
        await asyncio.sleep(0)
        handle(message)

    async with make_device(on_error=errors.append) as device:
        device.on("chat")(handle_async if is_async else handle)
        node.backend.push("d-1", push(1))
        node.backend.push("d-1", push(2))
        await until(lambda: len(node.link.acked) == 1)
        assert node.backend.inboxes["d-1"] == [push(1)]
        await reconnect(node, device, clock)
        await until(lambda: node.backend.inboxes["d-1"] == [])
    assert calls == ["1", "2", "1"]
    (error,) = errors
    assert isinstance(error, KeyError)
    assert push(1).message_id.hex() in error.__notes__[0]
    assert "once" in caplog.text


async def test_a_payload_that_does_not_decode_is_reported_and_let_go(node: FakeNode, make_device: MakeDevice) -> None:
    errors: list[Exception] = []
    async with make_device(on_error=errors.append) as device:

        @device.on("reading")
        def reading(value: Reading) -> None:
            raise AssertionError

        node.backend.push("d-1", push(1, "reading", b'{"celsius":"warm"}'))
        await until(lambda: node.backend.inboxes["d-1"] == [])
    assert isinstance(errors[0], UndecodableMessage)
    assert "celsius" in str(errors[0])


async def test_messages_that_nobody_wants_do_not_keep_out_those_that_somebody_does(
    node: FakeNode, make_device: MakeDevice
) -> None:
    errors: list[Exception] = []
    wanted: list[str] = []
    async with make_device(on_error=errors.append) as device:
        device.on("wanted")(lambda message: wanted.append(message.text()))
        for i in range(40):
            node.backend.push("d-1", push(i, "unknown"))
        node.backend.push("d-1", push(99, "wanted"))
        await until(lambda: wanted == ["99"])
        await until(lambda: len(node.link.acked) == 9)
        assert len(errors) == 8
        assert isinstance(errors[0], Unhandled)
        assert (await device.receive()).text() == "8"


async def test_a_callback_that_comes_late_gets_the_messages_that_wait(node: FakeNode, make_device: MakeDevice) -> None:
    node.backend.inboxes["d-1"] = [push(i, "late" if i % 2 else "other") for i in range(6)]
    got: list[str] = []
    async with make_device() as device:
        await until(lambda: len(device._inbox._for_tasks) == 6)
        device.on("late")(lambda message: got.append(message.text()))
        assert got == ["1", "3", "5"]
        assert (await device.receive()).text() == "0"


async def test_a_function_that_cannot_be_a_callback_is_refused_at_once(make_device: MakeDevice) -> None:
    device = make_device()
    with pytest.raises(TypeError):

        @device.on("k")
        def needs(message: Message, *, more: int) -> None: ...

    with pytest.raises(TypeError):

        @device.on("k")
        def unknown(value: "NoSuchType") -> None: ...  # noqa: F821


async def test_a_device_can_be_closed_from_its_own_callback(node: FakeNode, make_device: MakeDevice) -> None:
    device = make_device()
    closed = asyncio.Event()
    async with device:

        @device.on("stop")
        async def stop(message: Message) -> None:
            await device.close()
            closed.set()

        node.backend.push("d-1", push(1, "stop"))
        await asyncio.wait_for(closed.wait(), 5)
    assert device.state is State.CLOSED
