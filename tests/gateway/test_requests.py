"""REQUEST and REPLY: a device calls a method of the application (PROTOCOL §2)."""

import asyncio

import pytest

from longwire.application import Reject
from longwire.reasons import Status
from longwire.wire.packets import Reply, Request

TRACE = bytes(range(1, 25))


async def test_a_method_is_called_and_answers(houses, app, flavour) -> None:
    seen = []

    @app.request("sum")
    async def add(numbers: list[int], ctx) -> dict:
        seen.append((ctx.device_id, ctx.user, ctx.trace_id, ctx.kind))
        return {"sum": sum(numbers)}

    house = await houses().start()
    await house.register("d-1", user="ann")
    peer = await house.device("d-1", flavour)
    peer.send(Request("sum", b"[1,2,3]"), 7, trace=TRACE)
    reply = await peer.get(Reply, 7)
    assert (reply.status, reply.payload, reply.detail) == (0, b'{"sum":6}', "")
    assert seen == [("d-1", "ann", TRACE[:16].hex(), "sum")]


async def test_a_method_that_nobody_handles_is_unsupported(house, flavour) -> None:
    peer = await house.device("d-1", flavour)
    assert (await peer.call("nothing")).status == Status.UNSUPPORTED
    peer.send(Request("", b"{}"), 0)
    assert (await peer.get(Reply, 0)).status == Status.UNSUPPORTED


async def test_what_does_not_decode_and_what_is_rejected_are_bad_requests(houses, app, flavour) -> None:
    @app.request("typed")
    async def typed(numbers: list[int]) -> None:
        raise Reject("no")

    house = await houses().start()
    peer = await house.device("d-1", flavour)
    assert (await peer.call("typed", b'{"a":1}')).status == Status.BAD_REQUEST
    reply = await peer.call("typed", b"[1]")
    assert (reply.status, reply.detail) == (Status.BAD_REQUEST, "no")
    assert (await peer.call("typed", b"[1]", timeout_ms=0)).status == Status.BAD_REQUEST
    assert (await peer.call("typed", b"[1]", timeout_ms=-5)).status == Status.BAD_REQUEST


async def test_a_handlers_failure_is_told_without_its_text(houses, app, flavour, caplog) -> None:
    @app.request("bug")
    async def bug(payload: bytes) -> None:
        raise RuntimeError("secret")

    house = await houses().start()
    peer = await house.device("d-1", flavour)
    reply = await peer.call("bug")
    assert reply.status == Status.HANDLER_FAILED
    assert "secret" not in reply.detail
    assert "secret" in caplog.text
    await peer.ping()


@pytest.mark.parametrize(("budget_s", "timeout_ms"), [(0.01, 10_000), (60, 10), (60, 1)])
async def test_a_handler_that_takes_too_long_is_a_timeout_by_either_clock(houses, app, budget_s, timeout_ms) -> None:
    @app.request("slow", timeout_s=budget_s)
    async def slow(payload: bytes) -> None:
        await asyncio.sleep(600)

    house = await houses().start()
    peer = await house.device("d-1")
    assert (await peer.call("slow", timeout_ms=timeout_ms)).status == Status.TIMEOUT


async def test_a_timeout_beyond_all_measure_is_the_handlers_own(houses, app) -> None:
    @app.request("quick")
    async def quick(payload: bytes) -> str:
        return "done"

    house = await houses().start()
    peer = await house.device("d-1")
    reply = await peer.call("quick", timeout_ms=(1 << 63) - 1)
    assert (reply.status, reply.payload) == (0, b"done")


async def test_a_reply_that_does_not_fit_is_a_failure_and_says_by_how_much(houses, app, flavour) -> None:
    @app.request("large")
    async def large(payload: bytes) -> bytes:
        return b"x" * int(payload)

    house = await houses().start()
    peer = await house.device("d-1", flavour)
    fits = house.limits.max_body_bytes - 1_024
    assert len((await peer.call("large", b"%d" % fits)).payload) == fits
    reply = await peer.call("large", b"%d" % (fits + 1))
    assert reply.status == Status.HANDLER_FAILED
    assert str(fits + 1) in reply.detail
    assert str(fits) in reply.detail
    assert reply.payload == b""


async def test_requests_run_beside_each_other_and_answer_as_they_end(houses, app) -> None:
    go_on = {name: asyncio.Event() for name in ("a", "b")}

    @app.request("wait")
    async def wait(name: bytes) -> bytes:
        await go_on[name.decode()].wait()
        return name

    house = await houses().start()
    peer = await house.device("d-1")
    peer.send(Request("wait", b"a"), 1)
    peer.send(Request("wait", b"b"), 2)
    await peer.ping()
    go_on["b"].set()
    assert (await peer.get(Reply, 2)).payload == b"b"
    go_on["a"].set()
    assert (await peer.get(Reply, 1)).payload == b"a"


async def test_requests_over_the_bound_of_a_session_are_overloaded(houses, app) -> None:
    go_on = asyncio.Event()

    @app.request("wait")
    async def wait(payload: bytes) -> None:
        await go_on.wait()

    house = await houses(max_requests_per_session=3).start()
    peer = await house.device("d-1")
    for n in range(3):
        peer.send(Request("wait", b""), n)
    assert (await peer.call("wait")).status == Status.OVERLOADED
    go_on.set()
    assert [(await peer.get(Reply, n)).status for n in range(3)] == [0] * 3
    assert (await peer.call("wait")).status == 0


async def test_a_reply_to_a_session_that_has_gone_is_dropped(houses, app) -> None:
    go_on = asyncio.Event()

    @app.request("wait")
    async def wait(payload: bytes) -> None:
        await go_on.wait()

    house = await houses().start()
    peer = await house.device("d-1")
    peer.send(Request("wait", b""), 1)
    await peer.ping()
    await peer.drop()
    await house.until(lambda: len(house.node.hub) == 0)
    go_on.set()
    await house.settled()
    assert house.node._sending._calls == 0


async def test_a_reply_that_nobody_asked_for_is_counted_and_ignored(house, flavour) -> None:
    peer = await house.device("d-1", flavour)
    peer.send(Reply(0, b"1"), 5)
    await peer.ping()
    assert house.node.counters.stray_replies == 1


async def test_a_sync_handler_runs_in_a_thread_and_may_push(houses, app) -> None:
    @app.request("both")
    def both(payload: bytes, ctx) -> str:
        ctx.wait(ctx.reply("also", "1"))
        return "done"

    house = await houses().start()
    peer = await house.device("d-1")
    assert (await peer.call("both")).payload == b"done"
    assert (await peer.push()).packet.kind == "also"
