"""The end of the sink: running handlers finish or are cut off, the cursor is written, nothing is lost."""

import asyncio

import pytest

from longwire.application import Context


async def test_a_stop_lets_running_handlers_finish_and_writes_the_cursor(world) -> None:
    gate, begun = asyncio.Event(), []

    @world.app.uplink("order")
    async def order(text: str) -> None:
        begun.append(text)
        await gate.wait()

    sink = world.start()
    first = world.send(1, "running")
    world.send(1, "behind")
    await world.clock.run_for(0)
    stopping = asyncio.create_task(sink.stop())
    await world.clock.run_for(1)
    world.send(2, "too late")
    gate.set()
    await world.clock.run_for(0)
    await stopping
    assert begun == ["running"]
    assert world.cursor() == first
    await world.tasks[0]


async def test_a_stop_cuts_handlers_off_at_its_deadline_and_their_records_come_again(world) -> None:
    begun, ended = [], []

    @world.app.uplink("order")
    async def order(text: str, ctx: Context) -> None:
        begun.append(text)
        if len(begun) == 1:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(text)

    sink = world.start()
    world.send(1, "stuck")
    await world.clock.run_for(0)
    stopping = asyncio.create_task(sink.stop())
    await world.clock.run_for(4.9)
    assert not stopping.done()
    await world.clock.run_for(0.2)
    await stopping
    assert ended == ["stuck"]
    assert world.cursor() == -1
    await world.crash()
    world.start()
    await world.clock.run_for(1)
    assert begun == ["stuck", "stuck"]


@pytest.mark.parametrize("turns", range(10))
async def test_a_stop_at_the_moment_when_the_last_handler_ends_is_a_clean_one(world, turns: int) -> None:
    """Symptom: ExceptionGroup with "Set of Tasks/Futures is empty" from run."""
    gate = asyncio.Event()

    @world.app.uplink("order")
    async def order() -> None:
        await gate.wait()

    sink = world.start()
    last = world.send(1, "")
    await world.clock.run_for(0)
    gate.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    await sink.stop()
    await world.tasks[0]
    assert world.cursor() == last


async def test_a_stop_does_not_wait_for_pauses_between_attempts_or_for_turns(world) -> None:
    gate = asyncio.Event()

    @world.app.uplink("order")
    async def order(text: str) -> None:
        if text == "fails":
            raise ValueError
        await gate.wait()

    sink = world.start(max_calls=1, retry_base_s=30.0)
    world.send(1, "fails")
    await world.clock.run_for(0)
    for device_no in range(2, 6):
        world.send(device_no, "waits")
    await world.clock.run_for(0)
    stopping = asyncio.create_task(sink.stop())
    await world.clock.run_for(0)
    gate.set()
    await world.clock.run_for(0)
    assert stopping.done()
    assert sink.counts.handled == 1
    assert world.log.dead == []


async def test_a_stop_while_the_log_is_away_ends_in_time(world, seen) -> None:
    sink = world.start()
    world.send(1, "a")
    world.log.go_away()
    await world.clock.run_for(1)
    stopping = asyncio.create_task(sink.stop())
    await world.clock.run_for(7)
    assert stopping.done()


async def test_a_flush_that_hangs_at_stop_is_given_up(world, seen) -> None:
    async def hang(consumer: str, offset: int) -> None:
        await asyncio.Event().wait()

    world.log.flush = hang
    sink = world.start()
    world.send(1, "a")
    await world.clock.run_for(1)
    stopping = asyncio.create_task(sink.stop())
    await world.clock.run_for(1.9)
    assert not stopping.done()
    await world.clock.run_for(0.2)
    assert stopping.done()
