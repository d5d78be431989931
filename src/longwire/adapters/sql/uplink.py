"""The uplink log as a table: appended in groups, read by consumers that each have a cursor."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection

from longwire.adapters.sql import bulk
from longwire.adapters.sql.column_types import fitting
from longwire.adapters.sql.database import Database
from longwire.adapters.sql.domains import Domain, take
from longwire.adapters.sql.events import SqlEvents
from longwire.adapters.sql.messages import ENVELOPE_BYTES
from longwire.adapters.sql.trace_refs import note_uplink_refs
from longwire.clock import Clock
from longwire.ids import prefixed
from longwire.model import UplinkRecord
from longwire.operations_model import Event
from longwire.ports.uplink import AppendCallback, DeadLetter
from longwire.reasons import Status

_COLUMNS = 'device_no, device_id, message_id, kind, payload, sent_at_ms, trace, "offset"'
_INSERT = f"INSERT OR IGNORE INTO uplink ({_COLUMNS}) VALUES {{rows}}"
_KEPT = 'SELECT "offset" FROM uplink WHERE "offset" BETWEEN ? AND ?'
_READ = f'SELECT {_COLUMNS} FROM uplink WHERE "offset" > ? ORDER BY "offset" LIMIT ?'
_CURSOR = 'SELECT "offset" FROM uplink_cursors WHERE consumer = ?'
_MOVE = (
    'INSERT INTO uplink_cursors (consumer, "offset") VALUES (?, ?)'
    ' ON CONFLICT (consumer) DO UPDATE SET "offset" = excluded."offset"'
    ' WHERE excluded."offset" > uplink_cursors."offset"'
)
_BURY = (
    "INSERT INTO dead_letters (letter_no, device_no, device_id, message_id, kind, payload, sent_at_ms, trace,"
    ' "offset", consumer, error, buried_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)'
)
_LETTER = (
    "SELECT letter_no, consumer, error, buried_at_ms, replayed_at_ms, device_no, device_id, message_id, kind,"
    ' payload, sent_at_ms, trace, "offset" FROM dead_letters'
)
_LETTERS = f"{_LETTER} WHERE letter_no < ? ORDER BY letter_no DESC LIMIT ?"
_ONE_LETTER = f"{_LETTER} WHERE letter_no = ?"
# What a device sent is in the log once (uq_uplink_message_device): the record moves to the end.
_TAKE_OUT = "DELETE FROM uplink WHERE device_no = ? AND message_id = ?"
_REPLAYED = "UPDATE dead_letters SET replayed_at_ms = ? WHERE letter_no = ?"
_ENDS = 'SELECT MIN("offset"), MAX("offset") FROM uplink'
_FOUND = f'SELECT {_COLUMNS} FROM uplink WHERE "offset" >= ? AND "offset" < ? AND sent_at_ms >= ?'
# Bounded by offsets, whatever matches: no index leads to a device's records.
_OF_DEVICE = " AND device_no = ?"
_OF_KIND = " AND kind = ?"
_NEWEST_FIRST = ' ORDER BY "offset" DESC LIMIT ?'
_ANY_SINCE = 'SELECT 1 FROM uplink WHERE "offset" >= ? AND "offset" < ? AND sent_at_ms >= ? LIMIT 1'
_NEWEST = 1 << 62
_MAX_LOOKED_AT = 10_000
_MAX_ERROR_CHARACTERS = 4_000
_MAX_TOLD_CHARACTERS = 500

_Append = tuple[UplinkRecord, AppendCallback]


def _row(record: UplinkRecord) -> tuple[object, ...]:
    return (
        record.device_no,
        record.device_id,
        record.message_id,
        record.kind,
        record.payload,
        record.sent_at_ms,
        record.trace,
        record.offset,
    )


class SqlUplinkLog:
    """ports.uplink.UplinkLog and ports.uplink.DeadLetters on one database.

    Where other processes append to it, readers look again every ``poll_s``.
    """

    def __init__(
        self, database: Database, clock: Clock, events: SqlEvents | None = None, poll_s: float | None = None
    ) -> None:
        self._database = database
        self._events = events
        self._poll_s = poll_s
        self._clock = clock
        self._next_offset = 0
        self._appends = database.stage(self._write, self._appended, self._refused, Domain.UPLINK)
        self._positions: dict[str, int] = {}
        self._grown = asyncio.Event()
        self.queued_bytes = 0

    async def start(self) -> None:
        """Finds the log's end, behind which SQLite's writer alone gives offsets."""
        last = await self._database.read(_last_offset)
        self._next_offset = last + 1

    def append(self, record: UplinkRecord, done: AppendCallback) -> None:
        self.queued_bytes += len(record.payload) + ENVELOPE_BYTES
        self._appends.add((record, done))

    async def read(self, consumer: str, limit: int) -> Sequence[UplinkRecord]:
        after = self._positions.get(consumer, 0)
        if not after or self._poll_s is not None:
            # Another process may have read for the consumer meanwhile.
            cursor: int = await self._database.read(lambda c: c.exec_driver_sql(_CURSOR, (consumer,)).scalar() or 0)
            after = max(after, cursor)
        while True:
            # Of this reader and of no other: one that cleared it for all would take the others' wake-up.
            grown = self._grown
            records = await self._database.read(lambda c: _read(c, after, limit))
            if records:
                self._positions[consumer] = records[-1].offset
                return records
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await grown.wait()

    def holds(self, consumer: str, record: UplinkRecord) -> bool:
        return True

    async def flush(self, consumer: str, offset: int) -> None:
        await self._database.write(lambda c: c.exec_driver_sql(_MOVE, (consumer, offset)).close(), Domain.UPLINK)

    async def bury(self, consumer: str, record: UplinkRecord, error: str) -> None:
        now_ms = self._clock.now_ms()
        buried = (*_row(record), consumer, fitting(error, _MAX_ERROR_CHARACTERS), now_ms)

        def write(connection: Connection) -> None:
            letter_no = take(connection, Domain.DEAD_LETTERS, 1)[0]
            result = connection.exec_driver_sql(_BURY, (letter_no, *buried))
            letter_no = letter_no or result.lastrowid
            if self._events is not None and self._events.wants("uplink.dead_letter"):
                self._events.note(connection, [_buried_event(record, letter_no, error, now_ms)])

        await self._database.write(write, Domain.DEAD_LETTERS, Domain.EVENTS)

    async def records(
        self, before: int, device_no: int | None, kind: str | None, since_ms: int, limit: int
    ) -> tuple[Sequence[UplinkRecord], int | None]:
        return await self._database.read(lambda c: _records(c, before, device_no, kind, since_ms, limit))

    async def dead_letters(self, after: int, limit: int) -> Sequence[DeadLetter]:
        values = (after or _NEWEST, limit)
        return await self._database.read(lambda c: [_letter_of(row) for row in c.exec_driver_sql(_LETTERS, values)])

    async def dead_letter(self, letter_no: int) -> DeadLetter | None:
        return await self._database.read(lambda c: _find_letter(c, letter_no))

    async def replay(self, letter_no: int) -> DeadLetter | None:
        now_ms = self._clock.now_ms()
        letter = await self._database.write(
            lambda c: self._replay(c, letter_no, now_ms), Domain.UPLINK, Domain.DEAD_LETTERS
        )
        self._grow()
        return letter

    def _replay(self, connection: Connection, letter_no: int, now_ms: int) -> DeadLetter | None:
        letter = _find_letter(connection, letter_no)
        if letter is None or letter.replayed_at_ms is not None:
            return letter
        record = letter.record
        connection.exec_driver_sql(_TAKE_OUT, (record.device_no, record.message_id)).close()
        row = (*_row(record)[:-1], self._offsets(connection, 1))
        bulk.execute(connection, _INSERT, [row])
        connection.exec_driver_sql(_REPLAYED, (now_ms, letter_no)).close()
        return replace(letter, replayed_at_ms=now_ms)

    def _offsets(self, connection: Connection, count: int) -> int:
        """The first of so many new offsets."""
        first = take(connection, Domain.UPLINK, count)[0]
        if first is None:
            first = self._next_offset
            self._next_offset += count
        return first

    def _grow(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    def _appended(self, item: _Append, status: Status) -> None:
        record, done = item
        self.queued_bytes -= len(record.payload) + ENVELOPE_BYTES
        self._grow()
        done(record, status)

    def _refused(self, item: _Append, _error: Exception) -> None:
        record, done = item
        self.queued_bytes -= len(record.payload) + ENVELOPE_BYTES
        done(record, Status.NOT_DURABLE)

    def _write(self, connection: Connection, items: list[_Append]) -> list[Status]:
        first = self._offsets(connection, len(items))
        for offset, (record, _) in enumerate(items, first):
            record.offset = offset
        kept = bulk.execute(connection, _INSERT, [_row(record) for record, _ in items])
        note_uplink_refs(connection, [record for record, _ in items])
        if kept == len(items):
            return [Status.OK] * len(items)
        last = first + len(items) - 1
        new = {offset for (offset,) in connection.exec_driver_sql(_KEPT, (first, last))}
        return [Status.OK if record.offset in new else Status.DUPLICATE for record, _ in items]


def _last_offset(connection: Connection) -> int:
    # The log may have been swept empty: then the cursors still know how far it went.
    last: int = connection.exec_driver_sql(
        'SELECT MAX(COALESCE((SELECT MAX("offset") FROM uplink), 0),'
        ' COALESCE((SELECT MAX("offset") FROM uplink_cursors), 0))'
    ).scalar_one()
    return last


def _read(connection: Connection, after: int, limit: int) -> list[UplinkRecord]:
    return [UplinkRecord(*row) for row in connection.exec_driver_sql(_READ, (after, limit))]


def _records(
    connection: Connection, before: int, device_no: int | None, kind: str | None, since_ms: int, limit: int
) -> tuple[list[UplinkRecord], int | None]:
    first, last = connection.exec_driver_sql(_ENDS).one()
    if first is None:
        return [], None
    high = min(before or _NEWEST, last + 1)
    low = high - _MAX_LOOKED_AT
    statement, wanted = _FOUND, [low, high, since_ms]
    for condition, value in ((_OF_DEVICE, device_no), (_OF_KIND, kind)):
        if value is not None:
            statement += condition
            wanted.append(value)
    rows = connection.exec_driver_sql(statement + _NEWEST_FIRST, (*wanted, limit))
    found = [UplinkRecord(*row) for row in rows]
    if len(found) == limit:
        return found, found[-1].offset
    # The log is in the order of time but for replayed letters: so many old ones in a row are its old part.
    is_old = connection.exec_driver_sql(_ANY_SINCE, (low, high, since_ms)).first() is None
    return found, None if low <= first or is_old else low


def _find_letter(connection: Connection, letter_no: int) -> DeadLetter | None:
    row = connection.exec_driver_sql(_ONE_LETTER, (letter_no,)).one_or_none()
    return None if row is None else _letter_of(row)


def _buried_event(record: UplinkRecord, letter_no: int, error: str, now_ms: int) -> Event:
    told = {
        "device_id": record.device_id,
        "letter_id": f"ltr_{letter_no}",
        "message_id": prefixed("msg", record.message_id),
        "message_kind": record.kind,
        "error": error[:_MAX_TOLD_CHARACTERS],
    }
    return Event("uplink.dead_letter", now_ms, 0, msgspec.json.encode(told))


def _letter_of(row: Sequence[Any]) -> DeadLetter:
    letter_no, consumer, error, buried_at_ms, replayed_at_ms, *record = row
    return DeadLetter(letter_no, consumer, UplinkRecord(*record), error, buried_at_ms, replayed_at_ms)
