"""Live pushes for devices that come back, drain, or forgot to acknowledge; the window they share (PROTOCOL §2)."""

import asyncio

import pytest
from house import HANG_GUARD_S
from pyroaring import BitMap

from longwire.adapters.sql.push_waiting import SqlPushWaiting
from longwire.errors import StoreUnavailable


class Watched(SqlPushWaiting):
    """Counts what it is asked, and can be away or slow."""

    queries = 0
    is_away = False
    gate: asyncio.Event | None = None

    async def waiting(self, queries, now_ms):
        self.queries += 1
        if self.is_away:
            raise StoreUnavailable("away")
        found = await super().waiting(queries, now_ms)
        if self.gate is not None:
            await self.gate.wait()
        return found


@pytest.fixture
async def watched(houses):
    house = houses()
    house.waiting.__class__ = Watched
    return await house.start()


def payloads(frames) -> list[bytes]:
    return [frame.packet.payload for frame in frames]


async def pushes_for(house, device_id: str, count: int) -> None:
    for n in range(count):
        await house.push(device_id, payload=b"%d" % n)


async def test_a_device_that_comes_back_gets_what_it_has_not_acknowledged_oldest_first(house, flavour) -> None:
    await house.register("d-1")
    await pushes_for(house, "d-1", 20)
    peer = await house.device("d-1", flavour)
    frames = await peer.pushes(20)
    assert payloads(frames) == [b"%d" % n for n in range(20)]
    assert all(frame.wants_receipt and frame.correlation % 2 for frame in frames)
    peer.ack(*(frame.correlation for frame in frames[:15]))
    await peer.ping()
    await house.pass_time(0.5)
    await house.settled()
    again = await house.device("d-1", flavour)
    assert payloads(await again.pushes(5)) == [b"%d" % n for n in range(15, 20)]
    await house.hears_nothing(again)


async def test_what_was_written_on_coming_back_is_told_to_the_store(house) -> None:
    await house.register("d-1")
    push = await house.push("d-1")
    assert (await house.stats(push)).written == 0
    peer = await house.device("d-1")
    frame = await peer.push()
    await house.pass_time(0.5)
    await house.settled()
    assert (await house.stats(push)).written == 1
    house.clock.advance(3)
    peer.ack(frame.correlation)
    await peer.ping()
    await house.pass_time(0.5)
    await house.settled()
    found = await house.pushes.find(push.new.push_id, house.clock.now_ms())
    assert found.stats.acked == 1
    assert found.latency_ms[0] == pytest.approx(3_500, rel=0.09)


