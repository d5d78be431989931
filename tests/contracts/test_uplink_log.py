"""What every UplinkLog does, whatever engine it stands on.

On Kafka a message that is sent again is durable again, and the reader drops it; offsets are the reader's own, and
devices' records are in order each for itself.
"""

import asyncio
import contextlib
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager

import pytest
from databases import OpenDatabase
from msgspec.structs import replace

from longwire.adapters.kafka import KafkaProducer, KafkaSettings, KafkaUplink, StoredUplink
from longwire.adapters.sql.database import Database
from longwire.adapters.sql.uplink import SqlUplinkLog
from longwire.errors import StoreUnavailable
from longwire.ids import new_message_id
from longwire.model import UplinkRecord
from longwire.ports.uplink import UplinkLog
from longwire.reasons import Status
from longwire.testing import ManualClock

HANG_GUARD_S = 30.0
ENGINES = {
    "sqlite": ("sqlite", False),
    "mariadb": ("mariadb", False),
    "postgres": ("postgres", False),
    "kafka": ("sqlite", True),
}
"""The database, and whether the log is on Kafka and only its rows are there."""


class OnKafka:
    """The log as a cluster has it, in one process: a node's end, a sink's end, and the rows that the sink keeps."""

    def __init__(self, producer: KafkaProducer, database: Database, rows: SqlUplinkLog) -> None:
        self._writer = KafkaUplink(producer)
        self.reader = StoredUplink(producer, database, rows)
        self.append = self._writer.append
        self.read, self.holds = self.reader.read, self.reader.holds
        self.flush, self.bury = self.reader.flush, self.reader.bury
        self.records = rows.records

    @property
    def queued_bytes(self) -> int:
        return self._writer.queued_bytes


Maker = Callable[[], AbstractAsyncContextManager[UplinkLog]]


pytestmark = pytest.mark.parametrize(
    ("open_database", "is_on_kafka"), ENGINES.values(), indirect=["open_database"], ids=ENGINES
)


@pytest.fixture
def maker(request: pytest.FixtureRequest, open_database: OpenDatabase, is_on_kafka: bool) -> Maker:
    prefix = uuid.uuid4().hex

    @contextlib.asynccontextmanager
    async def make() -> AsyncIterator[UplinkLog]:
        async with open_database() as database:
            log = SqlUplinkLog(database, ManualClock())
            await log.start()
            if not is_on_kafka:
                yield log
                return
            servers = request.getfixturevalue("kafka_engine").servers
            producer = KafkaProducer(KafkaSettings(servers, topic_prefix=prefix, partitions=3, replication=1))
            await producer.start()
            on_kafka = OnKafka(producer, database, log)
            try:
                yield on_kafka
            finally:
                await on_kafka.reader.stop()
                await producer.stop()

    return make


@pytest.fixture
async def log(maker: Maker) -> AsyncIterator[UplinkLog]:
    async with maker() as made:
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
    assert by_device(one for one, _ in told) == by_device(records)
    assert log.queued_bytes == 0
    status_of = {id(one): status for one, status in told}
    return [status_of[id(one)] for one in records]


async def read(log: UplinkLog, count: int, consumer: str = "sink", limit: int = 1_000) -> list[UplinkRecord]:
    """The next ``count`` records, in as many reads as it takes."""
    got: list[UplinkRecord] = []
    async with asyncio.timeout(HANG_GUARD_S):
        while len(got) < count:
            part = await log.read(consumer, limit)
            assert 0 < len(part) <= limit
            got += part
    assert len(got) == count
    return got


async def stored(log: UplinkLog, count: int) -> None:
    """Has so many records where they can be sought: on Kafka a sink must have read them."""
    if isinstance(log, OnKafka):
        await read(log, count, "keeper")


def by_device(records: Iterable[UplinkRecord]) -> dict[int, list[UplinkRecord]]:
    """Each device's records in order, without their offsets."""
    found: dict[int, list[UplinkRecord]] = defaultdict(list)
    for one in records:
        found[one.device_no].append(replace(one, offset=0))
    return found


def payloads(records: Iterable[UplinkRecord]) -> list[bytes]:
    return [one.payload[:1] for one in records]


async def test_records_come_as_they_were_appended_and_in_order(log) -> None:
    sent = [record(n, 1 + n % 3) for n in range(300)]
    assert await append(log, *sent) == [Status.OK] * 300
    got = await read(log, 300)
    assert by_device(got) == by_device(sent)
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
    repeated = Status.OK if isinstance(log, OnKafka) else Status.DUPLICATE
    assert statuses == [Status.OK, repeated, Status.OK]
    await append(log, record(4, 1))
    got = by_device(await read(log, 3))
    assert (payloads(got[1]), payloads(got[2])) == ([b"1", b"4"], [b"3"])


