"""One message to many: rounds, joined writes, slices and lanes; on connections that only note what is written."""

import asyncio
import random

import pytest
from pyroaring import BitMap

from longwire.gateway.broadcasts import Broadcast, Broadcasts
from longwire.gateway.counters import Counters
from longwire.gateway.fan_out import FanOut
from longwire.gateway.hub import Hub
from longwire.gateway.session import Session
from longwire.gateway.tasks import Tasks
from longwire.limits import Limits
from longwire.net.connection import DevicePort
from longwire.net.native_connection import NativeConnection
from longwire.net.wheel import Wheel
from longwire.push_model import Priority, PushMessage
from longwire.testing import ManualClock
from longwire.wire import native
from longwire.wire.packets import Push


class Transport:
    """Keeps what is written, and tells when."""

    def __init__(self, hall: "Hall", device_no: int) -> None:
        self.hall, self.device_no = hall, device_no
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        self.hall.order.append(self.device_no)
        self.hall.written_this_turn += 1

    def payloads(self) -> list[bytes]:
        return [frame.packet.payload for frame in native.node_decoder(1 << 20).feed(b"".join(self.writes))]


class Hall:
    """A hub of sessions without a network."""

    def __init__(self, devices: int = 0) -> None:
        self.clock = ManualClock()
        self.hub, self.counters, self.tasks = Hub(), Counters(), Tasks()
        self.broadcasts = Broadcasts(self.hub, self, self.clock, self.counters)
        self.fan_out = FanOut(self.hub, self.broadcasts, self.counters, self.tasks)
        self.port = DevicePort(self, Wheel(self.clock.monotonic), Limits())  # type: ignore[arg-type]
        self.transports: dict[int, Transport] = {}
        self.order: list[int] = []
        self.written_this_turn = 0
        for device_no in range(1, devices + 1):
            self.come(device_no)

    def come(self, device_no: int) -> Session:
        connection = NativeConnection(self.port)
        self.transports[device_no] = connection._transport = Transport(self, device_no)  # type: ignore[assignment]
        session = connection.session = Session(device_no, f"d-{device_no}", 1, connection, 100)
        self.hub.bind(session)
        return session

    def leave(self, device_no: int) -> None:
        session = self.hub.find(device_no)
        assert session is not None
        session.connection.is_closing = True
        self.hub.unbind(session)
        self.broadcasts.left(device_no)

    def append(self, receipts, done) -> None:
        raise AssertionError("nothing is flushed here")

    def entry(self, push_no: int, payload: bytes = b"p", ttl_s: int = 60) -> Broadcast:
        message = PushMessage(push_no.to_bytes(16), "news", payload, 1)
        return self.broadcasts.enter(push_no, message, self.clock.now_ms() + ttl_s * 1000)

    def spread(self, payload: bytes, receivers: BitMap, **how) -> None:
        self.fan_out.spread(Push(b"i" * 16, "chat", "device:s", payload, 1), 2, receivers, **how)

    async def quiet(self) -> None:
        while self.tasks._running:
            await asyncio.sleep(0)


async def test_what_waits_together_is_one_write_in_the_order_of_posting() -> None:
    hall = Hall(10)
    everybody = BitMap(range(1, 11))
    for n in range(8):
        hall.spread(b"%d" % n, everybody)
    await hall.quiet()
    for transport in hall.transports.values():
        assert len(transport.writes) == 1
        assert transport.payloads() == [b"%d" % n for n in range(8)]
    assert len({id(transport.writes[0]) for transport in hall.transports.values()}) == 1
    assert hall.counters.pushes == 80
    assert hall.counters.fan_out_rounds == 1


async def test_messages_for_different_receivers_are_joined_where_they_are_common() -> None:
    hall = Hall(6)
    delivered = asyncio.ensure_future(hall.fan_out.deliver(hall.entry(1, b"c"), BitMap([4, 5, 6]), Priority.NORMAL))
    hall.spread(b"a", BitMap([1, 2, 3, 4]))
    hall.spread(b"b", BitMap([3, 4, 5, 99]))
    await hall.quiet()
    got = {no: transport.payloads() for no, transport in hall.transports.items()}
    assert got == {1: [b"a"], 2: [b"a"], 3: [b"a", b"b"], 4: [b"a", b"b", b"c"], 5: [b"b", b"c"], 6: [b"c"]}
    assert all(len(transport.writes) == 1 for transport in hall.transports.values())
    assert set(await delivered) == {4, 5, 6}


@pytest.mark.parametrize("seed", range(20))
async def test_everybody_gets_exactly_what_is_for_them_in_order(seed) -> None:
    rng = random.Random(seed)
    hall = Hall(300)
    expected: dict[int, list[bytes]] = {no: [] for no in hall.transports}
    for n in range(rng.randrange(1, 90)):
        receivers = BitMap(rng.sample(range(1, 350), rng.choice([1, 5, 200, 340])))
        payload = b"%d" % n * rng.choice([1, 3_000])
        hall.spread(payload, receivers)
        for no in receivers:
            if no in expected:
                expected[no].append(payload)
        if rng.random() < 0.3:
            await asyncio.sleep(0)
    await hall.quiet()
    assert {no: transport.payloads() for no, transport in hall.transports.items()} == expected


