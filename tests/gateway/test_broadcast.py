"""Pushes to those online: one frame for all, acknowledgements as bits, and their end (PROTOCOL §2)."""

import asyncio

import pytest
from pyroaring import BitMap

from longwire.adapters.embedded.receipts import EmbeddedReceipts
from longwire.gateway import broadcasts
from longwire.push_model import PushStats, SegmentReceipts
from longwire.reasons import CloseCode, Status
from longwire.wire.packets import Connect, Push


def gathered(receipts: list[SegmentReceipts]) -> tuple[set[int], set[int]]:
    """Who acknowledged and who was written to."""
    acked, written = BitMap(), BitMap()
    for receipt in receipts:
        acked |= receipt.acked
        written |= receipt.written
    return set(acked), set(written)


async def test_a_push_reaches_everybody_online_under_one_handle(house) -> None:
    peers = [await house.device(f"d-{n}", flavour) for n, flavour in enumerate(("native", "binary", "json"))]
    await house.register("away")
    trace = b"t" * 16 + b"s" * 8
    push = await house.push("d-0", "d-1", "d-2", "away", payload=b'{"x":1}', trace=trace)
    frames = [await peer.push() for peer in peers]
    assert len({frame.correlation for frame in frames}) == 1
    assert frames[0].correlation % 2 == 1
    for frame in frames:
        assert frame.wants_receipt
        assert frame.trace == trace
        assert isinstance(frame.packet, Push)
        assert (frame.packet.message_id, frame.packet.kind, frame.packet.sender) == (push.new.push_id, "news", "")
        assert frame.packet.payload == b'{"x":1}'
    stats = await house.stats(push)
    assert (stats.targeted, stats.written, stats.acked, stats.pending) == (4, 3, 0, 4)


async def test_each_flavour_is_encoded_once(house, monkeypatch) -> None:
    encoded: list[int] = []
    really = broadcasts.encode

    def encode(flavour, *rest):
        encoded.append(flavour)
        return really(flavour, *rest)

    monkeypatch.setattr(broadcasts, "encode", encode)
    names = [f"{flavour}-{n}" for flavour in ("native", "json") for n in range(5)]
    peers = [await house.device(name, name.partition("-")[0]) for name in names]
    await house.push(*names)
    for peer in peers:
        await peer.push()
    assert sorted(encoded) == [0, 2]


async def test_acks_are_counted_once_flushed_with_the_tick_and_stored(house, flavour) -> None:
    peers = [await house.device(f"d-{n}", flavour) for n in range(3)]
    push = await house.push("d-0", "d-1", "d-2")
    handles = [(await peer.push()).correlation for peer in peers]
    house.clock.advance(0.2)
    for peer, handle in zip(peers[:2], handles, strict=False):
        peer.ack(handle)
        peer.ack(handle)
        await peer.ping()
    counters = house.node.counters
    assert (counters.broadcast_written, counters.broadcast_acks, counters.stray_acks) == (3, 2, 2)
    assert (await house.stats(push)).acked == 0
    await house.pass_time(0.25)
    await house.settled()
    assert await house.stats(push) == PushStats(targeted=3, online_at_send=3, written=3, acked=2, pending=1)
    found = await house.pushes.find(push.new.push_id, house.clock.now_ms())
    assert found.latency_ms[0] == pytest.approx(200, rel=0.09)
    report = await house.node.report(house.node.node_id)
    assert report.ack_latency_ms == found.latency_ms
    assert report.acks == 2


async def test_odd_acks_of_what_was_never_written_are_ignored_and_counted(house, flavour) -> None:
    await house.device("d-1")
    stranger = await house.device("d-2", flavour)
    push = await house.push("d-1")
    handle = house.node._broadcasts.find(push.push_no).handle
    stranger.ack(handle, 1, 3, handle + 2 & 0xFFFF_FFFF)
    await stranger.ping()
    assert house.node.counters.stray_acks == 4
    await house.pass_time(0.5)
    await house.settled()
    assert (await house.stats(push)).acked == 0


