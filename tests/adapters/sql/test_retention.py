"""The sweeper: each table is kept as long as it says, in small steps, and nothing younger goes."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from longwire.adapters.sql import retention as module
from longwire.adapters.sql.accounts import SqlAccounts
from longwire.adapters.sql.database import SqliteDatabase
from longwire.adapters.sql.messages import SqlMessageStore
from longwire.adapters.sql.retention import Retention, Sweeper
from longwire.adapters.sql.uplink import SqlUplinkLog
from longwire.errors import StoreUnavailable
from longwire.ids import new_message_id
from longwire.model import Envelope, InboxQuery, Outcome, UplinkRecord
from longwire.ports.accounts import NewDevice
from longwire.testing import ManualClock

DAY_S = 86_400
HANG_GUARD_S = 20.0


class Store:
    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.database = SqliteDatabase(folder)
        self.messages = SqlMessageStore(self.database, self.clock, 1_000)
        self.uplink = SqlUplinkLog(self.database, self.clock)
        self.accounts = SqlAccounts(self.database)
        self.sweeper = Sweeper(self.database, self.clock)

    async def count(self, table: str) -> int:
        return await self.database.read(lambda c: c.exec_driver_sql(f"SELECT COUNT(*) FROM {table}").scalar_one())

    async def commit(self, count: int = 1, ttl_s: int = 3_600, device_no: int = 1) -> list[int]:
        places: list[int] = []
        now = self.clock.now_ms()
        for _ in range(count):
            envelope = Envelope(
                9, "device:s", new_message_id(), "", "k", b"x", "", now, now + ttl_s * 1000, (device_no,)
            )
            self.messages.commit(envelope, lambda _e, outcome: places.append(outcome.seq))
        await self.barrier()
        assert len(places) == count
        return places

    async def append(self, count: int = 1, size: int = 10) -> None:
        for _ in range(count):
            self.uplink.append(
                UplinkRecord(1, "d-1", new_message_id(), "k", b"x" * size, self.clock.now_ms()), lambda _r, _s: None
            )
        await self.barrier()

    async def barrier(self) -> None:
        await self.database.write(lambda c: None)
        while self.messages.queued_bytes or self.uplink.queued_bytes:
            await asyncio.sleep(0.001)

    async def sweep(self) -> None:
        """Until there is nothing left to do."""
        for _ in range(100):
            if await self.sweeper.sweep_once() == 0:
                return


@pytest.fixture
async def store(tmp_path: Path):
    store = Store(tmp_path)
    await store.database.start()
    await store.messages.start()
    await store.uplink.start()
    yield store
    await store.database.stop()


async def test_an_expired_inbox_row_ends_with_a_receipt_and_the_others_stay(store) -> None:
    (short,) = await store.commit(ttl_s=10)
    (long,) = await store.commit(ttl_s=100)
    store.clock.advance(10)
    await store.sweeper.sweep_once()
    rows = await store.database.read(lambda c: c.exec_driver_sql("SELECT seq FROM inbox").fetchall())
    assert [seq for (seq,) in rows] == [long]
    receipts = await store.database.read(
        lambda c: c.exec_driver_sql("SELECT seq, device_no, outcome, at_ms FROM receipts").fetchall()
    )
    assert [tuple(row) for row in receipts] == [(short, 1, int(Outcome.EXPIRED), store.clock.now_ms())]
    assert await store.count("messages") == 2


async def test_the_walk_through_the_inboxes_reaches_every_row(store, monkeypatch) -> None:
    monkeypatch.setattr(module, "STEP_ROWS", 10)
    for device_no in range(1, 8):
        await store.commit(7, ttl_s=10, device_no=device_no)
    store.clock.advance(11)
    for _ in range(6):
        await store.sweeper.sweep_once()
    assert await store.count("inbox") == 0
    assert await store.count("receipts") == 49


async def test_messages_and_their_receipts_go_after_ten_days(store) -> None:
    await store.commit(3, ttl_s=10)
    store.clock.advance(DAY_S)
    await store.sweeper.sweep_once()
    young = await store.commit(2, ttl_s=20 * DAY_S)
    store.clock.advance(9 * DAY_S - 1)
    await store.sweep()
    assert await store.count("messages") == 5
    assert await store.count("receipts") == 3
    store.clock.advance(2)
    await store.sweeper.sweep_once()
    assert await store.count("messages") == 2
    assert await store.count("receipts") == 0
    (waiting,) = await store.messages.waiting([InboxQuery(1, 0, 10)], store.clock.now_ms())
    assert [message.seq for message in waiting] == young


async def test_places_are_not_given_again_after_everything_was_swept(store, tmp_path) -> None:
    places = await store.commit(3, ttl_s=10)
    store.clock.advance(40 * DAY_S)
    await store.sweep()
    again = SqlMessageStore(store.database, store.clock, 1_000)
    await again.start()
    store.messages = again
    (place,) = await store.commit()
    assert place > places[-1]


async def test_one_step_takes_a_bounded_number_of_rows(store, monkeypatch) -> None:
    monkeypatch.setattr(module, "STEP_ROWS", 10)
    await store.commit(35, ttl_s=1)
    await store.append(35)
    store.clock.advance(11 * DAY_S)
    left = []
    for _ in range(4):
        await store.sweeper.sweep_once()
        left.append((await store.count("messages"), await store.count("uplink")))
    assert left[0] == (25, 25)
    assert left[1] == (15, 15)


async def test_the_uplink_log_goes_after_seven_days(store) -> None:
    await store.append(3)
    store.clock.advance(7 * DAY_S - 1)
    await store.append(2)
    await store.sweep()
    assert await store.count("uplink") == 5
    store.clock.advance(2)
    await store.sweep()
    assert await store.count("uplink") == 2


@pytest.mark.parametrize("sizes", [(1_000, 1_000), (10, 2_000), (2_000, 10)])
async def test_the_uplink_log_stays_near_its_bound_in_bytes(store, monkeypatch, sizes) -> None:
    monkeypatch.setattr(module, "STEP_ROWS", 50)
    store.sweeper = Sweeper(store.database, store.clock, Retention(uplink_bytes=1_000_000))
    for size in sizes:
        await store.append(2_000, size)
    for _ in range(100):
        await store.sweeper.sweep_once()
    weight = await store.database.read(
        lambda c: c.exec_driver_sql("SELECT SUM(LENGTH(payload) + 200) FROM uplink").scalar_one()
    )
    assert 300_000 < weight < 1_600_000


async def test_dead_letters_go_after_thirty_days(store) -> None:
    await store.append(1)
    (record,) = await store.uplink.read("sink", 1)
    await store.uplink.bury("sink", record, "bad")
    store.clock.advance(30 * DAY_S)
    await store.sweep()
    assert await store.count("dead_letters") == 1
    store.clock.advance(1)
    await store.sweep()
    assert await store.count("dead_letters") == 0


async def test_tokens_go_a_day_after_their_end_and_nonces_at_theirs(store) -> None:
    now = store.clock.now_ms()
    await store.accounts.register([NewDevice("d-1", b"t" * 32, now + 1_000, None)], now)
    await store.accounts.use_nonce("app", "n", now + 1_000)
    store.clock.advance(1.001)
    await store.sweep()
    assert (await store.count("tokens"), await store.count("nonces")) == (1, 0)
    store.clock.advance(DAY_S)
    await store.sweep()
    assert await store.count("tokens") == 0
    assert await store.count("devices") == 1


async def test_the_sweeper_goes_on_after_a_bad_day_of_the_store(store, monkeypatch, caplog) -> None:
    monkeypatch.setattr(module, "_IDLE_PAUSE_S", 0.001)
    outcomes = [StoreUnavailable("away"), RuntimeError("a bug"), 0, 0]
    calls = []

    async def sweep_once() -> int:
        calls.append(1)
        outcome = outcomes[min(len(calls), len(outcomes)) - 1]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(store.sweeper, "sweep_once", sweep_once)
    running = asyncio.ensure_future(store.sweeper.run())
    async with asyncio.timeout(HANG_GUARD_S):
        while len(calls) < 5:
            await asyncio.sleep(0.001)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert "a bug" in caplog.text
