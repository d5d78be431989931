"""Calling handlers: what comes back whatever the function does."""

import asyncio
import functools
import logging
import threading
from collections.abc import Callable

import msgspec
import pytest

from longwire.application import CallEnded, Context, Handler, Longwire, Reject, Result, call
from longwire.reasons import Status
from longwire.testing.services import MemoryServices, context, device

SHORT_S = 0.01
THREAD_S = 0.3  # long enough for a thread to have started on a busy machine


class Order(msgspec.Struct):
    number: int


def handler_of(function: Callable[..., object], timeout_s: float = 5.0, threads: int = 4) -> Handler:
    app = Longwire(threads=threads)
    app.request("it", timeout_s=timeout_s)(function)
    handler = app.find_request("it")
    assert handler is not None
    return handler


async def outcome(function: Callable[..., object], payload: bytes = b"", timeout_s: float = 5.0) -> Result:
    return await call(handler_of(function, timeout_s), payload, context("it", MemoryServices([device("d-1")])))


async def test_the_return_value_is_the_payload_of_the_reply() -> None:
    async def quote(order: Order, ctx: Context) -> dict[str, object]:
        return {"number": order.number, "from": ctx.device_id}

    assert await outcome(quote, b'{"number": 7}') == Result(Status.OK, b'{"number":7,"from":"d-1"}')


async def test_handlers_may_take_nothing_the_payload_the_context_or_both() -> None:
    async def nothing() -> str:
        return "nothing"

    async def payload(body: bytes) -> bytes:
        return body

    async def only_context(ctx: Context) -> str:
        return ctx.device_id

    async def both(body: str, ctx: Context) -> str:
        return body + ctx.kind

    answers = [(await outcome(f, b"p")).payload for f in (nothing, payload, only_context, both)]
    assert answers == [b"nothing", b"p", b"d-1", b"pit"]


async def test_what_an_uplink_handler_returns_is_not_sent() -> None:
    app = Longwire()

    @app.uplink("x")
    async def x() -> object:
        return object()  # JSON could not say this

    handler = app.find_uplink("x")
    assert handler is not None
    assert await call(handler, b"", context("x")) == Result(Status.OK)


async def test_a_payload_that_does_not_decode_is_a_bad_request_and_calls_nothing() -> None:
    called = []

    async def take(order: Order) -> None:
        called.append(order)

    result = await outcome(take, b'{"number": "x"}')
    assert result.status is Status.BAD_REQUEST
    assert "Expected `int`, got `str`" in result.detail
    assert called == []


async def test_a_failure_is_logged_once_with_its_trace_and_tells_the_device_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def failing(body: bytes) -> None:
        raise ValueError("password=hunter2")

    ctx = context("evil\nkind", trace=bytes(range(24)))
    result = await call(handler_of(failing), b"", ctx)
    assert result.status is Status.HANDLER_FAILED
    assert "hunter2" not in result.detail
    assert "hunter2" in result.error
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.levelno == logging.ERROR
    assert "failing" in record.getMessage()
    assert vars(record)["trace.id"] == bytes(range(16)).hex()
    assert vars(record)["longwire.kind"] == "evil\\nkind"
    assert vars(record)["longwire.device_id"] == "d-1"


async def test_a_rejected_message_is_a_bad_request_with_the_handlers_words_and_no_trace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def refusing() -> None:
        raise Reject("order 7 is closed")

    result = await outcome(refusing)
    assert (result.status, result.detail) == (Status.BAD_REQUEST, "order 7 is closed")
    assert caplog.records == []


async def test_an_answer_that_json_cannot_say_is_a_failure_of_the_handler() -> None:
    async def wrong() -> object:
        return object()

    assert (await outcome(wrong)).status is Status.HANDLER_FAILED


async def test_a_handler_past_its_budget_is_cancelled_and_times_out(caplog: pytest.LogCaptureFixture) -> None:
    ends = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("cancelled")

    result = await outcome(slow, timeout_s=SHORT_S)
    assert result.status is Status.TIMEOUT
    assert ends == ["cancelled"]
    assert len(caplog.records) == 1


async def test_a_request_may_shorten_the_budget_but_not_lengthen_it() -> None:
    async def slow() -> None:
        await asyncio.Event().wait()

    assert (await call(handler_of(slow), b"", context("it"), within_s=SHORT_S)).status is Status.TIMEOUT
    assert (await call(handler_of(slow, timeout_s=SHORT_S), b"", context("it"), within_s=60)).status is Status.TIMEOUT


