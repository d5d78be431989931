"""Commands to devices, and what became of them."""

from typing import Any

from sqlalchemy import Connection

from longwire.adapters.sql.column_types import fitting
from longwire.adapters.sql.database import Database
from longwire.adapters.sql.trace_refs import note_refs
from longwire.operations_model import Command, CommandStatus
from longwire.ports.trace_rows import RefKind

_COLUMNS = (
    "command_id, device_no, device_id, method, payload, created_at_ms, timeout_ms,"
    " status, reply_status, reply, detail, replied_at_ms, is_late"
)
_ADD = f"INSERT OR IGNORE INTO commands ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
# Who asked for a reply in vain and who brought it late may come in either order: the reply stays.
_FINISH = (
    "UPDATE commands SET status = ?, reply_status = ?, reply = ?, detail = ?, replied_at_ms = ?, is_late = ?"
    " WHERE command_id = ? AND replied_at_ms IS NULL"
)
_FIND = f"SELECT {_COLUMNS} FROM commands WHERE command_id = ?"
_MAX_DETAIL_CHARACTERS = 255


class SqlCommands:
    """ports.commands.CommandStore on one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, command: Command, trace: bytes = b"") -> bool:
        row = (
            command.command_id,
            command.device_no,
            command.device_id,
            command.method,
            command.payload,
            command.created_at_ms,
            command.timeout_ms,
            *_outcome(command),
        )

        def write(connection: Connection) -> bool:
            is_new = connection.exec_driver_sql(_ADD, row).rowcount == 1
            if is_new and trace:
                note_refs(connection, RefKind.COMMAND, [(trace, command.command_id, command.created_at_ms)])
            return is_new

        return await self._database.write(write)

    async def finish(self, command: Command) -> None:
        values = (*_outcome(command), command.command_id)
        await self._database.write(lambda c: c.exec_driver_sql(_FINISH, values).close())

    async def find(self, command_id: bytes) -> Command | None:
        return await self._database.read(lambda c: _find(c, command_id))


def _outcome(command: Command) -> tuple[object, ...]:
    return (
        str(command.status),
        command.reply_status,
        command.reply,
        fitting(command.detail, _MAX_DETAIL_CHARACTERS),
        command.replied_at_ms,
        command.is_late,
    )


def _find(connection: Connection, command_id: bytes) -> Command | None:
    row = connection.exec_driver_sql(_FIND, (command_id,)).mappings().one_or_none()
    if row is None:
        return None
    values: dict[str, Any] = dict(row)
    return Command(**values | {"status": CommandStatus(row["status"]), "is_late": bool(row["is_late"])})
