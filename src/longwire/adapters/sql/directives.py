"""Directives on the SQL database: a few rows, read by every process every two seconds."""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import asdict
from sqlalchemy import Connection, delete, func, insert, select

from longwire.adapters.sql.database import Database
from longwire.adapters.sql.domains import Domain, take
from longwire.adapters.sql.tables import directives
from longwire.ports.directives import Directive

_COLUMNS = (
    directives.c.kind,
    directives.c.name,
    directives.c.value,
    directives.c.caller,
    directives.c.created_at_ms,
    directives.c.until_ms,
)
_MOST = 200


class SqlDirectives:
    """ports.directives.DirectiveStore on one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, directive: Directive, limit: int) -> bool:
        return await self._database.write(lambda c: _put(c, directive, limit), Domain.DIRECTIVES)

    async def remove(self, kind: str, name: str = "", value: str = "") -> bool:
        wanted = directives.c.name == name if name else directives.c.value == value
        gone = delete(directives).where(directives.c.kind == kind, wanted)

        def write(connection: Connection) -> bool:
            return connection.execute(gone).rowcount > 0

        return await self._database.write(write, Domain.DIRECTIVES)

    async def live(self, now_ms: int) -> Sequence[Directive]:
        query = select(*_COLUMNS).where(directives.c.until_ms > now_ms).order_by(directives.c.directive_no).limit(_MOST)
        return await self._database.read(lambda c: [Directive(*row) for row in c.execute(query).fetchall()])


def _put(connection: Connection, directive: Directive, limit: int) -> bool:
    same_kind, same_name = directives.c.kind == directive.kind, directives.c.name == directive.name
    others = select(func.count()).where(same_kind, ~same_name, directives.c.until_ms > directive.created_at_ms)
    if connection.execute(others).scalar_one() >= limit:
        return False
    connection.execute(delete(directives).where(same_kind, same_name)).close()
    [number] = take(connection, Domain.DIRECTIVES, 1)
    values: dict[str, Any] = asdict(directive)
    if number is not None:
        values["directive_no"] = number
    connection.execute(insert(directives).values(values)).close()
    return True
