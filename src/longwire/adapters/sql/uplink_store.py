"""What the sink reads of the uplink log on Kafka, kept as rows: for queries, webhooks, and to know repeats.

A row remembers where its record stands in the log. So a record that comes again because a sink died before it was
handled (the same position) is told from a message that its device sent again (another one): the first is handed on,
the second is not.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection

from longwire.adapters.sql import bulk
from longwire.adapters.sql.database import Database
from longwire.adapters.sql.domains import Domain, take
from longwire.adapters.sql.trace_refs import note_uplink_refs
from longwire.model import UplinkRecord

_INSERT = (
    'INSERT OR IGNORE INTO uplink ("offset", device_no, device_id, message_id, kind, payload, sent_at_ms, trace,'
    " log_position) VALUES {rows}"
)
_POSITIONS = "SELECT device_no, message_id, log_position FROM uplink WHERE (message_id, device_no) IN (VALUES {rows})"
_TAKE_OUT = "DELETE FROM uplink WHERE device_no = ? AND message_id = ? AND (log_position IS NULL OR log_position <> ?)"
_OFFSET = 'SELECT "offset" FROM uplink WHERE device_no = ? AND message_id = ?'
_REPLAYED = "UPDATE dead_letters SET replayed_at_ms = ? WHERE letter_no = ? AND replayed_at_ms IS NULL"
_KEYS = 64
"""Of records sought in one statement."""


class Arrived(NamedTuple):
    """A record as it came from Kafka."""

    record: UplinkRecord
    position: int
    """Its place in the log: the partition << 48 | the offset in it."""
    is_replay: bool
    """An operator sent it again: it is no repeat of its device."""


class SqlUplinkStore:
    """The rows of ``uplink`` as the consumer of another log keeps them. Every call raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def store(self, arrived: Sequence[Arrived]) -> list[bool]:
        """Durably keeps records, in their order; whether each is to be handed on. The same call again says the same."""
        return await self._database.write(lambda connection: _store(connection, arrived), Domain.UPLINK)

    async def offset_of(self, record: UplinkRecord) -> int:
        """The number of the record's row; 0 where it is not kept any more."""
        wanted = (record.device_no, record.message_id)
        return await self._database.read(lambda connection: connection.exec_driver_sql(_OFFSET, wanted).scalar() or 0)

    async def mark_replayed(self, letter_no: int, now_ms: int) -> None:
        """The letter's record is in the log again."""
        values = (now_ms, letter_no)
        await self._database.write(lambda c: c.exec_driver_sql(_REPLAYED, values).close(), Domain.DEAD_LETTERS)


def _store(connection: Connection, arrived: Sequence[Arrived]) -> list[bool]:
    for record, position, is_replay in arrived:
        if is_replay:
            connection.exec_driver_sql(_TAKE_OUT, (record.device_no, record.message_id, position)).close()
    offsets = take(connection, Domain.UPLINK, len(arrived))
    rows = [
        (
            offset,
            record.device_no,
            record.device_id,
            record.message_id,
            record.kind,
            record.payload,
            record.sent_at_ms,
            record.trace,
            position,
        )
        for offset, (record, position, _) in zip(offsets, arrived, strict=True)
    ]
    kept = bulk.execute(connection, _INSERT, rows)
    note_uplink_refs(connection, [record for record, _, _ in arrived])
    if kept == len(rows):
        return [True] * len(rows)
    positions = {
        (device_no, bytes(message_id)): position for device_no, message_id, position in _positions(connection, arrived)
    }
    return [positions[record.device_no, record.message_id] == position for record, position, _ in arrived]


def _positions(connection: Connection, arrived: Sequence[Arrived]) -> Iterator[Sequence[Any]]:
    for at in range(0, len(arrived), _KEYS):
        some = arrived[at : at + _KEYS]
        statement = _POSITIONS.format(rows=",".join(["(?, ?)"] * len(some)))
        keys = [value for record, _, _ in some for value in (record.message_id, record.device_no)]
        yield from connection.exec_driver_sql(statement, tuple(keys))
