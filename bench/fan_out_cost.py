"""What a delivery of a fan-out costs a node in Python, without sockets: the connections' transports only count.

    .venv/bin/python -m bench.fan_out_cost

The rest of what `fanout` measures is the kernel, the loop and the receivers.
"""

import asyncio
import gc
import statistics
import time
from collections.abc import Sequence
from typing import cast

import uvloop
from pyroaring import BitMap

from longwire.clock import SystemClock
from longwire.gateway.broadcasts import Broadcasts
from longwire.gateway.counters import Counters
from longwire.gateway.fan_out import FanOut
from longwire.gateway.hub import Hub
from longwire.gateway.session import Session
from longwire.gateway.tasks import Tasks
from longwire.limits import Limits
from longwire.net.connection import DevicePort, Receiver
from longwire.net.native_connection import NativeConnection
from longwire.net.wheel import Wheel
from longwire.ports.receipts import ReceiptsCallback
from longwire.push_model import Priority, PushMessage, SegmentReceipts
from longwire.wire.packets import Push

DEVICES = 5_000
ROUNDS = 300
FLIGHTS = (1, 8)


class _Transport:
    def __init__(self) -> None:
        self.writes = 0

    def write(self, _data: bytes) -> None:
        self.writes += 1


class _NoLog:
    def append(self, receipts: Sequence[SegmentReceipts], done: ReceiptsCallback) -> None:
        """Nothing is flushed here."""


async def _measure() -> None:
    clock, hub, counters = SystemClock(), Hub(), Counters()
    broadcasts = Broadcasts(hub, _NoLog(), clock, counters)
    fan_out = FanOut(hub, broadcasts, counters, Tasks())
    port: DevicePort[Session] = DevicePort(cast("Receiver[Session]", None), Wheel(clock.monotonic), Limits())
    sessions: list[Session] = []
    for device_no in range(1, DEVICES + 1):
        connection = NativeConnection(port)
        connection._transport = cast("asyncio.Transport", _Transport())  # noqa: SLF001
        session = connection.session = Session(device_no, f"d-{device_no}", 1, connection, 100)
        hub.bind(session)
        sessions.append(session)
    everybody = BitMap(range(1, DEVICES + 1))
    gc.freeze()
    message = Push(b"m" * 16, "chat", "device:d-1", b"p" * 128, 1, "", "group:g")
    for flight in FLIGHTS:
        taken = []
        for _ in range(ROUNDS):
            expected = counters.pushes + flight * DEVICES
            began = time.perf_counter()
            for _ in range(flight):
                fan_out.spread(message, 2, everybody)
            while counters.pushes < expected:  # noqa: ASYNC110 - the turns of the loop belong to what is measured
                await asyncio.sleep(0)
            taken.append(time.perf_counter() - began)
        _say(f"without receipt, {flight} in flight", taken, DEVICES * flight)
    written, acked = [], []
    for push_no in range(1, ROUNDS + 1):
        news = PushMessage(push_no.to_bytes(16), "news", b"p" * 128, 1)
        entry = broadcasts.enter(push_no, news, clock.now_ms() + 3_600_000)
        entry.begin(0, 1, clock.now_ms())
        began = time.perf_counter()
        await fan_out.deliver(entry, everybody, Priority.NORMAL)
        written.append(time.perf_counter() - began)
        began = time.perf_counter()
        for session in sessions:
            broadcasts.acked(session, entry.handle)
        acked.append(time.perf_counter() - began)
    _say("a push", written, DEVICES)
    _say("its acknowledgement", acked, DEVICES)


def _say(what: str, taken: list[float], deliveries: int) -> None:
    each = [seconds / deliveries * 1e6 for seconds in taken]
    print(f"{what:30} {statistics.median(each):6.3f} us, least {min(each):6.3f}, most {max(each):6.3f}")


if __name__ == "__main__":
    uvloop.run(_measure())
