"""Statements over many rows: every row once, in few shapes, whatever their number."""

import pytest
from sqlalchemy import create_engine

from longwire.adapters.sql import bulk


@pytest.fixture
def connection():
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)").close()
        yield connection
    engine.dispose()


@pytest.mark.parametrize("count", [*range(20), 127, 128, 129, 255, 256, 300, 1_000])
def test_sizes_add_up_and_are_powers_of_two(count) -> None:
    sizes = list(bulk.sizes(count))
    assert sum(sizes) == count
    assert all(size & (size - 1) == 0 and size <= 128 for size in sizes)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 128, 129, 1_000])
def test_every_row_is_written_once_and_counted(connection, count) -> None:
    rows = [(n, f"r{n}") for n in range(count)]
    assert bulk.execute(connection, "INSERT INTO t (a, b) VALUES {rows}", rows) == count
    written = connection.exec_driver_sql("SELECT a, b FROM t ORDER BY a").fetchall()
    assert [tuple(row) for row in written] == rows


def test_rows_that_are_left_out_do_not_count(connection) -> None:
    bulk.execute(connection, "INSERT INTO t (a, b) VALUES {rows}", [(n, "") for n in range(0, 300, 2)])
    rows = [(n, "") for n in range(300)]
    assert bulk.execute(connection, "INSERT OR IGNORE INTO t (a, b) VALUES {rows}", rows) == 150


@pytest.mark.parametrize("count", [0, 1, 5, 128, 500])
def test_a_query_finds_what_is_in_the_list_behind_other_parameters(connection, count) -> None:
    bulk.execute(connection, "INSERT INTO t (a, b) VALUES {rows}", [(n, str(n % 2)) for n in range(1_000)])
    found = bulk.select_in(connection, "SELECT a FROM t WHERE b = ? AND a IN ({rows})", range(count), "1")
    assert sorted(a for (a,) in found) == list(range(1, count, 2))
