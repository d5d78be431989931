"""The schema's version: brings a database to the one this code knows, with Alembic.

An embedded database is brought there when it is opened. A shared one is migrated by ``longwire migrate`` alone, one
process at a time, and every other process asks ``check`` first.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from longwire.errors import LongwireError

_MIGRATIONS = Path(__file__).with_name("migrations")
_LOCK_NAME = "longwire.migrate"
_LOCK_NO = 0x6C6F6E6777697265
_LOCK_WAIT_S = 600


class SchemaMismatch(LongwireError):
    """The database has not the schema of this program."""


def upgrade(connection: Connection) -> list[str]:
    """Runs every migration that the database has not had yet, each in a transaction where the engine can; their names.

    Of several that come at once one works, and the others find nothing to do. Raises SchemaMismatch where the
    database is of a newer program.
    """
    with _lock(connection):
        _prepare(connection)
        before = _revision(connection)
        config = _config(connection)
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise SchemaMismatch(_newer(before)) from error
        connection.commit()
        script = ScriptDirectory.from_config(config)
        done = script.iterate_revisions("head", before or "base")
        return [revision.revision for revision in done][::-1]


def check(connection: Connection) -> None:
    """Raises SchemaMismatch with a sentence that says what to do, unless the schema is this program's."""
    script = ScriptDirectory.from_config(_config(connection))
    head, found = script.get_current_head(), _revision(connection)
    if found == head:
        return
    if found is None:
        raise SchemaMismatch("the database has no tables of Longwire: run `longwire migrate` first")
    known = {revision.revision for revision in script.walk_revisions()}
    if found not in known:
        raise SchemaMismatch(_newer(found))
    raise SchemaMismatch(f"the database's schema is {found} and this program needs {head}: run `longwire migrate`")


def _newer(found: str | None) -> str:
    return f"the database's schema is {found}, which this program does not know: it is older than the database's"


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _revision(connection: Connection) -> str | None:
    found = MigrationContext.configure(connection).get_current_revision()
    connection.rollback()
    return found


@contextlib.contextmanager
def _lock(connection: Connection) -> Iterator[None]:
    """One migration at a time. The lock is the connection's: it ends with it, too."""
    if connection.dialect.name == "mysql":
        got = connection.exec_driver_sql("SELECT GET_LOCK(?, ?)", (_LOCK_NAME, _LOCK_WAIT_S)).scalar()
        if got != 1:
            raise SchemaMismatch(f"another process has been migrating the database for {_LOCK_WAIT_S} s")
    elif connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_lock(?)", (_LOCK_NO,)).close()
    connection.commit()
    try:
        yield
    finally:
        connection.rollback()
        if connection.dialect.name == "mysql":
            connection.exec_driver_sql("SELECT RELEASE_LOCK(?)", (_LOCK_NAME,)).close()
        elif connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT pg_advisory_unlock(?)", (_LOCK_NO,)).close()
        connection.commit()


def _prepare(connection: Connection) -> None:
    """Names are compared byte by byte: tables take the database's collation."""
    if connection.dialect.name != "mysql":
        return
    version = connection.exec_driver_sql("SELECT VERSION()").scalar_one()
    # "nopad": "a" and "a " differ.
    collation = "utf8mb4_nopad_bin" if "MariaDB" in version else "utf8mb4_0900_bin"
    if connection.exec_driver_sql("SELECT @@collation_database").scalar_one() != collation:
        connection.exec_driver_sql(f"ALTER DATABASE CHARACTER SET utf8mb4 COLLATE {collation}").close()
    connection.commit()
