"""People and their sessions on the SQL database."""

from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from longwire.adapters.sql.database import Database
from longwire.adapters.sql.domains import Domain, take
from longwire.adapters.sql.tables import people, person_sessions
from longwire.ports.people import Person, PersonSession

_COLUMNS = (
    people.c.person_no,
    people.c.name,
    people.c.role,
    people.c.password_hash,
    people.c.created_at_ms,
    people.c.changed_at_ms,
    people.c.last_login_ms,
    people.c.is_disabled,
    people.c.must_change,
)
_SESSION_COLUMNS = (
    person_sessions.c.token_hash,
    person_sessions.c.person_no,
    person_sessions.c.created_at_ms,
    person_sessions.c.seen_at_ms,
    person_sessions.c.expires_at_ms,
)


class SqlPeople:
    """ports.people.PeopleStore on one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, person: Person) -> bool:
        return await self._database.write(lambda c: _add(c, person), Domain.PEOPLE)

    async def all_people(self) -> list[Person]:
        query = select(*_COLUMNS).order_by(people.c.name)
        return await self._database.read(lambda c: [_person_of(row) for row in c.execute(query).fetchall()])

    async def find(self, name: str) -> Person | None:
        return await self._database.read(lambda c: _find(c, name))

    async def change(self, name: str, role: str | None, is_disabled: bool | None) -> Person | None:
        return await self._database.write(lambda c: _change(c, name, role, is_disabled), Domain.PEOPLE)

    async def set_password(
        self, name: str, password_hash: str, must_change: bool, now_ms: int, keeps: bytes = b""
    ) -> bool:
        values = {"password_hash": password_hash, "must_change": must_change, "changed_at_ms": now_ms}

        def write(connection: Connection) -> bool:
            person = _find(connection, name)
            if person is None:
                return False
            connection.execute(update(people).where(people.c.person_no == person.person_no).values(values)).close()
            _end_sessions(connection, person.person_no, keeps)
            return True

        return await self._database.write(write, Domain.PEOPLE)

    async def delete(self, name: str) -> bool:
        def write(connection: Connection) -> bool:
            person = _find(connection, name)
            if person is None:
                return False
            _end_sessions(connection, person.person_no)
            connection.execute(delete(people).where(people.c.person_no == person.person_no)).close()
            return True

        return await self._database.write(write, Domain.PEOPLE)

    async def open_session(self, session: PersonSession) -> None:
        row = insert(person_sessions).values(
            token_hash=session.token_hash,
            person_no=session.person_no,
            created_at_ms=session.created_at_ms,
            seen_at_ms=session.seen_at_ms,
            expires_at_ms=session.expires_at_ms,
        )
        noted = update(people).where(people.c.person_no == session.person_no)
        noted = noted.values(last_login_ms=session.created_at_ms)

        def write(connection: Connection) -> None:
            connection.execute(row).close()
            connection.execute(noted).close()

        await self._database.write(write, Domain.PEOPLE)

    async def session(self, token_hash: bytes) -> tuple[PersonSession, Person] | None:
        query = (
            select(*_SESSION_COLUMNS, *_COLUMNS)
            .join(people, people.c.person_no == person_sessions.c.person_no)
            .where(person_sessions.c.token_hash == token_hash)
        )

        def read(connection: Connection) -> tuple[PersonSession, Person] | None:
            row = connection.execute(query).first()
            if row is None:
                return None
            own = len(_SESSION_COLUMNS)
            return PersonSession(*row[:own]), _person_of(row[own:])

        return await self._database.read(read)

    async def seen(self, token_hash: bytes, now_ms: int) -> None:
        change = update(person_sessions).where(person_sessions.c.token_hash == token_hash).values(seen_at_ms=now_ms)
        await self._database.write(lambda c: c.execute(change).close(), Domain.PEOPLE)

    async def close_session(self, token_hash: bytes) -> None:
        gone = delete(person_sessions).where(person_sessions.c.token_hash == token_hash)
        await self._database.write(lambda c: c.execute(gone).close(), Domain.PEOPLE)


def _add(connection: Connection, person: Person) -> bool:
    if _find(connection, person.name) is not None:
        return False
    [number] = take(connection, Domain.PEOPLE, 1)
    values: dict[str, Any] = {
        "name": person.name,
        "role": person.role,
        "password_hash": person.password_hash,
        "created_at_ms": person.created_at_ms,
        "changed_at_ms": person.changed_at_ms,
        "last_login_ms": person.last_login_ms,
        "is_disabled": person.is_disabled,
        "must_change": person.must_change,
    }
    if number is not None:
        values["person_no"] = number
    connection.execute(insert(people).values(values)).close()
    return True


def _find(connection: Connection, name: str) -> Person | None:
    row = connection.execute(select(*_COLUMNS).where(people.c.name == name)).first()
    return None if row is None else _person_of(row)


def _change(connection: Connection, name: str, role: str | None, is_disabled: bool | None) -> Person | None:
    values = {"role": role, "is_disabled": is_disabled}
    values = {column: value for column, value in values.items() if value is not None}
    if values:
        connection.execute(update(people).where(people.c.name == name).values(values)).close()
    person = _find(connection, name)
    if person is not None and person.is_disabled:
        _end_sessions(connection, person.person_no)
    return person


def _end_sessions(connection: Connection, person_no: int, keeps: bytes = b"") -> None:
    gone = delete(person_sessions).where(person_sessions.c.person_no == person_no)
    connection.execute(gone.where(person_sessions.c.token_hash != keeps)).close()


def _person_of(row: Row[Any] | tuple[Any, ...]) -> Person:
    values: dict[str, Any] = {column.name: value for column, value in zip(_COLUMNS, row, strict=True)}
    return Person(**values | {name: bool(values[name]) for name in ("is_disabled", "must_change")})
