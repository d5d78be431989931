"""Calls with an answer, both ways."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest
from client_fake_node import FakeNode, Link
from client_manual_time import ManualTimers, settle, until

from longwire.client import (
    BadRequest,
    ConnectionLost,
    Device,
    HandlerFailed,
    MethodRefused,
    RequestTimeout,
    State,
    Unsupported,
)
from longwire.reasons import Status
from longwire.wire.packets import Reply, Request

MakeDevice = Callable[..., Device]


async def ask(link: Link, method: str, payload: bytes = b"", timeout_ms: int = 10_000, correlation: int = 500) -> Reply:
    link.write(Request(method, payload, timeout_ms), correlation)
    await until(lambda: any(f.correlation == correlation and isinstance(f.packet, Reply) for f in link.received))
    return next(f.packet for f in link.received if f.correlation == correlation and isinstance(f.packet, Reply))


async def test_a_request_returns_the_reply(node: FakeNode, make_device: MakeDevice, transport: str) -> None:
    node.replies["status"] = Reply(0, b'{"ok":true}', "fine")
    async with make_device(transport=transport) as device:
        reply = await device.request("status", {"a": 1}, timeout_s=3)
        assert reply.json() == {"ok": True}
        assert reply.detail == "fine"
    (request,) = node.link.of(Request)
    assert request == Request("status", b'{"a":1}', 3_000)


@pytest.mark.parametrize(("status", "error"), [(15, Unsupported), (16, BadRequest), (17, HandlerFailed)])
async def test_a_reply_with_a_status_raises_its_error(
    node: FakeNode, make_device: MakeDevice, status: int, error: type[Exception]
) -> None:
    node.replies["m"] = Reply(status, b"why", "no")
    async with make_device() as device:
        with pytest.raises(error) as caught:
            await device.request("m")
    assert (caught.value.status, caught.value.detail, caught.value.payload) == (status, "no", b"why")


async def test_a_request_times_out_and_a_late_reply_is_ignored(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    async with make_device() as device:
        asking = asyncio.ensure_future(device.request("m", timeout_s=2))
        await until(lambda: node.link.of(Request))
        await clock.advance(2.1)
        with pytest.raises(RequestTimeout):
            await asking
        node.link.write(Reply(0, b"late"), node.link.received[-1].correlation)
        await settle()
        assert device.state is State.CONNECTED


async def test_a_request_waits_for_a_session_within_its_time(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    node.replies["m"] = Reply(0, b"")
    await node.stop()
    async with make_device() as device:
        early = asyncio.ensure_future(device.request("m", timeout_s=0.05))
        late = asyncio.ensure_future(device.request("m", timeout_s=30))
        await clock.advance(0.06)
        with pytest.raises(RequestTimeout, match="no session"):
            await early
        await node.listen()
        await clock.advance(1)
        await late
    assert 28_000 < node.link.of(Request)[0].timeout_ms < 30_000


async def test_a_connection_that_goes_takes_its_requests_with_it(node: FakeNode, make_device: MakeDevice) -> None:
    async with make_device() as device:
        asking = asyncio.ensure_future(device.request("m"))
        await until(lambda: node.link.of(Request))
        node.link.drop()
        with pytest.raises(ConnectionLost):
            await asking


async def test_methods_answer_with_what_they_return(node: FakeNode, make_device: MakeDevice) -> None:
    class Add(msgspec.Struct):
        a: int
        b: int

    device = make_device()

    def add(numbers: Add) -> int:
        return numbers.a + numbers.b

    add.__annotations__["numbers"] = Add

    @device.method("slow")
    async def slow() -> dict[str, bool]:
        await asyncio.sleep(0)
        return {"ok": True}

    @device.method("echo")
    def echo(data):
        return data

    @device.method("nothing")
    def nothing(text: str) -> None: ...

    device.method("add")(add)
    async with device:
        assert await ask(node.link, "add", b'{"a":1,"b":2}', correlation=1) == Reply(0, b"3")
        assert await ask(node.link, "slow", correlation=2) == Reply(0, b'{"ok":true}')
        assert await ask(node.link, "echo", b"\x00\x01", correlation=3) == Reply(0, b"\x00\x01")
        assert await ask(node.link, "nothing", b"x", correlation=0) == Reply(0, b"")


async def test_methods_that_cannot_answer_say_why(node: FakeNode, make_device: MakeDevice, clock: ManualTimers) -> None:
    errors: list[Exception] = []
    device = make_device(on_error=errors.append)

    @device.method("number")
    def number(value: int) -> int:
        return value

    @device.method("breaks")
    async def breaks() -> None:
        raise KeyError("secret")

    @device.method("refuses")
    def refuses() -> None:
        raise MethodRefused(Status.NOT_PERMITTED, "not today")

    @device.method("refuses later")
    async def refuses_later() -> None:
        await asyncio.sleep(0)
        raise MethodRefused(Status.OFFLINE)

    @device.method("hangs")
    async def hangs() -> None:
        await asyncio.Event().wait()

    @device.method("large")
    def large() -> bytes:
        return b"x" * 65_536

    @device.method("odd")
    def odd() -> object:
        return object()

    async with device:
        statuses = {
            method: await ask(node.link, method, b"x", correlation=number)
            for number, method in enumerate(
                ["unknown", "number", "breaks", "refuses", "refuses later", "large", "odd"], start=1
            )
        }
        node.link.write(Request("hangs", b"", 1_500), 99)
        await settle()
        await clock.advance(1.6)
        await until(lambda: node.link.received[-1].correlation == 99)
        assert node.link.received[-1].packet.status == Status.TIMEOUT
    assert {method: reply.status for method, reply in statuses.items()} == {
        "unknown": Status.UNSUPPORTED,
        "number": Status.BAD_REQUEST,
        "breaks": Status.HANDLER_FAILED,
        "refuses": Status.NOT_PERMITTED,
        "refuses later": Status.OFFLINE,
        "large": Status.TOO_LARGE,
        "odd": Status.HANDLER_FAILED,
    }
    assert "secret" not in statuses["breaks"].detail
    assert [type(error) for error in errors] == [KeyError, TypeError]


async def test_methods_run_side_by_side_up_to_a_bound(node: FakeNode, make_device: MakeDevice) -> None:
    let_go = asyncio.Event()
    running = 0
    device = make_device()

    @device.method("wait")
    async def wait() -> None:
        nonlocal running
        running += 1
        await let_go.wait()

    async with device:
        for i in range(70):
            node.link.write(Request("wait", b"", 0), i)
        await until(lambda: len(node.link.of(Reply)) == 6)
        assert running == 64
        assert {reply.status for reply in node.link.of(Reply)} == {Status.OVERLOADED}
        let_go.set()
        await until(lambda: len(node.link.of(Reply)) == 70)


async def test_a_method_still_running_when_its_connection_went_answers_nobody(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    let_go = asyncio.Event()
    device = make_device()

    @device.method("wait")
    async def wait() -> None:
        await let_go.wait()

    async with device:
        node.link.write(Request("wait", b"", 0), 7)
        await settle()
        node.link.drop()
        await until(lambda: device.state is State.WAITING)
        await clock.advance(1)
        await until(lambda: device.state is State.CONNECTED)
        let_go.set()
        await settle()
        assert node.link.of(Reply) == []