async def test_the_loop_runs_between_slices() -> None:
    hall = Hall(2_000)
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, hall.written_this_turn)
            hall.written_this_turn = 0
            await asyncio.sleep(0)

    watching = asyncio.ensure_future(watch())
    for n in range(40):
        hall.spread(b"%d" % n, BitMap(range(1 + n, 1_000 + 20 * n)))
    await hall.quiet()
    watching.cancel()
    assert 0 < most <= 512


async def test_a_higher_lane_goes_first_also_when_it_comes_in_the_middle() -> None:
    hall = Hall(2_000)
    everybody = BitMap(range(1, 2_001))
    low = asyncio.ensure_future(hall.fan_out.deliver(hall.entry(1, b"low"), everybody, Priority.LOW))
    while not hall.order:
        await asyncio.sleep(0)
    high = asyncio.ensure_future(hall.fan_out.deliver(hall.entry(2, b"high"), everybody, Priority.HIGH))
    assert len(await high) == 2_000
    assert not low.done()
    assert len(await low) == 2_000
    assert hall.transports[1].payloads() == [b"low", b"high"]
    assert hall.transports[2_000].payloads() == [b"high", b"low"]


async def test_an_ended_push_is_not_written_from_the_next_slice_on_and_others_go_on() -> None:
    hall = Hall(2_000)
    everybody = BitMap(range(1, 2_001))
    ended = asyncio.ensure_future(hall.fan_out.deliver(hall.entry(1, b"ended"), everybody, Priority.NORMAL))
    other = asyncio.ensure_future(hall.fan_out.deliver(hall.entry(2, b"other"), everybody, Priority.NORMAL))
    while not hall.order:
        await asyncio.sleep(0)
    receipts = hall.broadcasts.end(1)
    written = await ended
    assert 0 < len(written) < 2_000
    assert sum(len(receipt.written) for receipt in receipts) == len(written)
    assert len(await other) == 2_000
    for no, transport in hall.transports.items():
        assert transport.payloads() == ([b"ended", b"other"] if no in written else [b"other"])


async def test_who_connects_meanwhile_is_written_to_and_who_leaves_is_not() -> None:
    hall = Hall(2_000)
    delivering = asyncio.ensure_future(hall.fan_out.deliver(hall.entry(1), BitMap(range(1, 2_101)), Priority.NORMAL))
    while not hall.order:
        await asyncio.sleep(0)
    hall.come(2_050)
    hall.leave(1_999)
    hall.leave(1)
    written = await delivering
    assert 2_050 in written
    assert 1_999 not in written
    assert not hall.transports[1_999].writes
    assert 1 in written
    hall.broadcasts.settle()
    assert 1 not in hall.broadcasts.find(1).outstanding
    assert 2_050 in hall.broadcasts.find(1).outstanding


async def test_who_leaves_and_comes_back_is_left_to_catching_up() -> None:
    hall = Hall(2_000)
    delivering = asyncio.ensure_future(hall.fan_out.deliver(hall.entry(1), BitMap(range(1, 2_001)), Priority.NORMAL))
    while not hall.order:
        await asyncio.sleep(0)
    hall.leave(1)
    hall.come(1)
    assert 1 in await delivering
    hall.broadcasts.settle()
    assert 1 not in hall.broadcasts.find(1).outstanding
    assert not hall.transports[1].writes


async def test_a_device_that_does_not_read_is_left_out_of_a_push_and_loses_what_is_at_most_once() -> None:
    hall = Hall(3)
    session = hall.hub.find(2)
    assert session is not None
    session.connection.is_clogged = True
    everybody = BitMap([1, 2, 3])
    hall.spread(b"once", everybody)
    assert set(await hall.fan_out.deliver(hall.entry(1), everybody, Priority.NORMAL)) == {1, 3}
    assert not hall.transports[2].writes
    assert (hall.counters.dropped, hall.counters.broadcast_skipped) == (1, 1)
    assert set(hall.broadcasts.skipped) == {2}


async def test_a_push_whose_time_is_over_while_it_waits_is_not_written() -> None:
    hall = Hall(3)
    hall.spread(b"first", BitMap([1]))
    delivering = asyncio.ensure_future(hall.fan_out.deliver(hall.entry(1, ttl_s=5), BitMap([1, 2]), Priority.LOW))
    hall.clock.advance(5)
    assert not await delivering


async def test_what_waits_is_bounded_in_bytes() -> None:
    hall = Hall(1)
    count = 0
    while not hall.fan_out.is_full:
        hall.spread(b"x" * 60_000, BitMap([1]))
        count += 1
    assert 250 < count < 300
    await hall.quiet()
    assert not hall.fan_out.is_full
    assert len(hall.transports[1].payloads()) == count
    assert max(map(len, hall.transports[1].writes)) < 2 * 65_536


async def test_a_connection_that_fails_does_not_end_the_fan_out(caplog) -> None:
    hall = Hall(3)

    def fail(data: bytes) -> None:
        raise RuntimeError("the transport is gone")

    hall.transports[2].write = fail  # type: ignore[method-assign]
    written = await hall.fan_out.deliver(hall.entry(1), BitMap([1, 2, 3]), Priority.NORMAL)
    assert "a round of the fan-out failed" in caplog.text
    assert set(written) <= {1, 3}
    del hall.transports[2].write  # type: ignore[method-assign]
    assert set(await hall.fan_out.deliver(hall.entry(2), BitMap([1, 2, 3]), Priority.NORMAL)) == {1, 2, 3}
