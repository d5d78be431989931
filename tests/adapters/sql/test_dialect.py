"""One text for three engines: what each is told."""

import asyncio
import sqlite3

import pytest
from sqlalchemy.exc import OperationalError

from longwire.adapters.sql.dialect import is_engine_failure, is_passing, translate


@pytest.mark.parametrize(
    ("written", "mysql", "postgresql"),
    [
        ('SELECT "to" FROM t WHERE a = ?', "SELECT `to` FROM t WHERE a = %s", 'SELECT "to" FROM t WHERE a = $1'),
        ("SELECT '?%' FROM t LIMIT ?", "SELECT '?%%' FROM t LIMIT %s", "SELECT '?%' FROM t LIMIT $1"),
        ("INSERT OR IGNORE INTO t VALUES (?)", "INSERT IGNORE INTO t VALUES (%s)", None),
        (
            "INSERT INTO t (a) VALUES (?) ON CONFLICT (a, b) DO NOTHING",
            "INSERT IGNORE INTO t (a) VALUES (%s) ",
            "INSERT INTO t (a) VALUES ($1) ON CONFLICT (a, b) DO NOTHING",
        ),
        (
            'INSERT INTO t (a, "key") VALUES (?, ?) ON CONFLICT (a, "key") DO NOTHING',
            "INSERT IGNORE INTO t (a, `key`) VALUES (%s, %s) ",
            'INSERT INTO t (a, "key") VALUES ($1, $2) ON CONFLICT (a, "key") DO NOTHING',
        ),
        (
            'INSERT INTO t VALUES (?) ON CONFLICT (a) DO UPDATE SET b = excluded.b, "to" = excluded."to"',
            "INSERT INTO t VALUES (%s) ON DUPLICATE KEY UPDATE b = VALUES(b), `to` = VALUES(`to`)",
            'INSERT INTO t VALUES ($1) ON CONFLICT (a) DO UPDATE SET b = excluded.b, "to" = excluded."to"',
        ),
        (
            "INSERT INTO t VALUES (?) ON CONFLICT (a) DO UPDATE SET v = excluded.v, b = excluded.b"
            " WHERE excluded.v > t.v",
            "INSERT INTO t VALUES (%s) ON DUPLICATE KEY UPDATE"
            " b = IF(VALUES(v) > v, VALUES(b), b), v = IF(VALUES(v) > v, VALUES(v), v)",
            None,
        ),
        (
            "DELETE FROM t WHERE (a, b) IN (VALUES (?,?),(?,?))",
            "DELETE FROM t WHERE (a, b) IN ((%s,%s),(%s,%s))",
            "DELETE FROM t WHERE (a, b) IN (($1,$2),($3,$4))",
        ),
        (
            'DELETE FROM t WHERE (a, "key") IN (SELECT a, "key" FROM t WHERE b < ? LIMIT ?)',
            "DELETE FROM t WHERE b < %s LIMIT %s",
            'DELETE FROM t WHERE (a, "key") IN (SELECT a, "key" FROM t WHERE b < $1 LIMIT $2)',
        ),
        (
            "DELETE FROM t WHERE p = ? AND d IN (SELECT d FROM t WHERE p = ? LIMIT ?)",
            "DELETE FROM t WHERE p = %s AND p = %s LIMIT %s",
            None,
        ),
        (
            "SELECT MAX(a), MAX(b, (SELECT MIN(c) FROM t)), MIN(d, ?) FROM t",
            "SELECT MAX(a), GREATEST(b, (SELECT MIN(c) FROM t)), LEAST(d, %s) FROM t",
            "SELECT MAX(a), GREATEST(b, (SELECT MIN(c) FROM t)), LEAST(d, $1) FROM t",
        ),
        (
            "SELECT COALESCE(SUM(LENGTH(a) + 2), 0) FROM t",
            "SELECT COALESCE(CAST(SUM(LENGTH(a) + 2) AS SIGNED), 0) FROM t",
            "SELECT COALESCE(CAST(SUM(LENGTH(a) + 2) AS BIGINT), 0) FROM t",
        ),
        (
            "SELECT json_group_array(d.device_no) FROM t d",
            "SELECT (d.device_no) FROM t d",
            "SELECT (d.device_no) FROM t d",
        ),
        (
            "UPDATE w SET cursor = MAX(cursor, ?) WHERE w.lines = ?",
            "UPDATE w SET `cursor` = GREATEST(`cursor`, %s) WHERE w.`lines` = %s",
            "UPDATE w SET cursor = GREATEST(cursor, $1) WHERE w.lines = $2",
        ),
        ("SELECT x'', x'0a' FROM t", "SELECT x'', x'0a' FROM t", r"SELECT '\x'::bytea, '\x0a'::bytea FROM t"),
        ("SELECT 1 FROM t s INDEXED BY i", "SELECT 1 FROM t s FORCE INDEX (i)", "SELECT 1 FROM t s "),
    ],
)
def test_a_statement_is_said_to_each_engine_in_its_words(written, mysql, postgresql) -> None:
    assert translate(written, "mysql") == mysql
    if postgresql is not None:
        assert translate(written, "postgresql") == postgresql


def test_postgresql_leaves_out_what_is_there() -> None:
    written = "INSERT OR IGNORE INTO t VALUES (?), (?)"
    assert translate(written, "postgresql") == "INSERT INTO t VALUES ($1), ($2) ON CONFLICT DO NOTHING"


class _Postgres(Exception):
    def __init__(self, state: str) -> None:
        super().__init__("said by the engine")
        self.sqlstate = state


def _sqlite(name: str) -> sqlite3.Error:
    error = sqlite3.OperationalError(name)
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("cause", "is_failure", "passes"),
    [
        (_sqlite("SQLITE_FULL"), True, False),
        (_sqlite("SQLITE_CONSTRAINT_UNIQUE"), False, False),
        (_Postgres("40P01"), True, True),
        (_Postgres("53100"), True, False),
        (_Postgres("57P01"), True, False),
        (_Postgres("22001"), False, False),
        (_Postgres("23505"), False, False),
        (Exception(1213, "deadlock"), True, True),
        (Exception(1205, "lock wait"), True, False),
        (Exception(1114, "full"), True, False),
        (Exception(2013, "lost"), True, False),
        (Exception(1062, "duplicate"), False, False),
        (Exception(1406, "too long"), False, False),
        (asyncio.CancelledError(), False, False),
    ],
)
def test_a_failing_engine_is_told_from_a_failing_item(cause, is_failure, passes) -> None:
    error = OperationalError("INSERT", None, cause)
    assert is_engine_failure(error) == is_failure
    assert is_passing(error) == passes
