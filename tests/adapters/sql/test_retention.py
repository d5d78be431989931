"""The sweeper: each table is kept as long as it says, in small steps, and nothing younger goes."""

import asyncio
import contextlib
import itertools
from functools import partial

import pytest
from pyroaring import BitMap
from sqlalchemy import Connection

from longwire.adapters.sql import retention as module
from longwire.adapters.sql.accounts import SqlAccounts
from longwire.adapters.sql.database import Database
from longwire.adapters.sql.messages import SqlMessageStore
from longwire.adapters.sql.push_segments import forget_device
from longwire.adapters.sql.push_waiting import SqlPushWaiting
from longwire.adapters.sql.pushes import SqlPushes
from longwire.adapters.sql.retention import Retention, Sweeper
from longwire.adapters.sql.uplink import SqlUplinkLog
from longwire.errors import StoreUnavailable
from longwire.histogram import Histogram
from longwire.ids import new_message_id
from longwire.model import Envelope, InboxQuery, Outcome, UplinkRecord
from longwire.ports.accounts import NewDevice
from longwire.push_model import Audience, Dispatched, NewPush, PushMessage, RecipientState, SegmentReceipts
from longwire.testing import ManualClock

DAY_S = 86_400
HANG_GUARD_S = 20.0


class Store:
    def __init__(self, database: Database) -> None:
        self.clock = ManualClock()
        self.database = database
        self.messages = SqlMessageStore(self.database, self.clock, 1_000)
        self.uplink = SqlUplinkLog(self.database, self.clock)
        self.accounts = SqlAccounts(self.database)
        self.pushes = SqlPushes(self.database, self.clock, SqlPushWaiting(self.database, self.clock))
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


SEEN = ("past_sessions", "trace_refs", "directives", "person_sessions")


def _seen(connection: Connection, at_ms: int, number: int = 0) -> None:
    """A row of each table of what is seen."""
    number, key = number or at_ms % 1_000_003, at_ms.to_bytes(16, "big")
    for table, values in (
        ("past_sessions", (1, number, 1, at_ms, "n", "native", None)),
        ("trace_refs", (key, 1, key, at_ms)),
        ("directives", (number, "mark", str(at_ms), "v", "c", 1, at_ms + 6 * DAY_S * 1000)),
        ("person_sessions", (key * 2, 1, 1, 1, at_ms)),
    ):
        marks = ", ".join("?" * len(values))
        connection.exec_driver_sql(f"INSERT INTO {table} VALUES ({marks})", values).close()


@pytest.fixture
async def store(database: Database) -> Store:
    store = Store(database)
    await store.messages.start()
    await store.uplink.start()
    return store


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


async def test_places_are_not_given_again_after_everything_was_swept(store) -> None:
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
    monkeypatch.setattr(module, "STEP_ROWS", 25)
    store.sweeper = Sweeper(store.database, store.clock, Retention(uplink_bytes=200_000))
    for size in sizes:
        await store.append(400, size)
    for _ in range(40):
        await store.sweeper.sweep_once()
    weight = await store.database.read(
        lambda c: c.exec_driver_sql("SELECT SUM(LENGTH(payload) + 200) FROM uplink").scalar_one()
    )
    assert 60_000 < weight < 320_000


async def test_past_connections_and_what_belongs_to_traces_go_after_seven_days(store) -> None:
    for at_ms in (store.clock.now_ms(), store.clock.now_ms() + 2 * DAY_S * 1000):
        await store.database.write(partial(_seen, at_ms=at_ms))
    store.clock.advance(8 * DAY_S)
    await store.sweep()
    assert [await store.count(table) for table in SEEN] == [1, 1, 1, 0]


