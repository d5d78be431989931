"""How devices were last seen, on the SQL database: a row a device, and one a past connection, written as it ends."""

import logging
from collections.abc import Sequence
from operator import itemgetter

from sqlalchemy import Connection

from longwire.adapters.sql import bulk
from longwire.adapters.sql.database import Database
from longwire.operations_model import LastSession

log = logging.getLogger(__name__)

# A session may end because its device was deleted: then there is nothing to keep.
_KNOWN = "SELECT device_no FROM devices WHERE device_no IN ({rows})"
_PUT = """
INSERT INTO presence (device_no, version, ended_at_ms, node_id, transport, close_code) VALUES {rows}
ON CONFLICT (device_no) DO UPDATE SET version = excluded.version, ended_at_ms = excluded.ended_at_ms,
    node_id = excluded.node_id, transport = excluded.transport, close_code = excluded.close_code
WHERE excluded.version > presence.version
"""
_PAST = """
INSERT OR IGNORE INTO past_sessions (device_no, epoch, began_at_ms, ended_at_ms, node_id, transport, close_code)
VALUES {rows}
"""
_FIND = """
SELECT device_no, version, ended_at_ms, node_id, transport, close_code FROM presence WHERE device_no IN ({rows})
"""


class SqlPresence:
    """ports.presence.PresenceStore on one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stage = database.stage(_put, lambda _session, _done: None, _lost)

    def ended(self, session: LastSession) -> None:
        self._stage.add(session)

    async def last_sessions(self, device_nos: Sequence[int]) -> list[LastSession | None]:
        wanted = list(device_nos)

        def read(connection: Connection) -> list[LastSession | None]:
            found = {row[0]: LastSession(*row) for row in bulk.select_in(connection, _FIND, dict.fromkeys(wanted))}
            return [found.get(device_no) for device_no in wanted]

        return await self._database.read(read)


def _put(connection: Connection, sessions: list[LastSession]) -> list[None]:
    latest = {session.device_no: session for session in sorted(sessions, key=lambda session: session.version)}
    known = {device_no for (device_no,) in bulk.select_in(connection, _KNOWN, latest)}
    # In one order for all processes: they write without a lock.
    rows = [
        (s.device_no, s.version, s.ended_at_ms, s.node_id, s.transport, s.close_code)
        for s in (latest[device_no] for device_no in sorted(known))
    ]
    bulk.execute(connection, _PUT, rows)
    past = [
        (
            s.device_no,
            s.version >> 1,
            s.began_at_ms or s.ended_at_ms,
            s.ended_at_ms,
            s.node_id,
            s.transport,
            s.close_code,
        )
        for s in sessions
        if s.device_no in known
    ]
    bulk.execute(connection, _PAST, sorted(past, key=itemgetter(0, 1)))
    return [None] * len(sessions)


def _lost(session: LastSession, error: Exception) -> None:
    log.warning("how device %d was last seen is not kept: %s", session.device_no, error)
