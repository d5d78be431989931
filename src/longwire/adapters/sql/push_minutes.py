"""The course of a push over time, on the SQL database. Merges write ``push_minutes`` (push_segments.py)."""

from sqlalchemy import Connection

from longwire.adapters.sql.database import Database
from longwire.histogram import Histogram
from longwire.ports.push_progress import Course, Minute

_FIND = "SELECT push_no FROM pushes WHERE push_id = ?"
_MINUTES = "SELECT minute, written, acked FROM push_minutes WHERE push_no = ? ORDER BY minute"
_LATENCIES = "SELECT latency FROM push_segments WHERE push_no = ? AND latency IS NOT NULL"
_REASONS = "SELECT reason, COUNT(*) FROM push_failures WHERE push_no = ? GROUP BY reason ORDER BY reason"


class SqlPushProgress:
    """ports.push_progress.PushProgress on one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, push_id: bytes) -> Course | None:
        return await self._database.read(lambda connection: _read(connection, push_id))


def _read(connection: Connection, push_id: bytes) -> Course | None:
    push_no = connection.exec_driver_sql(_FIND, (push_id,)).scalar_one_or_none()
    if push_no is None:
        return None
    minutes = connection.exec_driver_sql(_MINUTES, (push_no,)).fetchall()
    latency = Histogram()
    for (blob,) in connection.exec_driver_sql(_LATENCIES, (push_no,)):
        latency.merge(Histogram.load(blob))
    reasons = connection.exec_driver_sql(_REASONS, (push_no,)).fetchall()
    return Course(
        tuple(Minute(minute * 60_000, written, acked) for minute, written, acked in minutes),
        latency,
        {row.reason: row[1] for row in reasons},
    )
