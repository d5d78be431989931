"""What every UplinkLog does, whatever engine it stands on. An adapter joins by a maker in ``MAKERS``."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from longwire.adapters.sql.database import SqliteDatabase
from longwire.adapters.sql.uplink import SqlUplinkLog
from longwire.errors import StoreUnavailable
from longwire.ids import new_message_id
from longwire.model import UplinkRecord
from longwire.ports.uplink import UplinkLog
from longwire.reasons import Status
from longwire.testing import ManualClock

HANG_GUARD_S = 20.0


@contextlib.asynccontextmanager
async def on_sqlite(folder: Path) -> AsyncIterator[UplinkLog]:
    database = SqliteDatabase(folder)
    await database.start()
    try:
        log = SqlUplinkLog(database, ManualClock())
        await log.start()
        yield log
    finally:
        await database.stop()


Maker = Callable[[Path], AbstractAsyncContextManager[UplinkLog]]
MAKERS: dict[str, Maker] = {"sqlite": on_sqlite}


@pytest.fixture(params=sorted(MAKERS))
def maker(request: pytest.FixtureRequest) -> Maker:
    return MAKERS[request.param]


@pytest.fixture
async def log(maker: Maker, tmp_path: Path) -> AsyncIterator[UplinkLog]:
    async with maker(tmp_path) as made:
        yield made


def record(n: int = 0, device_no: int = 1, message_id: bytes | None = None) -> UplinkRecord:
    return UplinkRecord(
        device_no, f"d-{device_no}", message_id or new_message_id(), "kind", b"%d\0\xff" % n, 1_764_000_000_000 + n
    )


async def append(log: UplinkLog, *records: UplinkRecord) -> list[Status]:
    told: list[tuple[UplinkRecord, Status]] = []
    for one in records:
        log.append(one, lambda r, s: told.append((r, s)))
    async with asyncio.timeout(HANG_GUARD_S):
        while len(told) < len(records):
            await asyncio.sleep(0.001)
    assert [r for r, _ in told] == list(records)
    assert log.queued_bytes == 0
    return [status for _, status in told]


async def read(log: UplinkLog, consumer: str = "sink", limit: int = 1_000) -> list[UplinkRecord]:
    async with asyncio.timeout(HANG_GUARD_S):
        return list(await log.read(consumer, limit))


async def test_records_come_as_they_were_appended_and_in_order(log) -> None:
    sent = [record(n, 1 + n % 3) for n in range(300)]
    assert await append(log, *sent) == [Status.OK] * 300
    got = await read(log)
    assert got == sent  # the append noted the offsets in the records themselves
    offsets = [one.offset for one in got]
    assert offsets == sorted(set(offsets))
    assert offsets[0] > 0


async def test_queued_bytes_count_what_is_not_told_yet(log) -> None:
    told: list[Status] = []
    log.append(record(), lambda r, s: told.append(s))
    assert log.queued_bytes > 0
    while not told:
        await asyncio.sleep(0.001)
    assert log.queued_bytes == 0


@pytest.mark.parametrize("together", [True, False])
async def test_a_devices_message_is_in_the_log_once(log, together) -> None:
    message_id = new_message_id()
    sent = [record(1, 1, message_id), record(2, 1, message_id), record(3, 2, message_id)]
    if together:
        statuses = await append(log, *sent)
    else:
        statuses = [(await append(log, one))[0] for one in sent]
    assert statuses == [Status.OK, Status.DUPLICATE, Status.OK]
    assert [one.payload[:1] for one in await read(log)] == [b"1", b"3"]


async def test_each_read_goes_on_behind_the_last_within_its_limit(log) -> None:
    await append(log, *(record(n) for n in range(5)))
    assert [len(await read(log, limit=2)) for _ in range(3)] == [2, 2, 1]


async def test_consumers_do_not_know_each_other(log) -> None:
    await append(log, record(1), record(2))
    one = await read(log, "a")
    await log.flush("a", one[-1].offset)
    assert await read(log, "b") == one


async def test_a_read_waits_until_there_is_a_record(log) -> None:
    reading = asyncio.ensure_future(read(log))
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert not reading.done()
    await append(log, record(7))
    assert [one.payload[:1] for one in await reading] == [b"7"]


async def test_every_consumer_that_waits_is_woken(log) -> None:
    for n in range(30):
        waiting = [asyncio.ensure_future(read(log, f"c-{i}")) for i in range(3)]
        for _ in range(n % 7):
            await asyncio.sleep(0)
        await append(log, record(n))
        for one in waiting:
            assert [r.payload for r in await one] == [b"%d\0\xff" % n]


async def test_a_read_that_is_cancelled_loses_nothing(log) -> None:
    reading = asyncio.ensure_future(log.read("sink", 10))
    await asyncio.sleep(0.01)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await append(log, record(1))
    assert len(await read(log)) == 1


async def test_what_was_not_flushed_comes_again_after_a_restart(maker, tmp_path) -> None:
    async with maker(tmp_path) as log:
        await append(log, *(record(n) for n in range(4)))
        got = await read(log)
        await log.flush("sink", got[1].offset)
        await log.flush("sink", got[0].offset)  # a cursor never goes back
    async with maker(tmp_path) as log:
        assert await read(log) == got[2:]
        await log.flush("sink", got[3].offset)
        await append(log, record(9))
        assert [one.payload[:1] for one in await read(log)] == [b"9"]
    async with maker(tmp_path) as log:
        assert (await read(log))[0].offset > got[3].offset


async def test_a_repeat_is_known_after_a_restart(maker, tmp_path) -> None:
    message_id = new_message_id()
    async with maker(tmp_path) as log:
        await append(log, record(1, 1, message_id))
    async with maker(tmp_path) as log:
        assert await append(log, record(1, 1, message_id)) == [Status.DUPLICATE]


async def test_burying_takes_any_error_and_leaves_the_log_as_it_is(log) -> None:
    await append(log, record(1))
    (got,) = await read(log)
    await log.bury("sink", got, "x" * 100_000)
    assert await read(log, "other") == [got]


async def test_a_log_that_is_stopped_says_that_it_is_unavailable(maker, tmp_path) -> None:
    async with maker(tmp_path) as log:
        pass
    with pytest.raises(StoreUnavailable):
        await log.read("sink", 1)
    with pytest.raises(StoreUnavailable):
        await log.flush("sink", 1)
    with pytest.raises(StoreUnavailable):
        await log.bury("sink", record(), "e")


async def test_records_are_sought_newest_first_by_device_kind_and_time(log) -> None:
    sent = [record(n, 1 + n % 2) for n in range(6)]
    sent[4].kind = "other"
    await append(log, *sent)
    assert await log.records(0, None, None, 0, 10) == (sent[::-1], None)
    assert await log.records(0, 1, None, 0, 10) == ([sent[4], sent[2], sent[0]], None)
    assert await log.records(0, 1, "kind", 0, 10) == ([sent[2], sent[0]], None)
    assert await log.records(0, None, None, sent[3].sent_at_ms, 10) == (sent[:2:-1], None)
    assert await log.records(0, 9, None, 0, 10) == ([], None)


async def test_records_go_on_below_an_offset(log) -> None:
    sent = [record(n) for n in range(5)]
    await append(log, *sent)
    found, before, pages = [], 0, 0
    while before is not None:
        page, before = await log.records(before, None, None, 0, 2)
        found += page
        pages += 1
    assert found == sent[::-1]
    assert pages == 3


async def test_a_log_without_records_has_none_to_show(log) -> None:
    assert await log.records(0, None, None, 0, 10) == ([], None)


async def test_a_search_looks_at_so_many_records_a_call_and_goes_on(log) -> None:
    rare = record(0, 2)
    await append(log, rare)
    for _ in range(6):
        await append(log, *(record(n, 1) for n in range(2_000)))
    page, before = await log.records(0, 2, None, 0, 10)
    assert (page, before is not None) == ([], True)
    assert await log.records(before, 2, None, 0, 10) == ([rare], None)
    # A stretch without anything that is young enough is the old part of the log.
    assert await log.records(0, None, None, 1_764_000_100_000, 10) == ([], None)
