"""The shared store: MariaDB, MySQL or PostgreSQL."""

import asyncio
import logging
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from longwire.adapters.sql import migrate
from longwire.app.doctor.engines import answered, away, skew, version_of
from longwire.app.doctor.report import Finding, failure, ok, warning
from longwire.app.settings import Settings

AREA = "store"
_LEAST = {"MariaDB": (10, 6), "MySQL": (8, 0), "PostgreSQL": (12, 0)}
_WITHIN_S = 8.0
_CONNECT_WITHIN_S = 3
_CONNECTIONS_OF_A_PROCESS = 10
_MIN_CONNECTIONS = 100
_MIN_PACKET = 16 << 20
_SPARE = 0.8

Values = dict[str, Any]


async def look(settings: Settings) -> list[Finding]:
    """Every check of it."""
    assert settings.store_url is not None
    try:
        url = make_url(settings.store_url.get_secret_value())
    except ArgumentError:
        return [failure(AREA, "store_url", "it is not a URL", "set store_url")]
    place, is_mysql = url.render_as_string(hide_password=True), url.get_backend_name() == "mysql"
    logging.getLogger("asyncmy").setLevel(logging.ERROR)
    wait = {"connect_timeout" if is_mysql else "timeout": _CONNECT_WITHIN_S}
    engine = create_async_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=wait)
    began = time.perf_counter()
    try:
        async with asyncio.timeout(_WITHIN_S), engine.connect() as connection:
            found = [answered(AREA, place, began)]
            values = await _values(connection, _MYSQL if is_mysql else _POSTGRES)
            before = time.time()
            theirs = (await connection.execute(text(_NOW[is_mysql]))).scalar_one()
            found.append(skew(AREA, _seconds(theirs), before, time.time()))
            found += _mysql(values) if is_mysql else _postgres(values)
            return [*found, await connection.run_sync(schema)]
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        return [away(AREA, "store_url", place, _why(error), "nothing is confirmed meanwhile")]
    finally:
        await engine.dispose()


_NOW = ("SELECT clock_timestamp()", "SELECT UTC_TIMESTAMP(6)")
_MYSQL = (
    "SELECT VERSION() AS version, @@max_connections AS max_connections, @@innodb_flush_log_at_trx_commit AS flush,"
    " @@max_allowed_packet AS packet, @@character_set_database AS charset, @@log_bin AS log_bin,"
    " @@sync_binlog AS sync_binlog, @@read_only AS read_only,"
    " (SELECT COUNT(*) FROM information_schema.processlist) AS used"
)
_POSTGRES = (
    "SELECT current_setting('server_version_num') AS version, current_setting('max_connections') AS max_connections,"
    " current_setting('synchronous_commit') AS synchronous_commit, current_setting('fsync') AS fsync,"
    " current_setting('full_page_writes') AS full_page_writes, current_setting('server_encoding') AS encoding,"
    " current_setting('autovacuum') AS autovacuum,"
    " pg_is_in_recovery() AS is_replica, (SELECT COUNT(*) FROM pg_stat_activity WHERE datname IS NOT NULL) AS used"
)


async def _values(connection: AsyncConnection, statement: str) -> Values:
    return dict((await connection.execute(text(statement))).mappings().one())


def _seconds(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _mysql(values: Values) -> Iterator[Finding]:
    told = str(values["version"])
    name = "MariaDB" if "mariadb" in told.lower() else "MySQL"
    yield version_of(AREA, name, tuple(map(int, re.findall(r"\d+", told)[:3])), _LEAST[name])
    yield connections(int(values["max_connections"]), int(values["used"]), "SET GLOBAL max_connections = 200")
    yield is_set(
        "innodb_flush_log_at_trx_commit",
        str(values["flush"]),
        "1",
        "what was confirmed may be lost with the machine",
        "SET GLOBAL innodb_flush_log_at_trx_commit = 1",
    )
    if int(values["log_bin"]):
        lost = "what was confirmed may be lacking at the replicas after the machine's end"
        yield is_set("sync_binlog", str(values["sync_binlog"]), "1", lost, "SET GLOBAL sync_binlog = 1")
    packet = int(values["packet"])
    fact = f"{packet / (1 << 20):g} MB"
    if packet >= _MIN_PACKET:
        yield ok(AREA, "max_allowed_packet", fact)
    else:
        advice = "groups of messages and sets of devices may be refused"
        yield failure(AREA, "max_allowed_packet", fact, advice, "SET GLOBAL max_allowed_packet = 67108864")
    yield is_set("character set", str(values["charset"]), "utf8mb4", "make the database with CHARACTER SET utf8mb4")
    if int(values["read_only"]):
        yield failure(AREA, "role", "read_only: it takes no writes", "name the primary in store_url")


def _postgres(values: Values) -> Iterator[Finding]:
    number = int(values["version"])
    yield version_of(AREA, "PostgreSQL", (number // 10_000, number % 10_000), _LEAST["PostgreSQL"])
    command = "ALTER SYSTEM SET max_connections = 200  -- and restart it"
    yield connections(int(values["max_connections"]), int(values["used"]), command)
    for name in ("fsync", "full_page_writes"):
        lost = "what was confirmed may be lost, and the database broken, with the machine"
        yield is_set(name, values[name], "on", lost, f"ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf()")
    chosen = values["synchronous_commit"]
    if chosen == "off":
        advice = "what was confirmed may be lost with the machine"
        command = "ALTER SYSTEM SET synchronous_commit = on; SELECT pg_reload_conf()"
        yield warning(AREA, "synchronous_commit", chosen, advice, command)
    else:
        yield ok(AREA, "synchronous_commit", chosen)
    yield is_set("autovacuum", values["autovacuum"], "on", "tables of inboxes come and go, and would grow")
    yield is_set("encoding", values["encoding"], "UTF8", "make the database with ENCODING 'UTF8'")
    if values["is_replica"]:
        yield failure(AREA, "role", "a replica, which takes no writes", "name the primary in store_url")


def is_set(name: str, found: str, wanted: str, advice: str, command: str = "") -> Finding:
    """A setting that is to have one value."""
    if found == wanted:
        return ok(AREA, name, found)
    return warning(AREA, name, f"{found}, not {wanted}", advice, command)


def connections(most: int, used: int, command: str) -> Finding:
    """Each process of a cluster has up to ten."""
    name = "max_connections"
    fact = f"{most:,}, {used:,} in use: enough for {max(0, most - used) // _CONNECTIONS_OF_A_PROCESS} more processes"
    if most >= _MIN_CONNECTIONS and used < _SPARE * most:
        return ok(AREA, name, fact)
    return warning(AREA, name, fact, f"a process takes up to {_CONNECTIONS_OF_A_PROCESS}", command)


def schema(connection: Connection) -> Finding:
    """Whether the tables are this program's."""
    try:
        migrate.check(connection)
    except migrate.SchemaMismatch as error:
        return failure(AREA, "schema", str(error), "", "longwire migrate")
    return ok(AREA, "schema", "this program's")


def _why(error: Exception) -> str:
    """What the engine said, without the statement and its parameters."""
    if isinstance(error, TimeoutError):
        return f"not within {_WITHIN_S:g} s"
    return str(getattr(error, "orig", None) or error).partition("\n")[0]
