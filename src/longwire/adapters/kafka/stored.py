"""The uplink log's far end on Kafka: what the sink reads, with its repeats taken out.

    Kafka ─► member of the group ─► one write of SQL: new rows, repeats known ─► the sink ─► handlers
                    ▲                                                              │
                    └────────────── offsets of the partitions ◄──────── flush ─────┘

Kafka says what is to be done, SQL what was there before. While SQL is away nothing is read on, and nothing is lost.
"""

import logging
from collections.abc import Sequence

from msgspec.structs import replace

from longwire.adapters.kafka.group import GroupMember, Taken
from longwire.adapters.kafka.producer import KafkaProducer
from longwire.adapters.kafka.records import CONSUMER, ERROR, REPLAY, headers_of, record_of
from longwire.adapters.sql.database import Database
from longwire.adapters.sql.uplink import SqlUplinkLog
from longwire.adapters.sql.uplink_store import Arrived, SqlUplinkStore
from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.model import UplinkRecord
from longwire.ports.uplink import DeadLetter

log = logging.getLogger(__name__)

_MAX_ERROR_CHARACTERS = 4_000


class _Consumer:
    """One name that reads, and what it has taken that SQL does not have yet."""

    __slots__ = ("member", "unstored")

    def __init__(self, member: GroupMember) -> None:
        self.member = member
        self.unstored: list[Taken] = []


class StoredUplink:
    """ports.uplink.UplinkReader. A consumer joins its group with its first ``read``.

    Offsets are this reader's own numbers of the records. A message that a device sent twice is given once, as long
    as its row is kept (retention.py); a record whose handler had not run when a sink died comes again.
    """

    def __init__(self, producer: KafkaProducer, database: Database, letters: SqlUplinkLog) -> None:
        self.malformed = 0
        """Messages of the topic that are no records: skipped."""
        self.repeats = 0
        """Messages that their devices had sent before: skipped."""
        self._producer = producer
        self._settings = producer.settings
        self._rows = SqlUplinkStore(database)
        self._letters = letters
        self._consumers: dict[str, _Consumer] = {}
        self._is_stopped = False

    async def stop(self) -> None:
        """Leaves the groups: what is not flushed comes again, here or at another sink."""
        self._is_stopped = True
        for consumer in self._consumers.values():
            await consumer.member.stop()

    async def read(self, consumer: str, limit: int) -> Sequence[UplinkRecord]:
        reading = self._reading(consumer)
        member = reading.member
        while True:
            if not reading.unstored:
                reading.unstored = await member.take(limit)
            batch = reading.unstored[:limit]
            arrived = self._arrived(batch)
            is_new = await self._rows.store(arrived) if arrived else []
            # A reader that is cancelled before this finds the same again, and SQL says the same of it.
            del reading.unstored[: len(batch)]
            self.repeats += len(is_new) - sum(is_new)
            records = [one.record for one, is_handed_on in zip(arrived, is_new, strict=True) if is_handed_on]
            records = [record for record in records if member.holds(record.offset)]
            if records:
                return records

    def holds(self, consumer: str, record: UplinkRecord) -> bool:
        reading = self._consumers.get(consumer)
        return reading is not None and reading.member.holds(record.offset)

    async def flush(self, consumer: str, offset: int) -> None:
        await self._reading(consumer).member.commit(offset)

    async def bury(self, consumer: str, record: UplinkRecord, error: str) -> None:
        error = error[:_MAX_ERROR_CHARACTERS]
        headers = [*headers_of(record), (CONSUMER, consumer.encode()), (ERROR, error.encode(errors="replace"))]
        kept = replace(record, offset=await self._rows.offset_of(record))
        await self._producer.put(self._settings.dead_topic, record.device_id.encode(), record.payload, headers)
        await self._letters.bury(consumer, kept, error)

    def _reading(self, consumer: str) -> _Consumer:
        if self._is_stopped:
            raise StoreUnavailable("this reader of the uplink log is stopped")
        reading = self._consumers.get(consumer)
        if reading is None:
            member = GroupMember(self._settings, consumer, self._settings.uplink_topic)
            member.start()
            reading = self._consumers[consumer] = _Consumer(member)
        return reading

    def _arrived(self, batch: Sequence[Taken]) -> list[Arrived]:
        arrived: list[Arrived] = []
        for taken in batch:
            try:
                record, letter_no = record_of(taken.message, taken.number)
            except ValueError as error:
                self.malformed += 1
                if self.malformed == 1:
                    log.warning("a message of %s is no record and is skipped: %s", self._settings.uplink_topic, error)
                continue
            arrived.append(Arrived(record, taken.position, letter_no > 0))
        return arrived


class KafkaDeadLetters:
    """ports.uplink.DeadLetters: listed from SQL, replayed through Kafka."""

    def __init__(self, producer: KafkaProducer, database: Database, letters: SqlUplinkLog, clock: Clock) -> None:
        self._producer = producer
        self._rows = SqlUplinkStore(database)
        self._letters = letters
        self._clock = clock

    async def dead_letters(self, after: int, limit: int) -> Sequence[DeadLetter]:
        return await self._letters.dead_letters(after, limit)

    async def dead_letter(self, letter_no: int) -> DeadLetter | None:
        return await self._letters.dead_letter(letter_no)

    async def replay(self, letter_no: int) -> DeadLetter | None:
        letter = await self._letters.dead_letter(letter_no)
        if letter is None or letter.replayed_at_ms is not None:
            return letter
        record, now_ms = letter.record, self._clock.now_ms()
        headers = [*headers_of(record), (REPLAY, b"%d" % letter_no)]
        # Kafka first: should the mark fail, the letter is replayed once more, and not never.
        await self._producer.put(
            self._producer.settings.uplink_topic, record.device_id.encode(), record.payload, headers
        )
        await self._rows.mark_replayed(letter_no, now_ms)
        return replace(letter, replayed_at_ms=now_ms)
