"""The audit as a table: entries are gathered into the next commit, nobody waits for them."""

import logging
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from longwire.adapters.sql import bulk
from longwire.adapters.sql.column_types import fitting
from longwire.adapters.sql.database import Database
from longwire.adapters.sql.domains import Domain, take
from longwire.operations_model import AuditEntry

log = logging.getLogger(__name__)

_COLUMNS = "at_ms, caller, action, target, status, request_id"
_INSERT = f"INSERT INTO audit (audit_no, {_COLUMNS}) VALUES {{rows}}"
_PAGE = f"SELECT {_COLUMNS}, audit_no FROM audit WHERE {{which}} ORDER BY audit_no DESC LIMIT ?"
_NEWEST = 1 << 62


class SqlAudit:
    """ports.audit.AuditLog on one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._entries = database.stage(_write, lambda _entry, _: None, _lose, Domain.AUDIT)

    def append(self, entry: AuditEntry) -> None:
        self._entries.add(entry)

    async def entries(
        self, before_no: int, limit: int, *, caller: str = "", action: str = "", since_ms: int = 0
    ) -> Sequence[AuditEntry]:
        which: list[tuple[str, tuple[Any, ...]]] = [("audit_no < ?", (before_no or _NEWEST,))]
        if caller:
            which.append(("caller = ?", (caller,)))
        if action:
            which.append(("SUBSTR(action, 1, ?) = ?", (len(action), action)))
        if since_ms:
            which.append(("at_ms >= ?", (since_ms,)))
        page = _PAGE.format(which=" AND ".join(condition for condition, _ in which))
        values = (*(value for _, given in which for value in given), limit)
        return await self._database.read(lambda c: [AuditEntry(*row) for row in c.exec_driver_sql(page, values)])


def _write(connection: Connection, entries: list[AuditEntry]) -> list[None]:
    numbers = take(connection, Domain.AUDIT, len(entries))
    rows = [
        (number, e.at_ms, e.caller, e.action, fitting(e.target, 128), e.status, fitting(e.request_id, 64))
        for number, e in zip(numbers, entries, strict=True)
    ]
    bulk.execute(connection, _INSERT, rows)
    return [None] * len(entries)


def _lose(entry: AuditEntry, error: Exception) -> None:
    log.warning("the audit lacks %s by %s on %r: %s", entry.action, entry.caller, entry.target, error)
