"""The databases that contract tests run on: SQLite, MariaDB and PostgreSQL, each test with an empty one."""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import Connection

from longwire.adapters.sql.database import Database
from longwire.adapters.sql.domains import Domain
from longwire.adapters.sql.shared import SharedDatabase, migrate_shared
from longwire.adapters.sql.sqlite import SqliteDatabase
from longwire.adapters.sql.tables import metadata
from longwire.testing.engines import MariaDb, Postgres

T = TypeVar("T")

OpenDatabase = Callable[[], AbstractAsyncContextManager[Database]]
"""Opens a test's database: empty the first time, and with what is in it the next."""
Maker = Callable[[], AbstractAsyncContextManager[T]]
"""Opens what stands on a test's database, in the same way."""


def maker_of(open_database: OpenDatabase, make: Callable[[Database], T]) -> Maker[T]:
    """``make`` puts it on a database that is started."""

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[T]:
        async with open_database() as database:
            yield make(database)

    return opened


@contextlib.asynccontextmanager
async def opened(database: Database) -> AsyncIterator[Database]:
    """The database, started."""
    await database.start()
    try:
        yield database
    finally:
        await database.stop()


def empty(connection: Connection) -> None:
    """Forgets what the test before left."""
    for table in metadata.sorted_tables:
        if table.name != "write_locks":
            connection.exec_driver_sql(f"DELETE FROM {table.name}").close()
    domains = ",".join(f"'{domain}'" for domain in Domain)
    connection.exec_driver_sql(f'UPDATE write_locks SET "next" = 1 WHERE name IN ({domains})').close()


@pytest.fixture(scope="session")
def migrated() -> dict[str, str]:
    """By engine the URL of the database that its tests share, one after another."""
    return {}


@pytest.fixture(params=["sqlite", "mariadb", "postgres"])
def open_database(request: pytest.FixtureRequest, tmp_path: Path, migrated: dict[str, str]) -> OpenDatabase:
    if request.param == "sqlite":
        return lambda: opened(SqliteDatabase(tmp_path))
    engine: MariaDb | Postgres = request.getfixturevalue(f"{request.param}_engine")
    is_empty = False

    @contextlib.asynccontextmanager
    async def reopened() -> AsyncIterator[Database]:
        nonlocal is_empty
        if request.param not in migrated:
            url = engine.fresh_url()
            await migrate_shared(url)
            migrated[request.param] = url
        async with opened(SharedDatabase(migrated[request.param])) as database:
            if not is_empty:
                await database.write(empty)
                is_empty = True
            yield database

    return reopened


@pytest.fixture
async def database(open_database: OpenDatabase) -> AsyncIterator[Database]:
    """A started, empty database."""
    async with open_database() as started:
        yield started
