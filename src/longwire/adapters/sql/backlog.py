"""How much waits in the tables: a few counts, each bounded, on a reader."""

from sqlalchemy import Connection

from longwire.adapters.sql.database import Database
from longwire.adapters.sql.push_schedule import LIVE
from longwire.clock import Clock
from longwire.ports.backlog import Backlog

_MOST = 1_000_000
_FURTHER = _MOST + 1
"""More than a million is told as a million and one."""

# One look for both: the key begins with the device, so that no index has the oldest at its edge.
_INBOX = "SELECT COUNT(*), MIN(seq) FROM (SELECT seq FROM inbox LIMIT ?) AS waiting"
_SENT_AT = "SELECT sent_at_ms FROM messages WHERE seq = ?"
_PUSHES = (
    "SELECT COALESCE(SUM(s.n_rest), 0) FROM push_segments AS s"
    f" WHERE s.push_no IN (SELECT push_no FROM pushes WHERE {LIVE})"
)
_EVENTS = "SELECT COUNT(*) FROM (SELECT event_no FROM events LIMIT ?) AS waiting"
_LETTERS = "SELECT COUNT(*) FROM (SELECT letter_no FROM dead_letters WHERE replayed_at_ms IS NULL LIMIT ?) AS waiting"


class SqlBacklog:
    """ports.backlog.BacklogStore on one database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def look(self) -> Backlog:
        now_ms = self._clock.now_ms()
        return await self._database.read(lambda connection: _count(connection, now_ms))


def _count(connection: Connection, now_ms: int) -> Backlog:
    inbox, oldest_seq = connection.exec_driver_sql(_INBOX, (_FURTHER,)).one()
    oldest_ms = None
    if oldest_seq is not None:
        # None also where it went meanwhile.
        oldest_ms = connection.exec_driver_sql(_SENT_AT, (oldest_seq,)).scalar_one_or_none()
    pending = int(connection.exec_driver_sql(_PUSHES).scalar_one())
    return Backlog(
        now_ms,
        inbox,
        oldest_ms,
        min(pending, _FURTHER),
        connection.exec_driver_sql(_EVENTS, (_FURTHER,)).scalar_one(),
        connection.exec_driver_sql(_LETTERS, (_FURTHER,)).scalar_one(),
    )