async def test_one_ack_may_name_handles_of_both_kinds(house, flavour) -> None:
    peer = await house.device("d-1", flavour)
    sender = await house.device("d-2")
    push = await house.push("d-1")
    assert (await sender.tell("device:d-1")).status == 0
    handles = [(await peer.push()).correlation for _ in range(2)]
    peer.ack(*handles)
    await peer.ping()
    await house.pass_time(0.5)
    await house.settled()
    assert (await house.stats(push)).acked == 1
    assert await house.inbox("d-1") == []
    assert house.node.counters.stray_acks == 0


async def test_an_old_lease_and_an_ended_push_are_refused(house) -> None:
    peer = await house.device("d-1")
    push = await house.push("d-1", is_sent=False)
    (claim,) = await house.pushes.claim("w", 1, 30_000, house.clock.now_ms())
    order = house.order_of(claim)
    order.lease_no += 1
    assert not (await house.node.broadcast(house.node.node_id, order)).is_refused
    order.lease_no -= 1
    assert (await house.node.broadcast(house.node.node_id, order)).is_refused
    await peer.push()
    await house.node.end_push(push.push_no)
    order.lease_no += 5
    refused = await house.node.broadcast(house.node.node_id, order)
    assert refused.is_refused
    assert not refused.written
    await house.hears_nothing(peer)


async def test_a_segment_that_is_done_again_is_not_written_again_in_the_same_session(house) -> None:
    peer, other = await house.device("d-1"), await house.device("d-2")
    await house.push("d-1", "d-2", is_sent=False)
    (claim,) = await house.pushes.claim("w", 1, 30_000, house.clock.now_ms())
    for _ in range(2):
        done = await house.node.broadcast(house.node.node_id, house.order_of(claim))
        assert set(done.written) == {house.no_of("d-1"), house.no_of("d-2")}
    other.ack((await other.push()).correlation)
    await other.ping()
    done = await house.node.broadcast(house.node.node_id, house.order_of(claim))
    assert set(done.written) == {house.no_of("d-1"), house.no_of("d-2")}
    await peer.push()
    await house.hears_nothing(peer, other)


async def test_a_device_that_came_back_meanwhile_is_written_to_again(house) -> None:
    first = await house.device("d-1")
    await house.push("d-1", is_sent=False)
    (claim,) = await house.pushes.claim("w", 1, 30_000, house.clock.now_ms())
    await house.node.broadcast(house.node.node_id, house.order_of(claim))
    await first.push()
    again = await house.device("d-1")  # it catches up
    assert (await first.ended()).code == CloseCode.TAKEN_OVER
    await again.push()
    await house.settled()
    done = await house.node.broadcast(house.node.node_id, house.order_of(claim))
    assert set(done.written) == {house.no_of("d-1")}
    await house.hears_nothing(again)


async def test_the_end_of_a_push_gives_what_was_gathered_and_nothing_is_written_any_more(house) -> None:
    acks, silent = [await house.device(name, heartbeat_s=900) for name in ("acks", "silent")]
    await house.register("late")
    push = await house.push("acks", "silent", "late")
    acks.ack((await acks.push()).correlation)
    await silent.push()
    await acks.ping()
    acked, written = gathered(await house.node.end_push(push.push_no))
    assert acked == {house.no_of("acks")}
    assert written == {house.no_of("silent")}
    late = await house.device("late", heartbeat_s=900)
    await house.pass_time(50)
    await house.hears_nothing(late, acks, silent)


async def test_an_acknowledgement_that_comes_after_the_end_still_counts(house) -> None:
    peer = await house.device("d-1")
    push = await house.push("d-1")
    handle = (await peer.push()).correlation
    await house.node.end_push(push.push_no)
    peer.ack(handle)
    await peer.ping()
    await house.pass_time(0.5)
    await house.settled()
    assert (await house.stats(push)).acked == 1


async def test_a_push_whose_time_is_over_is_not_written(house) -> None:
    peer = await house.device("d-1")
    await house.push("d-1", ttl_s=5, is_sent=False)
    house.clock.advance(4)
    (claim,) = await house.pushes.claim("w", 1, 30_000, house.clock.now_ms())
    house.clock.advance(2)
    assert not (await house.node.broadcast(house.node.node_id, house.order_of(claim))).written
    await house.hears_nothing(peer)


