"""The sink: order, repeats, dead letters, engines that go away, and an end that loses nothing."""

import asyncio
import logging

import msgspec
import pytest

from longwire.application import Context, Reject
from longwire.sink import Sink
from longwire.traces import CALL, Traces


async def test_each_devices_records_reach_the_handler_in_order(world, seen) -> None:
    world.start()
    for n in range(100):
        world.send(1 + n % 3, str(n))
    await world.clock.run_for(0)
    for device_no in (1, 2, 3):
        given = [int(text) for device, text, _ in seen if device == device_no]
        assert given == list(range(device_no - 1, 100, 3))


async def test_devices_do_not_wait_for_each_other(world) -> None:
    gate = asyncio.Event()
    done = []

    @world.app.uplink("order")
    async def order(text: str) -> None:
        if text == "slow":
            await gate.wait()
        done.append(text)

    world.start()
    for device_no, text in ((1, "slow"), (1, "behind"), (2, "other")):
        world.send(device_no, text)
    await world.clock.run_for(1)
    assert done == ["other"]
    gate.set()
    await world.clock.run_for(0)
    assert done == ["other", "slow", "behind"]


async def test_no_more_handlers_run_at_once_than_allowed(world) -> None:
    gate = asyncio.Event()
    running = []

    @world.app.uplink("order")
    async def order(ctx: Context) -> None:
        running.append(ctx.device_no)
        await gate.wait()

    sink = world.start(max_calls=4)
    for device_no in range(1, 11):
        world.send(device_no, "")
    await world.clock.run_for(0)
    assert len(running) == 4
    assert sink.running == 4
    gate.set()
    await world.clock.run_for(0)
    assert len(running) == 10


async def test_a_failing_record_is_tried_again_with_growing_pauses_then_buried(world, seen) -> None:
    world.start()
    offset = world.send(1, "!bad")
    await world.clock.run_for(0)
    # Pauses lie between half and all of 0.2, 0.4, 0.8 and 1.6 s.
    assert len(seen) == 1
    await world.clock.run_for(0.2)
    assert len(seen) == 2
    await world.clock.run_for(0.09)
    assert len(seen) == 2
    await world.clock.run_for(3)
    assert [attempt for _, _, attempt in seen] == [1, 2, 3, 4, 5]
    ((record, error),) = world.log.dead
    assert record.offset == offset
    assert "handler_failed in attempt 5" in error
    assert "!bad" in error
    await world.clock.run_for(1)
    assert world.cursor() == offset


async def test_later_records_of_the_device_wait_while_one_is_tried_again_and_others_go_on(world, seen) -> None:
    world.start()
    for device_no, text in ((1, "!bad"), (1, "after"), (2, "other")):
        world.send(device_no, text)
    await world.clock.run_for(0.1)
    assert [text for _, text, _ in seen] == ["!bad", "other"]
    await world.clock.run_for(10)
    assert seen[-1] == (1, "after", 1)
    assert len(world.log.dead) == 1


async def test_a_record_that_succeeds_at_last_is_no_dead_letter(world) -> None:
    attempts = []

    @world.app.uplink("order")
    async def order(ctx: Context) -> None:
        attempts.append(ctx.message_id)
        if ctx.attempt < 3:
            raise ValueError

    sink = world.start()
    world.send(1, "")
    await world.clock.run_for(10)
    assert len(attempts) == 3
    assert len(set(attempts)) == 1  # the id by which a handler knows a repeat
    assert world.log.dead == []
    assert (sink.counts.handled, sink.counts.retried, sink.counts.buried) == (1, 2, 0)


async def test_what_cannot_be_decoded_or_is_rejected_is_buried_at_once(world) -> None:
    class Order(msgspec.Struct):
        number: int

    @world.app.uplink("order")
    async def order(order: Order) -> None:
        raise Reject(f"order {order.number} is closed")

    world.start()
    world.send(1, '{"number": "x"}')
    world.send(1, '{"number": 7}')
    await world.clock.run_for(0)
    errors = [error for _, error in world.log.dead]
    assert "bad_request in attempt 1" in errors[0]
    assert "Expected `int`" in errors[0]
    assert "order 7 is closed" in errors[1]


async def test_a_kind_without_handler_is_counted_and_passed_over(world, seen) -> None:
    sink = world.start()
    world.send(1, "x", kind="unknown")
    last = world.send(1, "y")
    await world.clock.run_for(0.3)
    assert sink.counts.unhandled == 1
    assert world.log.dead == []
    assert [text for _, text, _ in seen] == ["y"]
    assert world.cursor() == last


