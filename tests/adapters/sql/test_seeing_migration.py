"""The step from 0003 to 0004 on a database that is in use: every row stays, and a repeat is still known."""

from functools import partial
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import Connection, create_engine

from longwire.adapters.sql import migrate, shared
from longwire.adapters.sql.domains import Domain
from longwire.adapters.sql.shared import migrate_shared
from longwire.testing.engines import MariaDb, Postgres

_IDS = [bytes([number]) * 16 for number in range(3)]
_MESSAGES = [(seq + 1, seq % 2, _IDS[seq // 2]) for seq in range(6)]
_MESSAGE = (
    'INSERT OR IGNORE INTO messages (seq, sender_no, message_id, sender, "to", kind, payload, collapse_key,'
    " sent_at_ms, expires_at_ms, trace) VALUES (?, ?, ?, 's', 't', 'k', ?, 'c', 7, 8, ?)"
)
_UPLINK = (
    'INSERT OR IGNORE INTO uplink ("offset", device_no, device_id, message_id, kind, payload, sent_at_ms, trace,'
    " log_position) VALUES (?, ?, 'd', ?, 'k', ?, 7, ?, 9)"
)
_ALL = 'SELECT seq, sender_no, message_id, sender, "to", kind, payload, collapse_key, sent_at_ms, trace FROM messages'
_FACTS = "SELECT COUNT(*) FROM {table}"


def _upgrade_to(revision: str, connection: Connection) -> None:
    migrate._prepare(connection)
    command.upgrade(migrate._config(connection), revision)
    connection.commit()


def _fill(connection: Connection) -> None:
    for seq, sender_no, message_id in _MESSAGES:
        connection.exec_driver_sql(_MESSAGE, (seq, sender_no, message_id, b"\x00p" * 9_000, b"t" * 24)).close()
        connection.exec_driver_sql(_UPLINK, (seq, sender_no, message_id, b"\x00u", b"")).close()
    connection.exec_driver_sql("UPDATE write_locks SET \"next\" = 7 WHERE name = 'messages'").close()
    connection.commit()


def _check(connection: Connection) -> None:
    rows = connection.exec_driver_sql(f"{_ALL} ORDER BY seq").fetchall()
    told = [(seq, sender_no, bytes(message_id)) for seq, sender_no, message_id, *_ in rows]
    assert told == _MESSAGES
    assert {(*row[3:6], bytes(row[6]), *row[7:9], bytes(row[9])) for row in rows} == {
        ("s", "t", "k", b"\x00p" * 9_000, "c", 7, b"t" * 24)
    }
    again = connection.exec_driver_sql(_MESSAGE, (99, 1, _IDS[0], b"", b""))
    assert again.rowcount == 0, "a repeat is known by its sender and its id"
    assert connection.exec_driver_sql(_MESSAGE, (100, 5, _IDS[0], b"", b"")).rowcount == 1
    assert connection.exec_driver_sql(_UPLINK, (99, 1, _IDS[0], b"", b"")).rowcount == 0
    assert connection.exec_driver_sql(_UPLINK, (100, 5, _IDS[0], b"", b"")).rowcount == 1
    assert connection.exec_driver_sql("SELECT COUNT(*) FROM messages WHERE receivers IS NULL").scalar() == 7
    domains = {name for (name,) in connection.exec_driver_sql("SELECT name FROM write_locks").fetchall()}
    assert domains == set(Domain)
    assert connection.exec_driver_sql("SELECT \"next\" FROM write_locks WHERE name = 'messages'").scalar() == 7
    for table in ("past_sessions", "trace_refs", "directives", "people", "person_sessions", "push_minutes"):
        assert connection.exec_driver_sql(_FACTS.format(table=table)).scalar() == 0
    connection.rollback()


def test_an_embedded_database_is_brought_on_with_its_rows(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/x.db")
    with engine.connect() as connection:
        _upgrade_to("0003", connection)
        _fill(connection)
        assert migrate.upgrade(connection) == ["0004"]
        _check(connection)
    engine.dispose()


@pytest.mark.parametrize("name", ["mariadb", "postgres"])
async def test_a_shared_database_is_brought_on_with_its_rows(name: str, request: pytest.FixtureRequest) -> None:
    engine: MariaDb | Postgres = request.getfixturevalue(f"{name}_engine")
    url = engine.fresh_url()
    await shared._on_schema(url, partial(_upgrade_to, "0003"))
    await shared._on_schema(url, _fill)
    assert await migrate_shared(url) == ["0004"]
    await shared._on_schema(url, _check)
