"""The audit as a table: entries are gathered into the next commit, nobody waits for them."""

import logging
from collections.abc import Sequence

from sqlalchemy import Connection

from longwire.adapters.sql import bulk
from longwire.adapters.sql.database import SqliteDatabase
from longwire.operations_model import AuditEntry

log = logging.getLogger(__name__)

_COLUMNS = "at_ms, caller, action, target, status, request_id"
_INSERT = f"INSERT INTO audit ({_COLUMNS}) VALUES {{rows}}"
_PAGE = f"SELECT {_COLUMNS}, audit_no FROM audit WHERE audit_no < ? ORDER BY audit_no DESC LIMIT ?"
_NEWEST = 1 << 62


class SqlAudit:
    """ports.audit.AuditLog on one database."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database
        self._entries = database.stage(_write, lambda _entry, _: None, _lose)

    def append(self, entry: AuditEntry) -> None:
        self._entries.add(entry)

    async def entries(self, before_no: int, limit: int) -> Sequence[AuditEntry]:
        values = (before_no or _NEWEST, limit)
        return await self._database.read(lambda c: [AuditEntry(*row) for row in c.exec_driver_sql(_PAGE, values)])


def _write(connection: Connection, entries: list[AuditEntry]) -> list[None]:
    rows = [(e.at_ms, e.caller, e.action, e.target, e.status, e.request_id) for e in entries]
    bulk.execute(connection, _INSERT, rows)
    return [None] * len(entries)


def _lose(entry: AuditEntry, error: Exception) -> None:
    log.warning("the audit lacks %s by %s on %r: %s", entry.action, entry.caller, entry.target, error)