async def test_each_read_goes_on_behind_the_last_within_its_limit(log) -> None:
    await append(log, *(record(n) for n in range(5)))
    assert payloads(await read(log, 5, limit=2)) == [b"0", b"1", b"2", b"3", b"4"]


async def test_consumers_do_not_know_each_other(log) -> None:
    await append(log, record(1), record(2))
    one = await read(log, 2, "a")
    await log.flush("a", one[-1].offset)
    assert await read(log, 2, "b") == one


async def test_a_read_waits_until_there_is_a_record(log) -> None:
    reading = asyncio.ensure_future(read(log, 1))
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert not reading.done()
    await append(log, record(7))
    assert payloads(await reading) == [b"7"]


async def test_every_consumer_that_waits_is_woken(log) -> None:
    for n in range(30):
        waiting = [asyncio.ensure_future(read(log, 1, f"c-{i}")) for i in range(3)]
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
    assert payloads(await read(log, 1)) == [b"1"]


async def test_what_was_not_flushed_comes_again_after_a_restart(maker) -> None:
    async with maker() as log:
        await append(log, *(record(n) for n in range(4)))
        got = await read(log, 4)
        await log.flush("sink", got[1].offset)
        await log.flush("sink", got[0].offset)  # a cursor never goes back
    async with maker() as log:
        again = await read(log, 2)
        assert by_device(again) == by_device(got[2:])
        await log.flush("sink", again[1].offset)
        await append(log, record(9))
        assert payloads(await read(log, 1)) == [b"9"]


async def test_a_repeat_is_known_after_a_restart(maker) -> None:
    message_id = new_message_id()
    async with maker() as log:
        await append(log, record(1, 1, message_id))
        (got,) = await read(log, 1)
        await log.flush("sink", got.offset)
    async with maker() as log:
        repeated = Status.OK if isinstance(log, OnKafka) else Status.DUPLICATE
        assert await append(log, record(2, 1, message_id), record(3)) == [repeated, Status.OK]
        assert payloads(await read(log, 1)) == [b"3"]


async def test_a_reader_holds_what_it_has_read(log) -> None:
    await append(log, record(1))
    (got,) = await read(log, 1)
    assert log.holds("sink", got)
    await log.flush("sink", got.offset)


async def test_burying_takes_any_error_and_leaves_the_log_as_it_is(log) -> None:
    await append(log, record(1))
    (got,) = await read(log, 1)
    await log.bury("sink", got, "x" * 100_000)
    assert await read(log, 1, "other") == [got]


async def test_a_log_that_is_stopped_says_that_it_is_unavailable(maker) -> None:
    async with maker() as log:
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
    for one in sent:  # one after another: on Kafka the devices' records have no order between them
        await append(log, one)
        await stored(log, 1)

    async def found(device_no: int | None, kind: str | None, since_ms: int) -> list[int]:
        records, before = await log.records(0, device_no, kind, since_ms, 10)
        assert before is None
        return [int(one.payload[:1]) for one in records]

    assert await found(None, None, 0) == [5, 4, 3, 2, 1, 0]
    assert await found(1, None, 0) == [4, 2, 0]
    assert await found(1, "kind", 0) == [2, 0]
    assert await found(None, None, sent[3].sent_at_ms) == [5, 4, 3]
    assert await found(9, None, 0) == []


async def test_records_go_on_below_an_offset(log) -> None:
    sent = [record(n) for n in range(5)]
    await append(log, *sent)
    await stored(log, 5)
    found, before, pages = [], 0, 0
    while before is not None:
        page, before = await log.records(before, None, None, 0, 2)
        found += page
        pages += 1
    assert payloads(found) == [b"4", b"3", b"2", b"1", b"0"]
    assert pages == 3


async def test_a_log_without_records_has_none_to_show(log) -> None:
    assert await log.records(0, None, None, 0, 10) == ([], None)


async def test_a_search_looks_at_so_many_records_a_call_and_goes_on(log) -> None:
    rare = record(0, 2)
    await append(log, rare)
    await stored(log, 1)
    for _ in range(6):
        await append(log, *(record(n, 1) for n in range(2_000)))
    await stored(log, 12_000)
    page, before = await log.records(0, 2, None, 0, 10)
    assert (page, before is not None) == ([], True)
    (found,), before = await log.records(before, 2, None, 0, 10)
    assert (found.message_id, before) == (rare.message_id, None)
    # A stretch without anything that is young enough is the old part of the log.
    assert await log.records(0, None, None, 1_764_000_100_000, 10) == ([], None)
