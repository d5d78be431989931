"""PUSH and ACK: what waits, catches up, is repeated, replaced, expires or is missed (PROTOCOL §2)."""

import asyncio

import pytest
from raw_peer import NATIVE

from longwire.adapters.sql.messages import SqlMessageStore
from longwire.errors import StoreUnavailable
from longwire.ids import new_message_id
from longwire.reasons import CloseCode
from longwire.wire.packets import Ack, Connect, Connected, Ping, Send, Sent


class AwayMessages(SqlMessageStore):
    """Cannot be asked while it is away."""

    is_away = False
    answers_nothing_waits = False
    gate: asyncio.Event | None = None
    asked_gate: asyncio.Event | None = None

    async def waiting(self, queries, now_ms):
        if self.is_away:
            raise StoreUnavailable("away")
        found = await super().waiting(queries, now_ms)
        if self.gate is not None:
            await self.gate.wait()
        return found

    async def who_may_wait(self, device_nos):
        if self.is_away:
            raise StoreUnavailable("away")
        found = set() if self.answers_nothing_waits else await super().who_may_wait(device_nos)
        if self.asked_gate is not None:
            await self.asked_gate.wait()
        return found


async def away_house(houses, **limits):
    house = houses(**limits)
    house.messages = AwayMessages(house.database, house.clock, house.limits.max_inbox)
    house.with_engines(messages=house.messages)
    return await house.start()


async def fill(house, target: str, count: int, *, start: int = 0) -> None:
    """Messages of ``s-1`` with a number each."""
    sender = await house.device("s-1")
    for n in range(start, start + count):
        assert (await sender.tell(f"device:{target}", b"%d" % n)).status == 0


def numbers(frames) -> list[int]:
    return [int(frame.packet.payload) for frame in frames]


# Catching up


async def test_what_waits_comes_oldest_first(house, flavour) -> None:
    await house.register("d-1")
    await fill(house, "d-1", 20)
    peer = await house.device("d-1", flavour)
    assert numbers(await peer.pushes(20)) == list(range(20))
    await house.hears_nothing(peer)


