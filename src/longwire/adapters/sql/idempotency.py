"""Answers under Idempotency-Keys as a table: a row a key of a caller, good for a day.

The two functions serve whoever keeps an answer in the transaction of the deed itself (pushes).
"""

from sqlalchemy import Connection

from longwire.adapters.sql.database import Database
from longwire.push_model import KeptAnswer

KEPT_MS = 86_400_000
_COLUMNS = 'caller, "key", fingerprint, status, body, created_at_ms, location'
_FIND = f'SELECT {_COLUMNS} FROM idempotency WHERE caller = ? AND "key" = ?'
_KEEP = f"INSERT OR IGNORE INTO idempotency ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
_REPLACE = (
    "UPDATE idempotency SET fingerprint = ?, status = ?, body = ?, created_at_ms = ?, location = ?"
    ' WHERE caller = ? AND "key" = ?'
)


def find_answer(connection: Connection, caller: str, key: str) -> KeptAnswer | None:
    """What was answered under this key, however long ago."""
    row = connection.exec_driver_sql(_FIND, (caller, key)).one_or_none()
    return None if row is None else KeptAnswer(*row)


def keep_answer(connection: Connection, answer: KeptAnswer) -> KeptAnswer | None:
    """Keeps the answer in the writer's transaction; gives the one of the last day, and then nothing is kept."""
    values = (answer.fingerprint, answer.status, answer.body, answer.created_at_ms, answer.location)
    # Of several that come at once, in whatever process, one inserts it and the others see that.
    if connection.exec_driver_sql(_KEEP, (answer.caller, answer.key, *values)).rowcount == 1:
        return None
    found = find_answer(connection, answer.caller, answer.key)
    if found is not None and found.created_at_ms > answer.created_at_ms - KEPT_MS:
        return found
    # One that is older than a day gives way: the sweeper may not have come to it yet.
    connection.exec_driver_sql(_REPLACE, (*values, answer.caller, answer.key)).close()
    return None


class SqlIdempotency:
    """ports.idempotency.IdempotencyStore on one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, caller: str, key: str) -> KeptAnswer | None:
        return await self._database.read(lambda connection: find_answer(connection, caller, key))

    async def keep(self, answer: KeptAnswer) -> KeptAnswer | None:
        return await self._database.write(lambda connection: keep_answer(connection, answer))
