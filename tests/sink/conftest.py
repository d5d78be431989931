"""An uplink log in memory that behaves as the port says, with switches for what engines do on bad days."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Sequence

import pytest

from longwire.application import Context, Longwire
from longwire.errors import StoreUnavailable
from longwire.model import UplinkRecord
from longwire.ports.uplink import AppendCallback, UplinkLog
from longwire.reasons import Status
from longwire.sink import Sink, SinkSettings
from longwire.testing import ManualClock
from longwire.testing.services import MemoryServices, device
from longwire.traces import NO_TRACES, Traces


class MemoryLog:
    """Keeps records in a list; offsets rise with gaps, as those of a log that was swept do."""

    def __init__(self) -> None:
        self.records: list[UplinkRecord] = []
        self.cursors: dict[str, int] = {}
        self.dead: list[tuple[UplinkRecord, str]] = []
        self.flushes: list[int] = []
        self.moved: set[int] = set()
        """Offsets of records that another reader has taken over."""
        self.away: set[str] = set()
        """What the engine does not do now: read, flush, bury, append."""
        self.breaks_with: Exception | None = None
        self._read_up_to: dict[str, int] = {}
        self._ids: set[tuple[int, bytes]] = set()
        self._offsets = itertools.count(10, 3)
        self._grown = asyncio.Event()

    def append(self, record: UplinkRecord, done: AppendCallback) -> None:
        key = (record.device_no, record.message_id)
        if "append" in self.away:
            status = Status.NOT_DURABLE
        elif key in self._ids:
            status = Status.DUPLICATE
        else:
            self._ids.add(key)
            record.offset = next(self._offsets)
            self.records.append(record)
            self._grown.set()
            status = Status.OK
        asyncio.get_running_loop().call_soon(done, record, status)

    async def read(self, consumer: str, limit: int) -> Sequence[UplinkRecord]:
        while True:
            self._check("read")
            start = self._read_up_to.get(consumer, self.cursors.get(consumer, -1))
            found = [r for r in self.records if r.offset > start][:limit]
            if found:
                self._read_up_to[consumer] = found[-1].offset
                return found
            self._grown.clear()
            await self._grown.wait()

    def holds(self, consumer: str, record: UplinkRecord) -> bool:
        return record.offset not in self.moved

    async def flush(self, consumer: str, offset: int) -> None:
        await asyncio.sleep(0)
        self._check("flush")
        self.flushes.append(offset)
        self.cursors[consumer] = max(offset, self.cursors.get(consumer, -1))

    async def bury(self, consumer: str, record: UplinkRecord, error: str) -> None:
        await asyncio.sleep(0)
        self._check("bury")
        self.dead.append((record, error))

    def crash(self) -> None:
        """What only the process knew is gone: how far consumers have read."""
        self._read_up_to.clear()

    def go_away(self, *what: str) -> None:
        self.away.update(what or ("read", "flush", "bury"))
        self._grown.set()

    def come_back(self) -> None:
        self.away.clear()

    def _check(self, what: str) -> None:
        if self.breaks_with is not None:
            raise self.breaks_with
        if what in self.away:
            raise StoreUnavailable("the log is away")


class World:
    """A log, an application and the sinks that were started on them."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.clock = ManualClock()
        self.app = Longwire(threads=2)
        self.services = MemoryServices([device(f"d-{n}", n) for n in range(1, 20)])
        self.app.bind(self.services)
        self.seed = 1
        self.tasks: list[asyncio.Task[None]] = []
        self._ids = itertools.count(1)

    def start(self, traces: Traces = NO_TRACES, **settings: object) -> Sink:
        log: UplinkLog = self.log
        sink = Sink(
            log,
            self.app,
            clock=self.clock,
            settings=SinkSettings(**settings),
            sleep=self.clock.sleep,
            randomness=random.Random(self.seed),  # type: ignore[arg-type]
            traces=traces,
        )
        self.tasks.append(asyncio.create_task(sink.run()))
        return sink

    def send(self, device_no: int, payload: bytes | str, kind: str = "order", trace: bytes = b"") -> int:
        """Appends a message of a device; its offset."""
        body = payload.encode() if isinstance(payload, str) else payload
        record = UplinkRecord(
            device_no=device_no,
            device_id=f"d-{device_no}",
            message_id=next(self._ids).to_bytes(16, "big"),
            kind=kind,
            payload=body,
            sent_at_ms=self.clock.now_ms(),
            trace=trace,
        )
        self.log.append(record, lambda record, status: None)
        return record.offset

    def cursor(self) -> int:
        return self.log.cursors.get("application", -1)

    async def crash(self) -> None:
        """The process is gone: nothing is finished, nothing is flushed."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks.clear()
        self.log.crash()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    others = asyncio.all_tasks()
    yield world
    await world.crash()
    assert asyncio.all_tasks() <= others | {asyncio.current_task()}, "the sink left tasks behind"


@pytest.fixture
def seen(world: World) -> list[tuple[int, str, int]]:
    """What the handler of ``order`` was given: device, payload, attempt; a payload that starts with ! fails."""
    seen: list[tuple[int, str, int]] = []

    @world.app.uplink("order")
    async def order(text: str, ctx: Context) -> None:
        seen.append((ctx.device_no, text, ctx.attempt))
        if text.startswith("!"):
            raise ValueError(text)

    return seen
