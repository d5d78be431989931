"""The sink's end of the uplink log: what a device sent twice is handled once, and what was not handled comes again."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from confluent_kafka import Consumer
from kafka_words import HANG_GUARD_S, append, record

from longwire.adapters.kafka import KafkaDeadLetters, KafkaProducer, KafkaUplink, StoredUplink
from longwire.adapters.sql.database import Database
from longwire.adapters.sql.shared import SharedDatabase, migrate_shared
from longwire.adapters.sql.sqlite import SqliteDatabase
from longwire.adapters.sql.uplink import SqlUplinkLog
from longwire.application import Context, Longwire
from longwire.errors import StoreUnavailable
from longwire.model import UplinkRecord
from longwire.reasons import Status
from longwire.sink import Sink
from longwire.testing import ManualClock
from longwire.testing.engines import MariaDb


class Sinks:
    """Rows, and readers of the topic on them, as many as are started."""

    def __init__(self, producer: KafkaProducer, database: Database) -> None:
        self.producer = producer
        self.uplink = KafkaUplink(producer)
        self.database = database
        self.clock = ManualClock()
        self.rows = SqlUplinkLog(self.database, self.clock)
        self.letters = KafkaDeadLetters(producer, self.database, self.rows, self.clock)
        self.readers: list[StoredUplink] = []

    def reader(self) -> StoredUplink:
        self.readers.append(StoredUplink(self.producer, self.database, self.rows))
        return self.readers[-1]


@pytest.fixture
async def sinks(producer, tmp_path: Path) -> AsyncIterator[Sinks]:
    sinks = Sinks(producer, SqliteDatabase(tmp_path))
    await sinks.database.start()
    await sinks.rows.start()
    yield sinks
    for reader in sinks.readers:
        await reader.stop()
    await sinks.database.stop()


async def read(reader: StoredUplink, count: int) -> list[UplinkRecord]:
    got: list[UplinkRecord] = []
    async with asyncio.timeout(HANG_GUARD_S):
        while len(got) < count:
            got += await reader.read("application", 100)
    return got


def numbers(records: Sequence[UplinkRecord]) -> list[int]:
    return [int(one.payload) for one in records]


async def test_what_was_stored_and_not_handled_when_a_sink_died_comes_again(sinks) -> None:
    repeated = record(1)
    await append(sinks.uplink, repeated, record(2), record(3, 1, repeated.message_id), record(4))
    first = sinks.reader()
    got = await read(first, 3)
    assert numbers(got) == [1, 2, 4]
    await first.flush("application", got[0].offset)
    await first.stop()
    second = sinks.reader()
    assert numbers(await read(second, 2)) == [2, 4]
    assert (first.repeats, second.repeats) == (1, 1)


async def test_while_the_store_is_away_nothing_is_lost(producer, tmp_path) -> None:
    with MariaDb(tmp_path / "mariadb") as mariadb:
        url = await asyncio.to_thread(mariadb.fresh_url)
        await migrate_shared(url)
        sinks = Sinks(producer, SharedDatabase(url))
        await sinks.database.start()
        await append(sinks.uplink, record(1), record(2))
        reader = sinks.reader()
        mariadb.kill()
        async with asyncio.timeout(HANG_GUARD_S):
            with pytest.raises(StoreUnavailable):
                await reader.read("application", 100)
            assert await append(sinks.uplink, record(3)) == [Status.OK]  # devices are not concerned
            await asyncio.to_thread(mariadb.restart)
            got: list[UplinkRecord] = []
            while len(got) < 3:
                with contextlib.suppress(StoreUnavailable):
                    got += await reader.read("application", 100)
        assert numbers(got) == [1, 2, 3]
        await reader.stop()
        await sinks.database.stop()


async def test_a_read_that_is_cancelled_while_it_stores_loses_nothing(sinks) -> None:
    await append(sinks.uplink, record(1), record(2))
    reader = sinks.reader()
    consumer = reader._reading("application")
    await asyncio.wait_for(_waits(consumer.member), HANG_GUARD_S)
    reading = asyncio.create_task(reader.read("application", 100))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert numbers(await read(reader, 2)) == [1, 2]


async def _waits(member) -> None:
    while not member._waiting:
        await asyncio.sleep(0.01)


async def test_messages_that_are_no_records_are_skipped_and_counted(sinks, producer, caplog) -> None:
    good = record(1)
    topic = producer.settings.uplink_topic
    headers = [("message_id", b"zz"), ("kind", b"k"), ("device_no", b"1"), ("sent_at_ms", b"1")]
    await producer.put(topic, b"d-1", b"", [])
    await producer.put(topic, b"d-1", b"hello", headers)
    right = [("message_id", b"00" * 16), *headers[1:]]
    for key, wrong in ((b"d 1", []), (b"d" * 65, []), (b"d-1", [("kind", b"k" * 65)]), (b"d-1", [("kind", b"a\0")])):
        await producer.put(topic, key, b"hello", [*right, *wrong])
    await producer.put(topic, b"d-1", b"hello", [*right, ("sent_at_ms", b"9" * 30)])
    await producer.put(topic, b"d-1", b"hello", [*headers[1:], ("message_id", b"00" * 16), ("device_no", b"-1")])
    await append(sinks.uplink, good)
    reader = sinks.reader()
    assert numbers(await read(reader, 1)) == [1]
    assert reader.malformed == 8
    assert caplog.text.count("is no record and is skipped") == 1


async def test_a_dead_letter_is_listed_told_to_its_topic_and_replayed_once(sinks, settings) -> None:
    await append(sinks.uplink, record(1))
    reader = sinks.reader()
    (got,) = await read(reader, 1)
    await reader.bury("application", got, "handler failed\nat line 1")
    await reader.flush("application", got.offset)
    (letter,) = await sinks.letters.dead_letters(0, 10)
    assert (letter.error, letter.record.payload, letter.record.trace) == ("handler failed\nat line 1", b"1", b"t" * 24)
    message = await asyncio.to_thread(_first_of, settings.servers, settings.dead_topic)
    told = dict(message.headers())
    assert (message.key(), message.value()) == (b"d-1", b"1")
    assert (told["consumer"], told["error"]) == (b"application", b"handler failed\nat line 1")
    assert await sinks.letters.replay(99) is None
    replayed = await sinks.letters.replay(letter.letter_no)
    assert replayed is not None
    assert replayed.replayed_at_ms == sinks.clock.now_ms()
    assert await sinks.letters.replay(letter.letter_no) == await sinks.letters.dead_letter(letter.letter_no) == replayed
    (again,) = await read(reader, 1)
    assert (again.payload, again.message_id) == (b"1", got.message_id)
    await append(sinks.uplink, record(2, 1, got.message_id), record(3))  # the device sends it once more
    assert numbers(await read(reader, 1)) == [3]


def _first_of(servers: str, topic: str):
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "anybody", "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    try:
        for _ in range(200):
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                return message
        raise TimeoutError
    finally:
        consumer.close()


async def test_two_sinks_share_the_devices_and_one_takes_over_from_the_other(sinks) -> None:
    """Through the sink itself: every record is handled, each device's in order, also when a sink leaves."""
    handled: list[tuple[int, int]] = []
    app = Longwire(threads=1)

    @app.uplink("kind")
    async def keep(number: int, ctx: Context) -> None:
        handled.append((ctx.device_no, number))

    def start() -> tuple[Sink, StoredUplink, asyncio.Task[None]]:
        reader = sinks.reader()
        sink = Sink(reader, app, clock=sinks.clock)
        return sink, reader, asyncio.create_task(sink.run())

    async def stop(sink: Sink, reader: StoredUplink, task: asyncio.Task[None]) -> None:
        await sink.stop()
        await task
        await reader.stop()

    async def all_handled(count: int) -> None:
        async with asyncio.timeout(HANG_GUARD_S):
            while {number for _, number in handled} != set(range(count)):
                await asyncio.sleep(0.01)

    one, other = start(), start()
    await append(sinks.uplink, *(record(n, 1 + n % 20) for n in range(300)))
    await all_handled(300)
    await stop(*one)
    await append(sinks.uplink, *(record(n, 1 + n % 20) for n in range(300, 400)))
    await all_handled(400)
    await stop(*other)
    for device_no in range(1, 21):
        firsts = list(dict.fromkeys(number for device, number in handled if device == device_no))
        assert firsts == sorted(firsts)
