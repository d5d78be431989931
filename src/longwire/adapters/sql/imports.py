"""Jobs that register devices from files, on the SQL database: one row a job, rewritten with every step."""

from collections.abc import Sequence
from typing import Any

import msgspec

from longwire.adapters.sql.database import Database
from longwire.operations_model import Import

_COLUMNS = "import_id, status, format, created_at_ms, lines, done, failed, errors, ended_at_ms"
_PUT = f"""
INSERT INTO imports ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (import_id) DO UPDATE SET status = excluded.status, lines = excluded.lines, done = excluded.done,
    failed = excluded.failed, errors = excluded.errors, ended_at_ms = excluded.ended_at_ms
"""
_FIND = f"SELECT {_COLUMNS} FROM imports WHERE import_id = ?"
_PAGE = f"SELECT {_COLUMNS} FROM imports WHERE import_id < ? ORDER BY import_id DESC LIMIT ?"
_NEWEST = b"\xff" * 17
_RUNNING = f"SELECT {_COLUMNS} FROM imports WHERE status = 'running' ORDER BY import_id"
_errors = msgspec.json.Decoder(tuple[tuple[int, str, str], ...])


class SqlImports:
    """ports.imports.ImportStore on one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, job: Import) -> None:
        errors = msgspec.json.encode(job.errors).decode()
        counts = (job.lines, job.done, job.failed)
        values = (job.import_id, job.status, job.format, job.created_at_ms, *counts, errors, job.ended_at_ms)
        await self._database.write(lambda connection: connection.exec_driver_sql(_PUT, values).close())

    async def find(self, import_id: bytes) -> Import | None:
        found = await self._rows(_FIND, (import_id,))
        return found[0] if found else None

    async def page(self, before_id: bytes, limit: int) -> Sequence[Import]:
        return await self._rows(_PAGE, (before_id or _NEWEST, limit))

    async def running(self) -> Sequence[Import]:
        return await self._rows(_RUNNING, ())

    async def _rows(self, statement: str, values: tuple[Any, ...]) -> list[Import]:
        rows = await self._database.read(lambda connection: connection.exec_driver_sql(statement, values).fetchall())
        return [_import_of(row) for row in rows]


def _import_of(row: Any) -> Import:
    import_id, status, format_, created_at_ms, lines, done, failed, errors, ended_at_ms = row
    return Import(import_id, status, format_, created_at_ms, lines, done, failed, _errors.decode(errors), ended_at_ms)