async def test_past_connections_are_bounded_and_the_oldest_go(store, monkeypatch) -> None:
    monkeypatch.setattr(module, "_SESSIONS_COUNTED", 3)
    store.sweeper = Sweeper(store.database, store.clock, Retention(past_sessions=8))
    for number in range(20):
        await store.database.write(partial(_seen, at_ms=store.clock.now_ms() + number, number=number))
    for _ in range(6):
        await store.sweeper.sweep_once()
    left = await store.database.read(lambda c: c.exec_driver_sql("SELECT epoch FROM past_sessions").fetchall())
    assert [epoch for (epoch,) in left] == list(range(12, 20))


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


@pytest.mark.parametrize(
    ("table", "days", "row"),
    [
        ("audit", 90, "(at_ms, caller, action, target, status, request_id) VALUES (?, '', '', '', 200, '')"),
        (
            "commands",
            7,
            "(created_at_ms, command_id, device_no, device_id, method, status, timeout_ms, payload, reply)"
            " VALUES (?, x'00', 1, '', '', 'sent', 1, x'', x'')",
        ),
        (
            "imports",
            7,
            "(ended_at_ms, created_at_ms, import_id, status, format, errors) VALUES (?, 1, x'00', '', '', '')",
        ),
        (
            "idempotency",
            1,
            "(created_at_ms, caller, \"key\", fingerprint, status, body) VALUES (?, 'c', 'k', x'00', 202, x'')",
        ),
        ("webhook_letters", 30, "(buried_at_ms, webhook_no, error, body) VALUES (?, 1, '', x'')"),
        ("events", 2, "(at_ms, kind, device_no, body) VALUES (?, 'push.acked', 0, x'')"),
    ],
)
async def test_rows_go_when_their_days_are_over(store, table, days, row) -> None:
    now = store.clock.now_ms()
    webhook = "INSERT INTO webhooks (url, secret, kinds, created_at_ms, cursor) VALUES ('', '', '', 0, 0)"
    await store.database.write(lambda c: c.exec_driver_sql(webhook).close())
    await store.database.write(lambda c: c.exec_driver_sql(f"INSERT INTO {table} {row}", (now,)).close())
    store.clock.advance(days * DAY_S)
    await store.sweep()
    assert await store.count(table) == 1
    store.clock.advance(0.001)
    await store.sweep()
    assert await store.count(table) == 0


async def test_a_job_that_still_runs_is_kept(store) -> None:
    row = "INSERT INTO imports (created_at_ms, import_id, status, format, errors) VALUES (1, x'00', 'running', '', '')"
    await store.database.write(lambda c: c.exec_driver_sql(row).close())
    store.clock.advance(100 * DAY_S)
    await store.sweep()
    assert await store.count("imports") == 1


async def test_how_a_device_was_last_seen_goes_with_the_device(store, monkeypatch) -> None:
    monkeypatch.setattr(module, "STEP_ROWS", 2)
    now = store.clock.now_ms()
    new = [NewDevice(f"d-{n}", bytes([n]) * 32, now + 40 * DAY_S * 1_000, None) for n in range(1, 6)]
    numbers = [device.device_no for device, _ in await store.accounts.register(new, now)]
    seen = "INSERT INTO presence (device_no, version, ended_at_ms, node_id, transport) VALUES (?, 1, 1, '', '')"
    for number in (*numbers, 90, 91, 92):
        await store.database.write(lambda c, number=number: c.exec_driver_sql(seen, (number,)).close())
    for _ in range(6):
        await store.sweeper.sweep_once()
    rows = await store.database.read(lambda c: c.exec_driver_sql("SELECT device_no FROM presence").scalars().all())
    assert rows == numbers


async def test_uploads_go_at_their_end(store) -> None:
    now = store.clock.now_ms()
    row = "INSERT INTO device_sets (kind, name, created_at_ms, expires_at_ms) VALUES (3, 'u', 0, ?)"
    await store.database.write(lambda c: c.exec_driver_sql(row, (now + 1_000,)).close())
    await store.sweep()
    assert await store.count("device_sets") == 1
    store.clock.advance(1)
    await store.sweep()
    assert await store.count("device_sets") == 0


# -- pushes -------------------------------------------------------------------------------------------------------


