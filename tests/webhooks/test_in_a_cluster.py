"""Webhooks of a cluster: any process changes them, and the one that leads serves what it finds."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from webhook_world import Receiver, World

from longwire.accounts.refusals import Refused
from longwire.adapters.sql.uplink import SqlUplinkLog
from longwire.webhooks import Endpoints, PostSettings


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = await World(tmp_path).start()
    yield world
    await world.stop()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = await Receiver().start()
    yield receiver
    await receiver.stop()


@pytest.fixture
async def process(world: World) -> AsyncIterator[Callable[..., Endpoints]]:
    """Makes the endpoints of one process, which leads while ``leads`` says so."""
    made: list[Endpoints] = []

    def make(leads: Callable[[], bool] = lambda: False, uplink: SqlUplinkLog | None = None) -> Endpoints:
        posting = PostSettings(allows_private=True, timeout_s=5.0)
        made.append(
            Endpoints(
                world.store,
                world.events,
                uplink or world.uplink,
                world.clock,
                posting,
                sleep=world.clock.sleep,
                leads=leads,
            )
        )
        return made[-1]

    yield make
    for endpoints in made:
        await endpoints.stop()


async def test_what_one_process_makes_another_that_leads_serves(world, receiver, process) -> None:
    api, sink, other = process(), process(lambda: True), process()
    state = await api.add(receiver.url(), ["push.*"])
    await sink.look()
    await other.look()
    await world.note(1, 2)
    await world.until(lambda: len(receiver.told) == 2)
    await api.change(state.webhook.webhook_no, is_enabled=False)
    await sink.look()
    await world.note(3)
    await api.change(state.webhook.webhook_no, is_enabled=True)
    await sink.look()
    await world.until(lambda: len(receiver.told) == 3)
    await api.delete(state.webhook.webhook_no)
    await sink.look()
    assert await api.states() == []
    with pytest.raises(Refused):
        await api.change(state.webhook.webhook_no, is_enabled=True)


async def test_who_takes_over_goes_on_where_the_one_before_stopped(world, receiver, process) -> None:
    leader = [0]
    sinks = [process(lambda at=at: leader == [at]) for at in range(2)]
    state = await sinks[0].add(receiver.url(), ["push.*"])
    for turn in range(4):
        leader[0] = turn % 2
        for sink in sinks:
            await sink.look()
        await world.note(turn)
        await world.until(lambda turn=turn: len(receiver.told) == turn + 1)
        await world.idle(state.webhook.webhook_no)
    assert [event["n"] for event in receiver.told] == [0, 1, 2, 3]


async def test_success_and_failure_are_no_change_of_what_is_served(world, receiver, process) -> None:
    sink = process(lambda: True)
    await sink.add(receiver.url(), ["push.*"])
    await sink.look()
    for number in range(3):
        await world.note(number)
        await world.until(lambda number=number: len(receiver.told) == number + 1, step_s=0.1)
        await sink.look()
    assert receiver.connections == 1


async def test_who_leads_again_does_not_repeat_what_another_delivered_meanwhile(world, receiver, process) -> None:
    leader = [0]
    logs = [SqlUplinkLog(world.database, world.clock, world.events, poll_s=0.02) for _ in range(2)]
    sinks = [process(lambda at=at: leader == [at], uplink=log) for at, log in enumerate(logs)]
    await sinks[0].add(receiver.url(), ["uplink"])
    for turn in range(4):
        leader[0] = turn % 2
        for sink in sinks:
            await sink.look()
        world.send(turn)
        await world.until(lambda turn=turn: len(receiver.told) >= turn + 1, step_s=0.1)
        async with asyncio.timeout(10):
            while await world.count('uplink_cursors WHERE "offset" > ' + str(turn)) == 0:
                await asyncio.sleep(0.001)
    assert [int(event["message_id"][4:], 16) for event in receiver.told] == [0, 1, 2, 3]