async def test_the_cursor_waits_for_the_oldest_record_that_is_not_done(world) -> None:
    gate = asyncio.Event()

    @world.app.uplink("order")
    async def order(text: str) -> None:
        if text == "slow":
            await gate.wait()

    sink = world.start()
    first = world.send(1, "")
    world.send(2, "slow")
    last = world.send(3, "")
    await world.clock.run_for(2)
    assert world.cursor() == first
    assert sink.span == 2
    assert sink.lag_ms == 2_000
    gate.set()
    await world.clock.run_for(1)
    assert world.cursor() == last
    assert sink.lag_ms == 0


async def test_the_cursor_is_written_at_most_every_200_ms(world, seen) -> None:
    world.start()
    for n in range(100):
        world.send(1, str(n))
        await world.clock.run_for(0.01)
    assert 4 <= len(world.log.flushes) <= 6
    await world.clock.run_for(0.2)
    assert world.cursor() == world.log.records[-1].offset
    flushes = len(world.log.flushes)
    await world.clock.run_for(60)
    assert len(world.log.flushes) == flushes  # nothing to say, nothing written


async def test_after_a_crash_the_records_since_the_cursor_come_again(world, seen) -> None:
    world.start()
    world.send(1, "a")
    await world.clock.run_for(0.1)  # flushed at once
    for text in "bcd":
        world.send(1, text)
    await world.clock.run_for(0.01)  # handled, within the 200 ms
    await world.crash()
    world.start()
    await world.clock.run_for(1)
    assert [text for _, text, _ in seen] == ["a", "b", "c", "d", "b", "c", "d"]


async def test_a_log_that_is_away_is_waited_for_and_nothing_is_lost(world, seen, caplog) -> None:
    caplog.set_level(logging.INFO, "longwire.sink")
    world.start()
    world.send(1, "a")
    await world.clock.run_for(0)
    world.log.go_away()
    await world.clock.run_for(300)
    assert len(caplog.records) <= 2  # one line for reading and one for the cursor, not one a try
    world.log.come_back()
    world.send(1, "b")
    await world.clock.run_for(31)
    assert [text for _, text, _ in seen] == ["a", "b"]
    assert world.cursor() == world.log.records[-1].offset


async def test_a_dead_letter_that_cannot_be_laid_down_holds_the_cursor_and_the_device(world, seen) -> None:
    sink = world.start(attempts=1)
    world.log.go_away("bury")
    bad = world.send(1, "!bad")
    last = world.send(1, "after")
    await world.clock.run_for(100)
    assert [text for _, text, _ in seen] == ["!bad"]
    assert world.cursor() == -1
    world.log.come_back()
    await world.clock.run_for(31)
    assert [record.offset for record, _ in world.log.dead] == [bad]
    assert [text for _, text, _ in seen] == ["!bad", "after"]
    assert sink.counts.buried == 1
    assert world.cursor() == last


async def test_a_cursor_that_cannot_be_written_holds_nothing_else_up(world, seen) -> None:
    world.start()
    world.log.go_away("flush")
    for n in range(50):
        last = world.send(1, str(n))
        await world.clock.run_for(1)
    assert len(seen) == 50
    world.log.come_back()
    await world.clock.run_for(31)
    assert world.log.flushes == [last]


async def test_a_handler_that_finds_the_store_away_is_run_again_for_as_long_as_that_lasts(world) -> None:
    @world.app.uplink("order")
    async def order(ctx: Context) -> None:
        await ctx.reply("done", "1")

    world.services.is_away = True
    sink = world.start()
    world.send(1, "")
    await world.clock.run_for(600)
    assert world.log.dead == []
    assert sink.counts.retried > 5
    world.services.is_away = False
    await world.clock.run_for(31)
    assert len(world.services.sent_to("device:d-1")) == 1
    assert sink.counts.handled == 1


async def test_a_full_window_pauses_reading_until_there_is_room(world, seen) -> None:
    sink = world.start(window_records=4, read_records=100)
    for device_no in range(1, 5):
        world.send(device_no, "!bad")
    last = world.send(5, "good")
    await world.clock.run_for(0.1)
    assert sink.waiting == 4
    assert (5, "good", 1) not in seen
    await world.clock.run_for(10)
    assert (5, "good", 1) in seen
    await world.clock.run_for(1)
    assert len(world.log.dead) == 4
    assert world.cursor() == last