async def test_a_timeout_of_the_handlers_own_is_a_failure_not_a_spent_budget() -> None:
    async def waiting() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    assert (await outcome(waiting)).status is Status.HANDLER_FAILED


async def test_a_cancellation_from_within_the_handler_ends_only_that_call() -> None:
    async def cancelled() -> None:
        task = asyncio.ensure_future(asyncio.Event().wait())
        asyncio.get_running_loop().call_soon(task.cancel)
        await task

    assert (await outcome(cancelled)).status is Status.HANDLER_FAILED


async def test_a_cancelled_call_is_cancelled() -> None:
    started = asyncio.Event()

    async def slow() -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(outcome(slow))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("is_async", [True, False])
def test_a_handler_that_calls_sys_exit_ends_only_that_call(is_async: bool) -> None:
    async def exiting() -> None:
        raise SystemExit(3)

    def exiting_in_thread() -> None:
        raise SystemExit(3)

    result = asyncio.run(outcome(exiting if is_async else exiting_in_thread))
    assert result.status is Status.HANDLER_FAILED


async def test_a_store_that_is_away_asks_the_device_to_try_again() -> None:
    services = MemoryServices([device("d-1")])
    services.is_away = True

    async def replying(ctx: Context) -> None:
        await ctx.reply("done")

    result = await call(handler_of(replying), b"", context("it", services))
    assert result.status is Status.NOT_DURABLE


async def test_sync_handlers_run_in_threads_and_reply_through_wait() -> None:
    services = MemoryServices([device("d-1")])
    names = []

    def take(order: Order, ctx: Context) -> str:
        names.append(threading.current_thread().name)
        return ctx.wait(ctx.reply("done", str(order.number))).label

    result = await call(handler_of(take), b'{"number": 5}', context("it", services))
    assert result == Result(Status.OK, b"ok")
    assert names == ["longwire-handler"]
    assert services.sent[0].payload == b"5"


async def test_a_sync_handler_that_raises_even_stop_iteration_fails() -> None:
    def stopping() -> None:
        raise StopIteration

    assert (await outcome(stopping)).status is Status.HANDLER_FAILED


async def test_a_sync_wrapper_around_an_async_handler_is_awaited() -> None:
    async def inner(body: bytes) -> bytes:
        return body * 2

    @functools.wraps(inner)
    def wrapped(body: bytes) -> object:
        return inner(body)

    assert (await outcome(wrapped, b"ab")).payload == b"abab"


async def test_a_thread_past_its_budget_keeps_its_slot_until_it_returns_and_cannot_send() -> None:
    release, ended = threading.Event(), threading.Event()
    errors: list[CallEnded] = []
    services = MemoryServices([device("d-1")])

    def stuck(ctx: Context) -> None:
        release.wait(10)
        try:
            ctx.wait(ctx.reply("too late"))
        except CallEnded as error:
            errors.append(error)
        finally:
            ended.set()

    handler = handler_of(stuck, timeout_s=THREAD_S, threads=1)
    assert (await call(handler, b"", context("it", services))).status is Status.TIMEOUT
    assert (handler.threads.busy, handler.threads.abandoned) == (1, 1)
    # The only thread is stuck: the next call is not run, which is no fault of its message.
    second = await call(handler, b"", context("it", services))
    assert second.status is Status.OVERLOADED
    assert "1 of 1 are busy, 1 of them past" in second.error
    assert handler.threads.waiting == 0
    release.set()
    assert await asyncio.to_thread(ended.wait, 10)
    assert len(errors) == 1
    assert services.sent == []


async def test_a_wait_that_hangs_ends_with_the_budget() -> None:
    ended = threading.Event()
    errors: list[CallEnded] = []

    def stuck(ctx: Context) -> None:
        async def never() -> None:
            await asyncio.Event().wait()

        try:
            ctx.wait(never())
        except CallEnded as error:
            errors.append(error)
        finally:
            ended.set()

    assert (await outcome(stuck, timeout_s=THREAD_S)).status is Status.TIMEOUT
    assert await asyncio.to_thread(ended.wait, 10)
    assert len(errors) == 1


async def test_wait_is_refused_where_it_would_block_the_loop() -> None:
    async def wrong(ctx: Context) -> None:
        ctx.wait(ctx.reply("x"))

    result = await outcome(wrong)
    assert result.status is Status.HANDLER_FAILED
    assert "sync handlers" in result.error
