"""Answers under Idempotency-Keys as a table: a row a key of a caller, good for a day.

The two functions serve whoever keeps an answer in the transaction of the deed itself (pushes).
"""

from sqlalchemy import Connection

from longwire.adapters.sql.database import SqliteDatabase
from longwire.push_model import KeptAnswer

KEPT_MS = 86_400_000
_COLUMNS = 'caller, "key", fingerprint, status, body, created_at_ms, location'
_FIND = f'SELECT {_COLUMNS} FROM idempotency WHERE caller = ? AND "key" = ?'
# One that is older than a day gives way: the sweeper may not have come to it yet.
_KEEP = f"INSERT OR REPLACE INTO idempotency ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"


def find_answer(connection: Connection, caller: str, key: str) -> KeptAnswer | None:
    """What was answered under this key, however long ago."""
    row = connection.exec_driver_sql(_FIND, (caller, key)).one_or_none()
    return None if row is None else KeptAnswer(*row)


def keep_answer(connection: Connection, answer: KeptAnswer) -> KeptAnswer | None:
    """Keeps the answer in the writer's transaction; gives the one of the last day, and then nothing is kept."""
    found = find_answer(connection, answer.caller, answer.key)
    if found is not None and found.created_at_ms > answer.created_at_ms - KEPT_MS:
        return found
    values = (
        answer.caller,
        answer.key,
        answer.fingerprint,
        answer.status,
        answer.body,
        answer.created_at_ms,
        answer.location,
    )
    connection.exec_driver_sql(_KEEP, values).close()
    return None


class SqlIdempotency:
    """ports.idempotency.IdempotencyStore on one database."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def find(self, caller: str, key: str) -> KeptAnswer | None:
        return await self._database.read(lambda connection: find_answer(connection, caller, key))

    async def keep(self, answer: KeptAnswer) -> KeptAnswer | None:
        return await self._database.write(lambda connection: keep_answer(connection, answer))