@pytest.mark.parametrize("window", [1, 4, 64])
async def test_the_window_is_shared_with_one_to_one(houses, window) -> None:
    house = await houses(window=window).start()
    await house.register("d-1")
    await pushes_for(house, "d-1", 70)
    sender = await house.device("s-1")
    for n in range(70):
        assert (await sender.tell("device:d-1", b"m%d" % n)).status == 0
    peer = await house.device("d-1")
    got: list[bytes] = []
    unacked: list[int] = []
    while len(got) < 140:
        await house.settled()
        await peer.ping()
        frames = list(peer.frames)
        peer.frames.clear()
        got += payloads(frames)
        unacked += [frame.correlation for frame in frames]
        assert len(unacked) <= window
        assert unacked, f"nothing comes after {len(got)} of 140"
        half = unacked[: max(1, len(unacked) // 2)]
        peer.ack(*half)
        unacked = unacked[len(half) :]
    assert [p for p in got if p.startswith(b"m")] == [b"m%d" % n for n in range(70)]
    assert [p for p in got if not p.startswith(b"m")] == [b"%d" % n for n in range(70)]


async def test_a_live_push_does_not_wait_for_the_window(houses) -> None:
    house = await houses(window=2).start()
    await house.register("d-1")
    await pushes_for(house, "d-1", 3)
    peer = await house.device("d-1")
    await peer.pushes(2)
    await house.settled()
    await house.push("d-1", payload=b"live")
    assert (await peer.push()).packet.payload == b"live"


async def test_no_query_where_the_hint_says_that_nothing_waits(watched) -> None:
    await watched.device("d-1")
    await watched.settled()
    assert watched.waiting.queries == 0


async def test_a_thousand_live_pushes_that_were_acknowledged_cost_a_connect_nothing(watched) -> None:
    house = watched
    peer = await house.device("d-1")
    await house.register("away")
    for _ in range(50):
        await house.push("d-1", "away")
    peer.ack(*(frame.correlation for frame in await peer.pushes(50)))
    await peer.ping()
    await house.pass_time(0.5)
    await house.settled()
    await house.online_hints()
    again = await house.device("d-1")
    await house.hears_nothing(again)
    assert house.waiting.queries == 0


async def test_a_clogged_device_is_left_out_and_gets_the_push_when_it_has_drained(houses, flavour) -> None:
    house = await houses(high_water_bytes=16_384).start()
    peer = await house.peer(flavour, limit=1 << 12, receive_buffer=4_096)
    await house.register("d-1")
    await peer.connect("d-1")
    sender = await house.device("s-1")
    session = house.node.hub.find(house.no_of("d-1"))
    while not session.connection.is_clogged:
        for _ in range(20):
            sender.relay("device:d-1", b'"%b"' % (b"x" * 8_000))
        await sender.ping()
    push = await house.push("d-1", payload=b'"at last"')
    assert (await house.stats(push)).written == 0
    assert house.node.counters.broadcast_skipped == 1
    frame = await peer.push()
    while frame.packet.payload != b'"at last"':
        frame = await peer.push()
    peer.ack(frame.correlation)
    await peer.ping()
    async with asyncio.timeout(HANG_GUARD_S):
        while not (await house.stats(push)).acked:
            await house.pass_time(0.5)
            await house.settled()


async def test_what_came_back_is_not_acknowledged_is_repeated_under_its_handle(house, flavour) -> None:
    await house.register("d-1")
    await house.push("d-1")
    peer = await house.device("d-1", flavour, heartbeat_s=900)
    first = await peer.push()
    await house.pass_time(31)
    again = await peer.push()
    assert (again.correlation, again.packet) == (first.correlation, first.packet)
    assert house.node.counters.repeated == 1
    peer.ack(again.correlation)
    await peer.ping()
    await house.pass_time(65)
    await house.hears_nothing(peer)


async def test_a_live_push_that_is_not_acknowledged_is_repeated_within_a_minute(house, flavour) -> None:
    peer, quick = await house.device("d-1", flavour, heartbeat_s=900), await house.device("d-2", heartbeat_s=900)
    push = await house.push("d-1", "d-2")
    first = await peer.push()
    quick.ack((await quick.push()).correlation)
    await quick.ping()
    await house.pass_time(29)
    await house.hears_nothing(peer)
    await house.pass_time(62)
    await house.settled()
    again = await peer.push()
    assert (again.correlation, again.packet) == (first.correlation, first.packet)
    peer.frames.clear()
    peer.ack(first.correlation)
    await peer.ping()
    await house.pass_time(90)
    await house.hears_nothing(peer, quick)
    assert (await house.stats(push)).acked == 2


async def test_the_safety_net_finds_what_was_missed_and_opens_no_window_for_what_was_just_written(house) -> None:
    peer = await house.device("d-1")
    fresh = await house.device("d-2")
    await house.push("d-1", is_sent=False)
    await house.push("d-2")
    await fresh.push()
    house.node._catch_up.look_after()
    await house.settled()
    await peer.push()
    assert house.node.hub.find(house.no_of("d-2")).window is None
    await house.hears_nothing(fresh)


async def test_after_a_pause_devices_are_looked_at(house) -> None:
    peer = await house.device("d-1")
    await house.push("d-1", is_sent=False)
    await house.node.catch_up(BitMap([house.no_of("d-1")]))
    await peer.push()


async def test_a_push_that_ends_while_it_is_read_is_not_written(watched) -> None:
    house = watched
    await house.register("d-1")
    push = await house.push("d-1")
    house.waiting.gate = asyncio.Event()
    peer = await house.device("d-1")
    await house.until(lambda: house.waiting.queries)
    await house.node.end_push(push.push_no)
    house.waiting.gate.set()
    await house.hears_nothing(peer)


async def test_a_push_that_ended_is_not_repeated_and_leaves_the_window(house) -> None:
    await house.register("d-1")
    push = await house.push("d-1")
    peer = await house.device("d-1", heartbeat_s=900)
    await peer.push()
    await house.pushes.cancel(push.push_no, house.clock.now_ms())
    await house.node.end_push(push.push_no)
    await house.pass_time(100)
    await house.hears_nothing(peer)
    # A look for what waits may be under way just now; it opens a window, which closes with the next.
    async with asyncio.timeout(HANG_GUARD_S):
        while house.node.hub.find(house.no_of("d-1")).window is not None:
            await house.pass_time(1)
            await asyncio.sleep(0.001)


async def test_a_take_over_while_it_catches_up_gives_the_push_to_the_new_session(watched) -> None:
    house = watched
    await house.register("d-1")
    await house.push("d-1")
    gate = house.waiting.gate = asyncio.Event()
    await house.device("d-1")
    await house.until(lambda: house.waiting.queries)
    again = await house.device("d-1")
    house.waiting.gate = None
    gate.set()
    await again.push()
    await house.hears_nothing(again)


async def test_a_push_of_no_time_to_live_is_not_for_those_who_come_later(house) -> None:
    here = await house.device("here")
    await house.register("away")
    push = await house.push("here", "away", ttl_s=0)
    await here.push()
    away = await house.device("away")
    await house.hears_nothing(away)
    stats = await house.stats(push)
    assert (stats.targeted, stats.expired, stats.pending) == (2, 1, 1)


async def test_while_the_store_is_away_a_device_keeps_waiting(watched) -> None:
    house = watched
    await house.register("d-1")
    await house.push("d-1")
    house.waiting.is_away = True
    peer = await house.device("d-1")
    await house.until(lambda: house.waiting.queries)
    house.waiting.is_away = False
    await peer.push()
