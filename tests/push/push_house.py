"""The push room on the real store: SQLite in a folder, nodes that are lists, time by hand."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from push_fakes import HANG_GUARD_S, Nodes
from pyroaring import BitMap
from sqlalchemy import Connection

from longwire import bitmaps
from longwire.adapters.embedded.receipts import EmbeddedReceipts
from longwire.adapters.sql import bulk, device_sets, push_segments
from longwire.adapters.sql.accounts import SqlAccounts
from longwire.adapters.sql.audiences import SqlAudiences
from longwire.adapters.sql.push_waiting import SqlPushWaiting
from longwire.adapters.sql.pushes import SqlPushes
from longwire.adapters.sql.sqlite import SqliteDatabase
from longwire.histogram import Histogram
from longwire.limits import Limits
from longwire.ports.accounts import NewDevice
from longwire.push.audience import Audiences
from longwire.push.check import Check
from longwire.push.messages import Messages
from longwire.push.pushes import Pushes, PushOrder, PushView
from longwire.push.schedule import Schedule
from longwire.push.worker import Worker, WorkerSettings
from longwire.push_model import Audience, KeptAnswer, Push, SegmentReceipts
from longwire.testing import ManualClock

DAY_MS = 86_400_000


def no_answer(_push: Push, _resolved: object) -> KeptAnswer | None:
    """The answer of a call without a key is not kept."""
    return None


class PushHouse:
    """Everything of the push room but its tasks, which tests start where they want them."""

    def __init__(self, folder: Path, clock: ManualClock, nodes: Nodes, limits: Limits) -> None:
        self.clock, self.nodes, self.limits = clock, nodes, limits
        self.database = SqliteDatabase(folder)
        self.accounts = SqlAccounts(self.database, push_segments.forget_device)
        self.sets = SqlAudiences(self.database)
        self.waiting = SqlPushWaiting(self.database, clock, clock.sleep)
        self.store = SqlPushes(
            self.database, clock, self.waiting, max_live=limits.max_live_pushes, registered=device_sets.everyone
        )
        self.receipts = EmbeddedReceipts(self.store)
        self.audiences = Audiences(self.sets, self.store, clock, limits)
        self.pushes = Pushes(
            self.store, self.audiences, self.accounts, nodes.routes, nodes.registry, nodes, clock, limits
        )
        self.messages = Messages(self.accounts, self.sets, self.store, nodes, clock, limits)
        self.schedule = Schedule(self.store, self.store, self.audiences, nodes, clock, clock.sleep)
        self.check = Check(self.store, clock, clock.sleep)
        self._worker: asyncio.Task[None] | None = None

    # Who there is

    async def register(self, *device_ids: str, user: str | None = None, tags: tuple[str, ...] = ()) -> list[int]:
        """Registers devices; their numbers."""
        now_ms = self.clock.now_ms()
        wanted = [
            NewDevice(device_id, device_id.encode().ljust(32, b"\0"), now_ms + DAY_MS, None, user, tags)
            for device_id in device_ids
        ]
        return [device.device_no for device, _ in await self.accounts.register(wanted, now_ms)]

    async def register_many(self, prefix: str, numbers: range) -> None:
        """Devices of these ids behind those who are there: rows and the set of all, at a hundredth of the time."""
        (first,) = await self.register(f"{prefix}{numbers[0]}")

        def insert(connection: Connection) -> None:
            rows = [(f"{prefix}{n}", 0) for n in numbers[1:]]
            bulk.execute(connection, "INSERT INTO devices (device_id, registered_at_ms) VALUES {rows}", rows)
            everyone = BitMap(range(1, first + len(numbers)))
            set_no = connection.exec_driver_sql("SELECT set_no FROM device_sets WHERE kind = 0").scalar_one()
            for segment, members in bitmaps.split(everyone).items():
                connection.exec_driver_sql(
                    "INSERT OR REPLACE INTO device_set_segments (set_no, segment, size, members) VALUES (?, ?, ?, ?)",
                    (set_no, segment, len(members), bitmaps.dump(members)),
                )

        await self.database.write(insert)

    # Pushes

    async def push(self, audience: Audience | None = None, **options: object) -> PushView:
        order = PushOrder(audience or Audience(everyone=True), "news", b"hello", **options)  # type: ignore[arg-type]
        return await self.pushes.create(order, no_answer)

    async def look(self, view: PushView) -> PushView:
        """The push as it is now; its numbers add up."""
        found = await self.pushes.find(view.push.new.push_id)
        stats = found.push.stats
        assert stats.targeted == sum(
            (stats.acked, stats.expired, stats.failed, stats.collapsed, stats.canceled, stats.withdrawn, stats.pending)
        )
        assert await self.check.look() == []
        return found

    async def ack(self, view: PushView, *device_nos: int) -> None:
        """Devices acknowledge, and the node has told it."""
        push_no = (await self.pushes.find(view.push.new.push_id)).push.push_no
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        receipts = [
            SegmentReceipts(push_no, segment, devices, BitMap(), Histogram())
            for segment, devices in bitmaps.split(BitMap(device_nos)).items()
        ]
        self.receipts.append(receipts, lambda _receipts, _status: told.set_result(None))
        async with asyncio.timeout(HANG_GUARD_S):
            await told

    # Tasks

    @contextlib.asynccontextmanager
    async def worker(self, settings: WorkerSettings | None = None) -> AsyncIterator[Worker]:
        """A worker that runs; left, it crashes."""
        nodes = self.nodes
        worker = Worker("w", self.store, nodes.routes, nodes.registry, nodes, self.clock, settings, self.clock.sleep)
        task = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        """Waits for what happens by itself, without time."""
        async with asyncio.timeout(HANG_GUARD_S):
            while not await holds():
                await asyncio.sleep(0.002)

    async def dispatched(self, view: PushView) -> PushView:
        """Waits until every segment is done."""

        async def holds() -> bool:
            push = (await self.look(view)).push
            return push.dispatched == push.stats.targeted

        await self.until(holds)
        return await self.look(view)

    async def pass_time(self, seconds: float, step_s: float = 0.05) -> None:
        """Moves the clock on in steps, and lets the store keep up at each."""
        while seconds > 0:
            step = min(seconds, step_s)
            seconds -= step
            await self.clock.run_for(step)
            for _ in range(3):
                await self.database.write(lambda _connection: None)
                await self.database.read(lambda _connection: None)
                await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def push_house(
    folder: Path, clock: ManualClock, nodes: Nodes, limits: Limits | None = None
) -> AsyncIterator[PushHouse]:
    house = PushHouse(folder, clock, nodes, limits or Limits())
    await house.database.start()
    try:
        yield house
    finally:
        await house.database.stop()