async def test_one_device_that_fills_the_window_with_failures_does_not_hold_up_the_others(world, seen) -> None:
    world.start(window_records=40, fair_share=4)
    for _ in range(400):
        world.send(1, "!bad")
    world.send(2, "good")
    await world.clock.run_for(5)
    assert (2, "good", 1) in seen
    # Only the last few, when the window had room again, got all their attempts.
    assert max(attempt for _, _, attempt in seen) > 1
    await world.clock.run_for(1_000)
    assert len(world.log.dead) == 400


async def test_a_device_within_its_share_keeps_its_retries_in_a_full_window(world) -> None:
    attempts = []

    @world.app.uplink("order")
    async def order(ctx: Context) -> None:
        attempts.append((ctx.device_no, ctx.attempt))
        raise ValueError

    world.start(window_records=4, fair_share=2)
    for device_no in range(1, 5):
        world.send(device_no, "")
    await world.clock.run_for(10)
    assert {(device_no, 5) for device_no in range(1, 5)} <= set(attempts)


async def test_a_log_that_breaks_for_another_reason_ends_the_run_loudly(world, seen) -> None:
    sink = world.start()
    world.log.breaks_with = ZeroDivisionError()
    world.send(1, "a")
    with pytest.raises(ExceptionGroup) as caught:
        await world.tasks[0]
    assert caught.group_contains(ZeroDivisionError)
    await sink.stop()  # and there is nothing left to stop


async def test_a_sink_runs_once(world) -> None:
    sink: Sink = world.start()
    await world.clock.run_for(0)
    with pytest.raises(RuntimeError, match="once"):
        await sink.run()
    await sink.stop()
    with pytest.raises(RuntimeError, match="once"):
        await sink.run()


async def test_sync_handlers_take_records_in_order_too(world) -> None:
    taken = []
    all_taken = asyncio.Event()
    loop = asyncio.get_running_loop()

    @world.app.uplink("order")
    def order(text: str, ctx: Context) -> None:
        taken.append(text)
        ctx.wait(ctx.reply("got", text))
        if len(taken) == 20:
            loop.call_soon_threadsafe(all_taken.set)

    sink = world.start()
    for n in range(20):
        world.send(1, str(n))
    await all_taken.wait()
    await sink.stop()
    assert taken == [str(n) for n in range(20)]
    assert [sent.payload.decode() for sent in world.services.sent] == taken


async def test_the_span_of_what_would_come_again_is_bounded(world) -> None:
    gate = asyncio.Event()

    @world.app.uplink("order")
    async def order(text: str) -> None:
        if text == "slow":
            await gate.wait()

    sink = world.start(max_span=50, read_records=10)
    world.send(1, "slow")
    for _ in range(200):
        world.send(2, "")
    await world.clock.run_for(1)
    assert sink.span == 50
    assert sink.waiting == 1
    gate.set()
    await world.clock.run_for(1)
    assert world.cursor() == world.log.records[-1].offset


async def test_what_another_reader_took_over_is_not_tried_any_more(world, seen) -> None:
    sink = world.start()
    bad, behind = world.send(1, "!bad"), world.send(1, "behind")
    world.send(2, "other")
    await world.clock.run_for(0)
    assert [text for _, text, _ in seen] == ["!bad", "other"]
    world.log.moved |= {bad, behind}
    await world.clock.run_for(60)
    assert [text for _, text, _ in seen] == ["!bad", "other"]
    assert (sink.counts.moved, sink.waiting, world.log.dead) == (2, 0, [])
    world.send(1, "new")
    await world.clock.run_for(0)
    assert seen[-1] == (1, "new", 1)


# Traces


async def test_calls_for_a_traced_record_are_told_and_what_the_handler_logs_belongs_to_its_trace(world) -> None:
    told, calls = [], []

    @world.app.uplink("order")
    async def order(text: str) -> None:
        call = CALL.get()
        calls.append(None if call is None else call.trace_id)
        if text == "!" and len(calls) == 1:
            raise RuntimeError("secret")

    traces = Traces(ratio=1, tells=[told.append])
    trace = traces.enter(bytes(range(24)))
    world.start(traces)
    world.send(1, "!", trace=trace)
    world.send(1, "untraced")
    world.send(1, "unsampled", trace=Traces().enter(bytes(range(24))))
    await world.clock.run_for(60)
    assert calls == [trace[:16].hex(), trace[:16].hex(), None, trace[:16].hex()]
    assert [(hop.name, hop.is_error, dict(hop.facts)["attempt"]) for hop in told] == [
        ("sink.failed", True, 1),
        ("sink.handled", False, 2),
    ]
    assert {hop.parent for hop in told} == {trace[16:]}
    assert "secret" not in str(told)