@pytest.mark.parametrize("window", [1, 2, 5, 16, 64])
async def test_at_most_a_window_is_unacknowledged_and_the_rest_follows_the_acks_in_order(houses, window) -> None:
    house = await houses(window=window).start()
    await house.register("d-1")
    await fill(house, "d-1", 150)
    peer = await house.device("d-1")
    got: list[int] = []
    unacked: list[int] = []
    most = 0
    while len(got) < 150:
        await house.settled()
        await peer.ping()
        frames = list(peer.frames)
        peer.frames.clear()
        unacked += [frame.correlation for frame in frames]
        got += numbers(frames)
        most = max(most, len(unacked))
        assert len(unacked) <= window
        assert unacked, f"nothing comes after {len(got)} of 150"
        half = unacked[: max(1, len(unacked) // 2)]
        peer.ack(*half)
        unacked = unacked[len(half) :]
    assert got == list(range(150))
    assert most > window // 2


async def test_the_window_holds_for_live_messages_too(houses) -> None:
    house = await houses(window=4).start()
    peer = await house.device("d-1")
    await fill(house, "d-1", 10)
    await house.settled()
    await peer.ping()
    first = list(peer.frames)
    peer.frames.clear()
    assert numbers(first) == [0, 1, 2, 3]
    peer.ack(*(frame.correlation for frame in first))
    second = await peer.pushes(4)
    assert numbers(second) == [4, 5, 6, 7]
    peer.ack(*(frame.correlation for frame in second))
    assert numbers(await peer.pushes(2)) == [8, 9]
    await house.hears_nothing(peer)


async def test_new_messages_never_overtake_what_waits(houses) -> None:
    house = await away_house(houses, window=8)
    await house.register("d-1")
    await fill(house, "d-1", 30)
    house.messages.gate = asyncio.Event()
    peer = await house.device("d-1")
    sender = await house.device("s-1")
    for n in range(30, 60):
        sender.send(Send(new_message_id(), "device:d-1", "chat", b"%d" % n), n, receipt=True)
        if n == 45:
            house.messages.gate.set()
    got = []
    while len(got) < 60:
        frame = await peer.push()
        got.append(int(frame.packet.payload))
        peer.ack(frame.correlation)
    assert got == list(range(60))
    await house.hears_nothing(peer)


async def test_a_message_committed_while_the_store_is_asked_is_not_lost(houses) -> None:
    house = await away_house(houses)
    await house.register("d-1")
    await fill(house, "d-1", 1)
    house.messages.gate = asyncio.Event()
    peer = await house.device("d-1")
    await fill(house, "d-1", 1, start=1)
    house.messages.gate.set()
    assert numbers(await peer.pushes(2)) == [0, 1]
    await house.hears_nothing(peer)


async def test_messages_committed_before_it_is_known_if_anything_waits_come_in_order(houses) -> None:
    house = await away_house(houses)
    sender = await house.device("s-1")
    house.messages.asked_gate = asyncio.Event()
    peer = await house.device("d-1")
    for n in range(2):
        assert (await sender.tell("device:d-1", b"%d" % n)).status == 0
    await peer.ping()
    assert not peer.frames
    house.messages.asked_gate.set()
    assert numbers(await peer.pushes(2)) == [0, 1]
    await house.hears_nothing(peer)


async def test_a_new_session_gets_again_what_was_not_acknowledged(house, flavour) -> None:
    first = await house.device("d-1", flavour)
    await fill(house, "d-1", 3)
    frames = await first.pushes(3)
    first.ack(frames[1].correlation)
    await house.until(lambda: house.node.counters.acks == 1)
    await house.settled()
    second = await house.device("d-1", flavour)
    again = await second.pushes(2)
    assert numbers(again) == [0, 2]
    assert {f.correlation for f in again}.isdisjoint(f.correlation for f in frames)
    assert again[0].packet == frames[0].packet
    await house.hears_nothing(second)


async def test_a_large_inbox_does_not_make_a_slow_reader_a_slow_consumer(houses) -> None:
    house = await houses(high_water_bytes=20_000, max_unsent_bytes=200_000, window=1_000).start()
    await house.register("d-1")
    sender = await house.device("s-1")
    for _ in range(120):
        assert (await sender.tell("device:d-1", b"x" * 60_000)).status == 0
    peer = await house.peer(receive_buffer=4_096)
    peer.send(Connect("t-d-1", "d-1"), 1)
    await house.until(lambda: house.node.hub.find_by_id("d-1") is not None)
    peer.writer.transport.pause_reading()
    connection = house.node.hub.find_by_id("d-1").connection
    # Everything that goes is written; then it reads one by one.
    await house.settled()
    peer.writer.transport.resume_reading()
    await peer.get(Connected)
    for _ in range(120):
        frame = await peer.push()
        assert len(frame.packet.payload) == 60_000
        peer.ack(frame.correlation)
    assert not connection.is_closing
    assert not house.node.counters.closes


# Acknowledgements


async def test_one_ack_may_name_many_handles(house, flavour) -> None:
    peer = await house.device("d-1", flavour)
    await fill(house, "d-1", 5)
    handles = [frame.correlation for frame in await peer.pushes(5)]
    peer.send(Ack(handles[1:]), handles[0])
    await house.until(lambda: house.node.counters.acks == 5)
    await house.settled()
    assert await house.inbox("d-1") == []
    assert house.node.counters.stray_acks == 0


async def test_an_ack_of_what_was_not_written_to_this_device_is_ignored_and_counted(house) -> None:
    one, two = await house.device("d-1"), await house.device("d-2")
    await fill(house, "d-1", 1)
    await fill(house, "d-2", 1)
    (mine,), (theirs,) = await one.pushes(1), await two.pushes(1)
    one.ack(theirs.correlation, 0, 0xFFFF_FFFF, 12345, -1, 1 << 62)
    await one.ping()
    await house.settled()
    assert house.node.counters.stray_acks == 6
    assert len(await house.inbox("d-2")) == 1
    one.ack(mine.correlation, mine.correlation)
    await one.ping()
    assert (house.node.counters.acks, house.node.counters.stray_acks) == (1, 7)


async def test_an_ack_on_a_new_connection_for_an_old_handle_is_ignored(house) -> None:
    first = await house.device("d-1")
    await fill(house, "d-1", 1)
    (old,) = await first.pushes(1)
    second = await house.device("d-1")
    (new,) = await second.pushes(1)
    second.ack(old.correlation)
    await second.ping()
    await house.settled()
    assert len(await house.inbox("d-1")) == 1
    second.ack(new.correlation)
    await second.ping()
    await house.settled()
    assert await house.inbox("d-1") == []


async def test_handles_are_never_0_nor_one_that_is_in_use(house) -> None:
    peer = await house.device("d-1")
    house.node._delivery._handle = 0xFFFF_FFFC
    await fill(house, "d-1", 3)
    handles = [frame.correlation for frame in await peer.pushes(3)]
    assert 0 not in handles
    house.node._delivery._handle = handles[0] - 2 & 0xFFFF_FFFF
    await fill(house, "d-1", 3, start=3)
    handles += [frame.correlation for frame in await peer.pushes(3)]
    assert len(set(handles)) == 6


# Repeats


async def test_what_is_not_acknowledged_is_repeated_after_30_seconds_on_the_same_connection(house, flavour) -> None:
    peer = await house.device("d-1", flavour, heartbeat_s=900)
    await fill(house, "d-1", 2)
    first, second = await peer.pushes(2)
    peer.ack(first.correlation)
    await house.hears_nothing(peer)
    await house.pass_time(29)
    await house.hears_nothing(peer)
    await house.pass_time(2)
    again = await peer.push()
    assert again == second
    await house.hears_nothing(peer)
    await house.pass_time(31)
    assert await peer.push() == second
    peer.ack(second.correlation)
    await house.hears_nothing(peer)
    await house.pass_time(65)
    await house.hears_nothing(peer)
    assert await house.inbox("d-1") == []
    assert house.node.counters.repeated == 2


async def test_what_expires_while_it_is_not_acknowledged_is_not_repeated_and_makes_room(houses) -> None:
    house = await houses(window=2).start()
    peer = await house.device("d-1", heartbeat_s=900)
    sender = await house.device("s-1", heartbeat_s=900)
    for n in range(4):
        assert (await sender.tell("device:d-1", b"%d" % n, ttl_s=20 if n < 2 else 600)).status == 0
    assert numbers(await peer.pushes(2)) == [0, 1]
    await house.hears_nothing(peer)
    await house.pass_time(31)
    assert numbers(await peer.pushes(2)) == [2, 3]
    await house.hears_nothing(peer)


async def test_a_message_that_expires_in_the_inbox_is_not_delivered_nor_counted_as_missed(house) -> None:
    await house.register("d-1")
    sender = await house.device("s-1", heartbeat_s=900)
    assert (await sender.tell("device:d-1", b"1", ttl_s=10)).status == 0
    assert (await sender.tell("device:d-1", b"2", ttl_s=100)).status == 0
    await house.pass_time(11)
    peer = await house.peer()
    assert (await peer.connect("d-1")).missed == 0
    assert numbers(await peer.pushes(1)) == [2]
    await house.hears_nothing(peer)


async def test_the_default_ttl_is_the_nodes(houses) -> None:
    house = await houses(default_ttl_s=60).start()
    await house.register("d-1")
    await fill(house, "d-1", 1)
    await house.pass_time(61)
    await house.hears_nothing(await house.device("d-1"))


# Collapse keys


async def test_a_collapse_key_leaves_the_newest_for_who_comes_back(house, flavour) -> None:
    await house.register("d-1")
    sender = await house.device("s-1", flavour)
    for n, key in enumerate(("k", "", "k", "l", "k")):
        assert (await sender.tell("device:d-1", b"%d" % n, collapse_key=key)).status == 0
    peer = await house.peer(flavour)
    assert (await peer.connect("d-1")).missed == 0
    assert numbers(await peer.pushes(3)) == [1, 3, 4]
    await house.hears_nothing(peer)


async def test_collapsing_within_one_commit_delivers_the_newest_only(house) -> None:
    peer = await house.device("d-1")
    sender = await house.device("s-1")
    data = b"".join(
        sender.encode(Send(new_message_id(), "device:d-1", "c", b"%d" % n, -1, "k"), n, receipt=True) for n in range(9)
    )
    sender.raw(data)
    assert [(await sender.next()).packet.status for _ in range(9)] == [0] * 9
    await house.settled()
    await peer.ping()
    got = numbers(peer.frames)
    assert got[-1] == 8
    assert got == sorted(got)
    assert len(await house.inbox("d-1")) == 1


async def test_an_ack_of_the_replaced_ones_handle_does_not_remove_the_new_one(house) -> None:
    peer = await house.device("d-1", heartbeat_s=900)
    sender = await house.device("s-1", heartbeat_s=900)
    await sender.tell("device:d-1", b"1", collapse_key="k")
    old = await peer.push()
    await sender.tell("device:d-1", b"2", collapse_key="k")
    new = await peer.push()
    assert new.correlation != old.correlation
    peer.ack(old.correlation)
    await peer.ping()
    await house.settled()
    assert len(await house.inbox("d-1")) == 1
    await house.pass_time(31)
    assert (await peer.push()) == new
    peer.ack(new.correlation)
    await peer.ping()
    await house.settled()
    assert await house.inbox("d-1") == []


async def test_what_was_replaced_is_not_repeated(house) -> None:
    peer = await house.device("d-1", heartbeat_s=900)
    sender = await house.device("s-1", heartbeat_s=900)
    for payload in (b"1", b"2"):
        await sender.tell("device:d-1", payload, collapse_key="k")
    await peer.pushes(2)
    await house.pass_time(31)
    assert numbers(await peer.pushes(1)) == [2]
    await house.hears_nothing(peer)


# The bound


async def test_a_full_inbox_of_an_online_device_answers_14_and_loses_nothing(houses, flavour) -> None:
    house = await houses(max_inbox=5).start()
    peer = await house.device("d-1", flavour)
    sender = await house.device("s-1", flavour)
    answers = [await sender.tell("device:d-1", b"%d" % n) for n in range(8)]
    assert [a.status for a in answers] == [0] * 5 + [14] * 3
    assert all(a.retry_after_ms > 0 for a in answers[5:])
    frames = await peer.pushes(5)
    assert numbers(frames) == [0, 1, 2, 3, 4]
    await house.hears_nothing(peer)
    peer.ack(frames[0].correlation)
    await house.until(lambda: house.node.counters.acks == 1)
    assert (await sender.tell("device:d-1", b"9")).status == 0
    assert (await sender.tell("device:d-1", b"10")).status == 14
    assert numbers(await peer.pushes(1)) == [9]


async def test_a_message_refused_as_overloaded_is_taken_when_it_is_sent_again(houses) -> None:
    house = await houses(max_inbox=1).start()
    peer = await house.device("d-1")
    sender = await house.device("s-1")
    assert (await sender.tell("device:d-1", b"1")).status == 0
    message_id = new_message_id()
    assert (await sender.tell("device:d-1", b"2", message_id=message_id)).status == 14
    peer.ack((await peer.push()).correlation)
    await house.until(lambda: house.node.counters.acks == 1)
    assert (await sender.tell("device:d-1", b"2", message_id=message_id)).status == 0
    assert numbers(await peer.pushes(1)) == [2]


async def test_for_an_absent_device_the_oldest_goes_and_missed_tells_of_it(houses, flavour) -> None:
    house = await houses(max_inbox=5).start()
    await house.register("d-1")
    await fill(house, "d-1", 8)
    peer = await house.peer(flavour)
    assert (await peer.connect("d-1")).missed == 3
    assert numbers(await peer.pushes(5)) == [3, 4, 5, 6, 7]


async def test_missed_is_told_until_the_device_has_said_something_after_it(houses) -> None:
    house = await houses(max_inbox=2).start()
    await house.register("d-1")
    await fill(house, "d-1", 5)
    for _ in range(2):
        silent = await house.peer()
        assert (await silent.connect("d-1")).missed == 3
        await silent.drop()
        await house.until(lambda: house.node.hub.find_by_id("d-1") is None)
    speaking = await house.peer()
    assert (await speaking.connect("d-1")).missed == 3
    speaking.send(Ping(), 1)
    await speaking.answer(1)
    await house.settled()
    assert (await (await house.peer()).connect("d-1")).missed == 0


async def test_what_is_missed_later_is_told_later(houses) -> None:
    house = await houses(max_inbox=2).start()
    await house.register("d-1")
    await fill(house, "d-1", 5)
    peer = await house.peer()
    assert (await peer.connect("d-1")).missed == 3
    await peer.ping()
    await house.settled()
    await peer.drop()
    await house.until(lambda: house.node.hub.find_by_id("d-1") is None)
    await fill(house, "d-1", 4, start=5)
    assert (await (await house.peer()).connect("d-1")).missed == 4


async def test_a_users_message_never_costs_an_online_device_its_oldest(houses) -> None:
    house = await houses(max_inbox=2).start()
    await house.register("a-1", "a-2", user="ann")
    await fill(house, "a-1", 2)
    peer = await house.device("a-1")
    await peer.pushes(2)
    sender = await house.device("s-1")
    assert (await sender.tell("user:ann")).status == 14
    again = await house.peer()
    assert (await again.connect("a-1")).missed == 0
    assert numbers(await again.pushes(2)) == [0, 1]


# When the store is away, and the safety net


async def test_a_store_that_is_away_at_connect_is_asked_again(houses, monkeypatch) -> None:
    monkeypatch.setattr("longwire.gateway.delivery._STORE_RETRY_S", 0.001)
    house = await away_house(houses)
    await house.register("d-1")
    await fill(house, "d-1", 3)
    house.messages.is_away = True
    peer = await house.device("d-1")
    await peer.ping()
    assert not peer.frames
    house.messages.is_away = False
    assert numbers(await peer.pushes(3)) == [0, 1, 2]


async def test_the_safety_net_finds_what_waits_for_an_online_device_within_a_minute(houses) -> None:
    house = await away_house(houses)
    await house.register("d-1")
    await fill(house, "d-1", 3)
    house.messages.answers_nothing_waits = True
    peer = await house.device("d-1", heartbeat_s=900)
    await house.hears_nothing(peer)
    await house.pass_time(60)
    frames = await peer.pushes(3)
    assert numbers(frames) == [0, 1, 2]
    peer.ack(*(frame.correlation for frame in frames))
    await house.hears_nothing(peer)
    await house.pass_time(120)
    await house.hears_nothing(peer)


async def test_the_end_of_a_session_leaves_nothing_in_the_wheel_or_the_lists(house) -> None:
    for _ in range(3):
        peer = await house.device("d-1")
        await fill(house, "d-1", 2)
        await peer.drop()
        await house.until(lambda: house.node.hub.find_by_id("d-1") is None)
    await (await house.device("s-1")).drop()
    await house.pass_time(2)
    await house.until(lambda: not house.node.device_port.open)
    await house.pass_time(120)
    await house.settled()
    assert all(not slot for slot in house.node._wheel._slots)
    assert not house.node._delivery._wanting
    assert not house.node._delivery._repeating


async def test_an_exception_while_one_is_caught_up_does_not_strand_the_others(houses, caplog) -> None:
    house = await away_house(houses)
    await house.register("d-1", "d-2")
    await fill(house, "d-1", 1)
    await fill(house, "d-2", 1)
    house.messages.gate = asyncio.Event()
    one, two = await house.device("d-1"), await house.device("d-2")

    def broken(*_args: object) -> None:
        raise RuntimeError("a bug")

    connection = house.node.hub.find_by_id("d-1").connection
    original = type(connection).send
    failing = connection

    def send(self, *args):
        if self is failing:
            broken()
        return original(self, *args)

    type(connection).send = send
    try:
        house.messages.gate.set()
        await two.push()
        assert (await one.ended()).code == CloseCode.INTERNAL_ERROR
    finally:
        type(connection).send = original
    assert "a bug" in caplog.text
    assert two.flavour == NATIVE


async def test_a_message_to_oneself_comes(house, flavour) -> None:
    peer = await house.device("d-1", flavour)
    peer.send(Send(new_message_id(), "device:d-1", "k", b"1"), 5, receipt=True)
    kinds = {type((await peer.next()).packet) for _ in range(2)}
    assert Sent in kinds


async def test_how_long_an_acknowledgement_takes_is_counted_but_not_of_a_repeat(house) -> None:
    receiver, sender = await house.device("r", heartbeat_s=900), await house.device("s", heartbeat_s=900)
    await sender.tell("device:r", b"1")
    first = await receiver.push()
    house.clock.advance(0.5)
    receiver.ack(first.correlation)
    await receiver.ping()
    latency = house.node._broadcasts.latency
    assert latency.total == 1
    assert latency.percentile_ms(0.5) == pytest.approx(500, rel=0.1)
    await sender.tell("device:r", b"2")
    await receiver.push()
    await house.pass_time(31)
    receiver.ack((await receiver.push()).correlation)
    await receiver.ping()
    assert latency.total == 1