class Refusing(EmbeddedReceipts):
    """Takes nothing while it is away."""

    is_away = False
    calls = 0

    def append(self, receipts, done):
        self.calls += 1
        if self.is_away:
            asyncio.get_running_loop().call_soon(done, receipts, Status.NOT_DURABLE)
        else:
            super().append(receipts, done)


async def test_acks_that_the_log_refuses_are_kept_and_tried_again(houses) -> None:
    house = houses()
    log = Refusing(house.pushes)
    house.with_engines(receipts=log)
    await house.start()
    peer = await house.device("d-1")
    push = await house.push("d-1")
    log.is_away = True
    peer.ack((await peer.push()).correlation)
    await peer.ping()
    await house.pass_time(3)
    assert house.node.counters.receipts_refused >= 3
    log.is_away = False
    await house.pass_time(0.5)
    await house.settled()
    assert (await house.stats(push)).acked == 1
    calls = log.calls
    await house.pass_time(5)
    assert log.calls == calls, "nothing is flushed where nothing came"


async def test_the_node_flushes_acks_before_it_stops(houses) -> None:
    house = await houses().start()
    peer, silent = await house.device("d-1"), await house.device("d-2")  # were nobody silent, it would flush at once
    push = await house.push("d-1", "d-2")
    peer.ack((await peer.push()).correlation)
    await peer.ping()
    assert (await house.stats(push)).acked == 0
    peer.close()
    silent.close()
    await house.node.stop()
    assert (await house.stats(push)).acked == 1


async def test_memory_holds_what_is_unacknowledged_here_and_not_every_live_push(house) -> None:
    peer = await house.device("d-1", heartbeat_s=900)
    await house.register("away")
    for _ in range(100):
        await house.push("d-1", "away")
    handles = [frame.correlation for frame in await peer.pushes(100)]
    entries = house.node._broadcasts
    assert len(entries) == 100
    peer.ack(*handles[:90])
    await peer.ping()
    await house.pass_time(1)
    await house.settled()
    for _ in range(3):
        await house.pass_time(45)
        await house.settled()
    assert len(entries) == 10
    await peer.drop()
    await house.until(lambda: not len(house.node.hub))
    for _ in range(3):
        await house.pass_time(45)
        await house.settled()
    assert len(entries) == 0
    assert not entries._by_handle


async def test_a_ban_holds_at_connect_and_closes_the_session(house, flavour) -> None:
    peer = await house.device("d-1", flavour)
    await house.accounts.ban(house.no_of("d-1"), house.clock.now_ms() + 60_000)
    assert await house.node.close_session(house.no_of("d-1"), CloseCode.BANNED, "banned")
    assert (await peer.ended()).code == 4103
    again = await house.peer(flavour)
    again.send(Connect("t-d-1", "d-1"), 1)
    assert (await again.ended()).code == 4103
    house.clock.advance(61)
    await house.device("d-1", flavour)


async def test_presence_is_live_while_the_session_lasts_and_stored_when_it_ends(house, flavour) -> None:
    began_ms = house.clock.now_ms()
    peer = await house.device("d-1", flavour)
    await house.register("d-2")
    numbers = [house.no_of("d-1"), house.no_of("d-2")]
    view, nothing = await house.node.sessions(numbers)
    assert nothing is None
    assert (view.since_ms, view.node_id) == (began_ms, house.node.node_id)
    assert view.transport == ("native" if flavour == "native" else "websocket")
    assert house.node.session_count() == 1
    house.clock.advance(5)
    await house.node.close_session(numbers[0], CloseCode.KICKED, "")
    await peer.ended()
    await house.settled()
    (last,) = await house.presence.last_sessions(numbers[:1])
    assert (last.close_code, last.version, last.ended_at_ms) == (4101, view.version + 1, began_ms + 5_000)
    again = await house.device("d-1", flavour)
    (later,) = await house.node.sessions(numbers[:1])
    assert later.version > last.version
    await again.ping()
