"""The push room, the store and a node together: real sockets, real SQLite, time by hand."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from house import HANG_GUARD_S, House
from raw_peer import Peer

from longwire.application import Longwire
from longwire.ids import message_id_text, new_message_id
from longwire.limits import Limits
from longwire.push.audience import Audiences
from longwire.push.check import Check
from longwire.push.messages import Messages, Wanted
from longwire.push.pushes import Pushes, PushOrder, PushView
from longwire.push.schedule import Schedule
from longwire.push.worker import Worker
from longwire.push_model import Audience, PushStats, PushStatus, RecipientState
from longwire.reasons import Status
from longwire.wire.packets import Push

EVERYONE = Audience(everyone=True)


class Room:
    """A node with everything that sends pushes through it; the worker runs, the schedule is asked to look."""

    def __init__(self, house: House) -> None:
        self.house = house
        sets, store, node, clock, limits = house.sets, house.pushes, house.node, house.clock, house.limits
        audiences = Audiences(sets, store, clock, limits)
        routes, registry = house.routes, house.registry
        self.pushes = Pushes(store, audiences, house.accounts, routes, registry, node, clock, limits)
        self.messages = Messages(house.accounts, sets, store, node, clock, limits)
        self.schedule = Schedule(store, store, audiences, node, clock, clock.sleep)
        self.check = Check(store, clock, clock.sleep)
        self.worker = Worker("w", store, routes, registry, node, clock, sleep=clock.sleep)

    async def push(self, audience: Audience = EVERYONE, **options: object) -> PushView:
        order = PushOrder(audience, "news", b'"hello"', **options)  # type: ignore[arg-type]
        return await self.pushes.create(order, lambda _push, _resolved: None)

    async def stats(self, view: PushView) -> PushStats:
        """The numbers once what the node has gathered is stored; they add up."""
        self.house.turn_wheel()
        await self.house.settled()
        assert await self.check.look() == []
        return (await self.pushes.find(view.push.new.push_id)).push.stats

    async def until(self, view: PushView, status: PushStatus) -> None:
        async with asyncio.timeout(HANG_GUARD_S):
            while (found := await self.pushes.find(view.push.new.push_id)).push.status is not status:
                self.house.turn_wheel()
                await asyncio.sleep(0.002)
        assert found.push.status is status

    async def pass_time(self, seconds: float) -> None:
        """Moves time on in small steps, and lets worker, store and node keep up."""
        while seconds > 0:
            await self.house.clock.run_for(0.05)
            seconds -= 0.05
            self.house.turn_wheel()
            await self.house.database.write(lambda _connection: None)
            await self.house.database.read(lambda _connection: None)
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def room_in(folder: Path, limits: Limits) -> AsyncIterator[Room]:
    house = await House(folder, limits, Longwire()).start()
    room = Room(house)
    working = asyncio.create_task(room.worker.run())
    try:
        yield room
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await house.stop()


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    async with room_in(tmp_path, Limits(small_group=2)) as room:
        yield room


async def got(peer: Peer) -> Push:
    """The next push, acknowledged."""
    frame = await peer.push()
    assert isinstance(frame.packet, Push)
    peer.ack(frame.correlation)
    return frame.packet


async def test_a_push_reaches_who_is_there_and_who_comes_back_and_is_completed(room) -> None:
    house = room.house
    here = [await house.device(f"d-{n}") for n in range(3)]
    await house.register("away")
    view = await room.push()
    for peer in here:
        push = await got(peer)
        assert (push.kind, push.payload, push.message_id) == ("news", b'"hello"', view.push.new.push_id)
    await room.until(view, PushStatus.DISPATCHED)
    await house.hears_nothing(*here)
    stats = await room.stats(view)
    assert (stats.targeted, stats.written, stats.acked, stats.pending) == (4, 3, 3, 1)
    late = await house.device("away")
    assert (await got(late)).message_id == view.push.new.push_id
    await room.until(view, PushStatus.COMPLETED)
    stats = await room.stats(view)
    assert (stats.acked, stats.pending) == (4, 0)
    late.close()
    again = await house.device("away")
    await house.hears_nothing(again)


@pytest.mark.parametrize(("after_s", "arrives"), [(4, True), (6, False)])
async def test_a_ttl_of_5_s_arrives_at_4_s_and_is_expired_at_6_s(room, after_s, arrives) -> None:
    await room.house.register("d-1")
    view = await room.push(ttl_s=5)
    await room.until(view, PushStatus.DISPATCHED)
    room.house.clock.advance(after_s)
    peer = await room.house.device("d-1")
    if arrives:
        await got(peer)
        await room.until(view, PushStatus.COMPLETED)
    else:
        await room.house.hears_nothing(peer)
    await room.schedule.look()
    await room.until(view, PushStatus.COMPLETED)
    stats = await room.stats(view)
    assert (stats.acked, stats.expired) == ((1, 0) if arrives else (0, 1))


async def test_a_ttl_of_0_is_not_caught_up_with(room) -> None:
    here = await room.house.device("d-1")
    await room.house.register("d-2")
    view = await room.push(ttl_s=0)
    await got(here)
    late = await room.house.device("d-2")
    await room.house.hears_nothing(late)
    await room.until(view, PushStatus.COMPLETED)
    stats = await room.stats(view)
    assert (stats.acked, stats.expired) == (1, 1)


async def test_cancelled_at_half_nobody_gets_it_any_more_and_the_counts_are_exact(room) -> None:
    peers = {f"d-{n:02}": await room.house.device(f"d-{n:02}") for n in range(40)}
    view = await room.push(rate_per_s=20)
    await room.pass_time(0.9)
    view = await room.pushes.cancel(view.push.new.push_id)
    assert view.push.status is PushStatus.CANCELED
    for peer in peers.values():
        await peer.ping()
    reached = [name for name, peer in peers.items() if peer.frames]
    assert 10 <= len(reached) <= 30
    await room.pass_time(3)
    for name, peer in peers.items():
        await peer.ping()
        assert len(peer.frames) == (name in reached)
    late = await room.house.device("d-39")
    await room.house.hears_nothing(late)
    stats = await room.stats(view)
    assert (stats.canceled, stats.pending) == (40 - len(reached), len(reached))
    for name in reached:
        await got(peers[name])
        await peers[name].ping()
    stats = await room.stats(view)
    assert (stats.canceled, stats.acked, stats.pending) == (40 - len(reached), len(reached), 0)


async def test_withdrawn_it_is_taken_back_from_those_who_have_it_and_from_nobody_else(room) -> None:
    house = room.house
    acked, written = await house.device("acked"), await house.device("written")
    await house.register("away", "gone")
    view = await room.push()
    await got(acked)
    await written.push()
    await acked.ping()
    view = await room.pushes.withdraw(view.push.new.push_id)
    text = message_id_text(view.push.new.push_id)
    for peer in (acked, written):
        notice = await got(peer)
        assert (notice.kind, notice.sender) == ("longwire.withdrawn", "")
        assert notice.payload == b'{"message_id":"%s"}' % text.encode()
    away = await house.device("away")
    await house.hears_nothing(away)
    stats = await room.stats(view)
    assert (stats.acked, stats.withdrawn, stats.pending) == (1, 3, 0)


async def test_who_came_while_it_was_paused_gets_it_when_it_goes_on(room) -> None:
    house = room.house
    peers = [await house.device(f"d-{n}") for n in range(8)]
    await house.register("late")
    view = await room.push(rate_per_s=4)
    await room.pass_time(0.3)
    await room.pushes.pause(view.push.new.push_id)
    await room.pass_time(0.5)
    late = await house.device("late")
    await house.hears_nothing(late)
    await room.pushes.set_rate(view.push.new.push_id, None)
    await room.pushes.resume(view.push.new.push_id)
    for peer in (*peers, late):
        await got(peer)
    await room.until(view, PushStatus.COMPLETED)
    await house.hears_nothing(*peers, late)


async def test_an_offline_device_that_missed_it_gets_the_retry(room) -> None:
    await room.house.register("d-1", "d-2")
    view = await room.push(ttl_s=5)
    room.house.clock.advance(6)
    await room.schedule.look()
    peer = await room.house.device("d-1")
    await room.house.hears_nothing(peer)
    states = frozenset({RecipientState.EXPIRED})
    again = await room.pushes.retry(view.push.new.push_id, states, lambda _push, _resolved: None)
    assert (await got(peer)).message_id == again.push.new.push_id


async def test_messages_to_a_device_a_user_and_groups_of_both_sizes_arrive(room) -> None:
    house = room.house
    await house.register("a-1", "a-2", user="ann")
    first, second, other = [await house.device(name) for name in ("a-1", "a-2", "b-1")]
    await house.group("pair", "b-1", "a-1")
    await house.group("team", "b-1", users=("ann",))

    async def send(to: str) -> None:
        assert await room.messages.status(Wanted(to, "chat", b'"hi"', new_message_id())) is Status.OK

    await send("device:a-1")
    assert (await got(first)).to == ""
    await send("user:ann")
    assert [(await got(peer)).to for peer in (first, second)] == ["user:ann"] * 2
    await send("group:pair")
    assert [(await got(peer)).to for peer in (first, other)] == ["group:pair"] * 2
    await send("group:team")
    assert [(await got(peer)).to for peer in (first, second, other)] == ["group:team"] * 3
    await house.hears_nothing(first, second, other)


async def test_a_message_waits_for_its_acknowledgement(room) -> None:
    peer = await room.house.device("d-1")
    sending = asyncio.create_task(
        room.messages.send("device:d-1", "chat", b"", message_id=new_message_id(), wait_ack_s=HANG_GUARD_S)
    )
    await got(peer)
    sent = await sending
    assert (sent.status, sent.delivered_to, sent.is_acked) == (Status.OK, ("d-1",), True)
    sent = await room.messages.send("device:d-1", "chat", b"", message_id=new_message_id(), wait_ack_s=0.01)
    assert sent.is_acked is False
    await room.house.register("away")
    sent = await room.messages.send("device:away", "chat", b"", message_id=new_message_id(), ttl_s=0)
    assert sent.status is Status.OFFLINE