def new_push(store, *, ttl_s: int = 3_600) -> NewPush:
    now = store.clock.now_ms()
    push_id = new_message_id()
    message = PushMessage(push_id, "k", b"x", now)
    return NewPush(push_id, Audience(everyone=True), message, now, now + ttl_s * 1_000, ttl_s=ttl_s)


async def deep_sweep(store) -> None:
    for _ in range(30):
        await store.sweeper.sweep_once()


async def test_seven_days_after_its_end_a_push_is_its_totals_and_after_ninety_nothing(store) -> None:
    new = new_push(store)
    push, _ = await store.pushes.create(new, BitMap([1, 2, 3, 70_000]))
    latency = Histogram()
    latency.add(10)
    store.pushes.merge([SegmentReceipts(push.push_no, 0, BitMap([1]), BitMap(), latency)], lambda _r, _s: None)
    now = store.clock.now_ms()
    await store.database.write(lambda connection: forget_device(connection, 2, now))
    store.clock.advance(3_600)
    await store.pushes.close(store.clock.now_ms(), 10)
    before = await store.pushes.find(new.push_id, store.clock.now_ms())
    assert (before.stats.acked, before.stats.failed, before.stats.expired) == (1, 1, 2)
    store.clock.advance(7 * DAY_S)
    await deep_sweep(store)
    assert (await store.count("push_segments"), await store.count("push_failures")) == (2, 1)
    store.clock.advance(0.001)
    await deep_sweep(store)
    assert (await store.count("push_segments"), await store.count("push_failures")) == (0, 0)
    assert await store.pushes.find(new.push_id, store.clock.now_ms()) == before
    assert await store.pushes.in_state(push.push_no, RecipientState.ACKED, store.clock.now_ms()) is None
    assert await store.pushes.state_of(push.push_no, 1, store.clock.now_ms()) is None
    store.clock.advance(83 * DAY_S)
    await deep_sweep(store)
    assert await store.count("pushes") == 0


async def test_the_devices_of_a_cancelled_push_are_kept_while_they_may_acknowledge(store) -> None:
    new = new_push(store, ttl_s=9 * DAY_S)
    push, _ = await store.pushes.create(new, BitMap([1]))
    (claim,) = await store.pushes.claim("w", 1, 1_000, store.clock.now_ms())
    done = Dispatched(push.push_no, 0, claim.lease_no, BitMap([1]), 1, 1, 1, True, 0)
    await store.pushes.dispatched(done, store.clock.now_ms())
    await store.pushes.cancel(push.push_no, store.clock.now_ms())
    await store.pushes.finish_cancel(push.push_no, [], store.clock.now_ms())
    store.clock.advance(8 * DAY_S)
    await deep_sweep(store)
    assert await store.count("push_segments") == 1
    store.clock.advance(DAY_S)
    await deep_sweep(store)
    assert await store.count("push_segments") == 0
    assert (await store.pushes.find(new.push_id, store.clock.now_ms())).stats.expired == 1


async def test_many_ended_pushes_and_failures_go_in_small_steps(store, monkeypatch) -> None:
    monkeypatch.setattr(module, "STEP_ROWS", 10)
    for _ in range(45):
        await store.pushes.create(new_push(store, ttl_s=1), BitMap([1]))
    failures = "INSERT INTO push_failures (push_no, device_no, reason, at_ms) VALUES (3, ?, '', 0)"
    for number in range(25):
        await store.database.write(lambda c, number=number: c.exec_driver_sql(failures, (number,)).close())
    store.clock.advance(1)
    await store.pushes.close(store.clock.now_ms(), 100)
    store.clock.advance(8 * DAY_S)
    left = []
    for _ in range(20):
        await store.sweeper.sweep_once()
        left.append(await store.count("push_segments"))
    assert max(earlier - later for earlier, later in itertools.pairwise([45, *left])) <= 20
    assert (left[-1], await store.count("push_failures")) == (0, 0)


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
