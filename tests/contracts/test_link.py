"""The link's promises, whether the node that is asked is in this process or at the other end of HTTP."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pyroaring import BitMap

sys.path.insert(0, str(Path(__file__).parents[1] / "adapters" / "http"))

from couriers import SECRET, RecordingNode, info, message

from longwire.adapters.embedded.registry import EmbeddedRegistry
from longwire.adapters.embedded.routes import EmbeddedRoutes
from longwire.adapters.http import Courier, HttpLink, LinkClient, LinkServer
from longwire.app.http_server import HttpServer
from longwire.errors import StoreUnavailable
from longwire.limits import Limits
from longwire.model import Committed, Envelope
from longwire.ports.link import Called
from longwire.ports.messages import CommitCallback
from longwire.push_model import BroadcastOrder, Priority
from longwire.reasons import CloseCode, Status
from longwire.testing import ManualClock, settle


@dataclass
class Commits:
    """What a link needs of a message store: everything is durable at once."""

    queued_bytes: int = 0
    outcome: Status = Status.OK
    envelopes: list[Envelope] = field(default_factory=list)
    acked: set[int] = field(default_factory=set)

    def commit(self, envelope: Envelope, done: CommitCallback) -> None:
        self.envelopes.append(envelope)
        receivers = envelope.receivers if self.outcome is Status.OK else ()
        done(envelope, Committed(self.outcome, len(self.envelopes), receivers))

    async def acked_by(self, seq: int) -> set[int]:
        assert 0 < seq <= len(self.envelopes)
        return self.acked


@dataclass
class Linked:
    link: HttpLink
    courier: Courier
    node: RecordingNode
    store: Commits
    routes: EmbeddedRoutes
    registry: EmbeddedRegistry
    clock: ManualClock
    server: HttpServer | None

    async def attach(self, *device_nos: int) -> None:
        await self.routes.attach(self.node.node_id, device_nos)
        self.node.here |= set(device_nos)

    async def until(self, is_so: object) -> None:
        for _ in range(2_000):
            if is_so():  # type: ignore[operator]
                return
            await settle(8)
        raise AssertionError("it does not come")


@contextlib.asynccontextmanager
async def linked(where: str) -> AsyncIterator[Linked]:
    clock, registry, node = ManualClock(), EmbeddedRegistry(), RecordingNode("a")
    routes, store, client = EmbeddedRoutes(clock), Commits(), LinkClient(SECRET)
    courier = Courier("a" if where == "here" else "api", client, routes, registry, clock, sleep=clock.sleep)
    server = None
    if where == "here":
        courier.local = node
        await registry.register(info("a", connections=1))
    else:
        server = HttpServer(LinkServer(node, SECRET), "127.0.0.1", 0)
        await server.start()
        await registry.register(info("a", f"http://127.0.0.1:{server.port}", connections=1))
    link = HttpLink(
        client,
        courier,
        routes,
        registry,
        store,
        clock,
        Limits(),
        local=courier.local,
        sleep=clock.sleep,  # type: ignore[arg-type]
    )
    try:
        yield Linked(link, courier, node, store, routes, registry, clock, server)
    finally:
        await link.stop()
        await courier.stop(0)
        await client.stop()
        if server is not None:
            await server.stop()


@pytest.fixture(params=["here", "elsewhere"])
async def it(request: pytest.FixtureRequest) -> AsyncIterator[Linked]:
    async with linked(request.param) as made:
        yield made


@pytest.fixture
async def elsewhere() -> AsyncIterator[Linked]:
    async with linked("elsewhere") as made:
        yield made


def envelope(*receivers: int, ttl_ms: int = 60_000) -> Envelope:
    return Envelope(0, "", bytes(16), "", "note", b"hello", "", 1_000, 1_000 + ttl_ms, receivers)


async def test_close_session_strikes_devices_that_are_there_and_those_about_to_be(it: Linked) -> None:
    await it.attach(1)
    assert await it.link.close_session(1, CloseCode.KICKED, "bye")
    assert not await it.link.close_session(2, CloseCode.BANNED, "")
    assert it.node.struck == [(1, CloseCode.KICKED, "bye"), (2, CloseCode.BANNED, "")]


async def test_send_commits_then_delivers_to_who_is_online(it: Linked) -> None:
    await it.attach(1)
    sent = await it.link.send(envelope(1, 2))
    assert (sent.status, sent.delivered_to, sent.queued_for) == (Status.OK, (1,), (2,))
    assert it.store.envelopes[0].online == (1,)
    await it.until(lambda: it.node.arrived == [(1, 1, 0)])


async def test_a_refusal_of_the_store_is_told_and_nothing_delivered(it: Linked) -> None:
    await it.attach(1)
    it.store.outcome = Status.OVERLOADED
    assert (await it.link.send(envelope(1))).status is Status.OVERLOADED
    it.store.queued_bytes = 1 << 30
    assert (await it.link.send(envelope(1))).status is Status.OVERLOADED
    assert [one.status for one in await it.link.send_many([envelope(1)])] == [Status.OVERLOADED]
    assert len(it.store.envelopes) == 1
    assert it.node.arrived == []


async def test_send_waits_for_acknowledgements_wherever_they_come(it: Linked) -> None:
    await it.attach(1, 2)
    it.store.acked = {1, 2}

    sending = asyncio.create_task(it.link.send(envelope(1, 2), 5.0))
    await it.until(lambda: it.clock.sleepers)
    await it.clock.run_for(0.03)
    assert (await sending).acked_by == (1, 2)
    it.store.acked = {2}
    sending = asyncio.create_task(it.link.send(envelope(1, 2), 1.0))
    await it.until(lambda: it.clock.sleepers)
    await it.clock.run_for(1.1)
    assert (await sending).acked_by == (2,)


async def test_a_ttl_of_zero_is_written_now_or_not_at_all(it: Linked) -> None:
    await it.attach(1)
    assert (await it.link.send(envelope(1, 2, ttl_ms=0))).delivered_to == (1,)
    assert (await it.link.send(envelope(2, ttl_ms=0))).status is Status.OFFLINE
    assert it.store.envelopes == []


async def test_send_many_gives_each_its_outcome(it: Linked) -> None:
    await it.attach(1)
    sent = await it.link.send_many([envelope(1), envelope(2, ttl_ms=0), envelope(2), envelope(1, ttl_ms=0)])
    assert [(one.status, one.delivered_to, one.queued_for) for one in sent] == [
        (Status.OK, (1,), ()),
        (Status.OFFLINE, (), ()),
        (Status.OK, (), (2,)),
        (Status.OK, (1,), ()),
    ]


async def test_broadcast_and_end_push_carry_bitmaps_and_latencies(it: Linked) -> None:
    await it.attach(1, 2, 70_000)
    order = BroadcastOrder(9, 0, 3, message(4), 1_000, Priority.LOW, BitMap([1, 2, 3]))
    assert (await it.link.broadcast("a", order)).written == BitMap([1, 2])
    assert it.node.orders == [order]
    with pytest.raises(StoreUnavailable):
        await it.link.broadcast("nobody", order)
    [receipts] = await it.link.end_push(9)
    assert (receipts.push_no, receipts.acked) == (9, BitMap([1, 2, 70_000]))
    assert receipts.written == BitMap()
    assert receipts.latency.total == 1
    await it.link.catch_up(BitMap([1, 5]))
    assert it.node.caught_up == [1, 5]


async def test_call_reaches_the_device_and_says_where_it_is_not(it: Linked) -> None:
    await it.attach(1)
    assert await it.link.call(1, b"c", "read", b"!", 1_000) == Called(Status.OK, b"read!", "a")
    assert (await it.link.call(2, b"c", "read", b"!", 1_000)).status is Status.OFFLINE
    it.node.here.clear()  # and its route is not gone yet
    assert (await it.link.call(1, b"c", "read", b"!", 1_000)).status is Status.OFFLINE


async def test_sessions_and_reports_are_the_nodes_own(it: Linked) -> None:
    await it.attach(1)
    views = await it.link.sessions([2, 1])
    assert [None if view is None else (view.device_no, view.node_id) for view in views] == [None, (1, "a")]
    report = await it.link.report("a")
    assert report is not None
    assert (report.connections, report.ack_latency_ms) == (1, (1.0, None, None))
    assert await it.link.report("nobody") is None
    assert it.link.session_count() == 1


async def test_drain_undrain_and_move_reach_the_node_that_is_named(it: Linked) -> None:
    await it.attach(1, 2)
    assert await it.link.drain("a", 30.0)
    assert await it.link.undrain("a")
    assert await it.link.move("a", 5, 10.0) == 2
    assert it.node.told == [("drain", 30.0, 0), ("undrain", 0.0, 0), ("move", 10.0, 5)]
    assert not await it.link.drain("nobody", 1.0)
    assert not await it.link.undrain("nobody")
    assert await it.link.move("nobody", 1, 1.0) == 0


async def stop_server(it: Linked) -> None:
    assert it.server is not None
    await it.server.stop()


async def test_a_node_that_is_not_reached_is_told_apart_from_a_device_that_is_away(elsewhere: Linked) -> None:
    it = elsewhere
    await it.attach(1)
    await stop_server(it)
    called = await it.link.call(1, b"c", "read", b"", 1_000)
    assert (called.status, called.detail) == (Status.OVERLOADED, "node a is not reached; the device was not asked")
    assert await it.link.sessions([1]) == [None]
    assert await it.link.report("a") is None
    assert await it.link.end_push(1) == []
    await it.link.catch_up(BitMap([1]))
    order = BroadcastOrder(9, 0, 3, message(4), 1_000, Priority.LOW, BitMap([1]))
    with pytest.raises(StoreUnavailable):
        await it.link.broadcast("a", order)
    with pytest.raises(StoreUnavailable):
        await it.link.drain("a", 1.0)


async def test_a_strike_that_a_node_did_not_hear_is_said_again_until_it_does(elsewhere: Linked) -> None:
    it = elsewhere
    await stop_server(it)
    assert not await it.link.close_session(1, CloseCode.BANNED, "")
    server = HttpServer(LinkServer(it.node, SECRET), "127.0.0.1", 0)
    await server.start()
    try:
        await it.registry.register(info("a", f"http://127.0.0.1:{server.port}"))
        await it.until(lambda: it.clock.sleepers)
        await it.clock.run_for(1.0)
        await it.until(lambda: it.node.struck == [(1, CloseCode.BANNED, "")])
    finally:
        await server.stop()


async def test_a_strike_is_owed_no_longer_to_a_node_that_left_nor_for_ever(elsewhere: Linked) -> None:
    it = elsewhere
    await stop_server(it)
    await it.link.close_session(1, CloseCode.BANNED, "")
    await it.link.close_session(2, CloseCode.BANNED, "")
    await it.registry.leave("a")
    await it.until(lambda: it.clock.sleepers)
    await it.clock.run_for(1.0)
    await it.until(lambda: not it.link._owed)
