"""Statements over many rows at once, at the driver's level.

One statement for 64 rows instead of 64 statements: on SQLite the interpreter's lock is given up and taken again once
a statement, and beside a busy loop every one of those hand-overs costs more than the row does; on an engine across
the network a statement is a trip there and back.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import Connection

_LARGEST = 128
_LARGEST_SHARED = 512
_MAX_STATEMENT_BYTES = 4 << 20
"""Of what a shared engine takes at once (max_allowed_packet, 16 MiB): escaped, bytes may take twice their room."""

_numbers = msgspec.json.Decoder(list[Any])


def sizes(count: int, largest: int = _LARGEST) -> Iterator[int]:
    """Cuts ``count`` rows into powers of two, so that few different statements are ever prepared."""
    while count:
        size = min(1 << (count.bit_length() - 1), largest)
        yield size
        count -= size


@lru_cache(maxsize=512)
def _statement(template: str, row: str, size: int) -> str:
    return template.format(rows=",".join([row] * size))


def execute(connection: Connection, template: str, rows: Sequence[Sequence[Any]]) -> int:
    """Runs ``template`` (with ``{rows}`` for a list of placeholder tuples) over all rows; rows affected."""
    if not rows:
        return 0
    row = "(" + ",".join("?" * len(rows[0])) + ")"
    affected = 0
    at = 0
    for size in sizes(len(rows)) if connection.dialect.name == "sqlite" else _weighed(rows):
        flat: list[Any] = []
        for values in rows[at : at + size]:
            flat += values
        result = connection.exec_driver_sql(_statement(template, row, size), tuple(flat))
        affected += result.rowcount
        at += size
    return affected


def _weighed(rows: Sequence[Sequence[Any]]) -> Iterator[int]:
    """Sizes of statements that stay below what the engine takes at once."""
    weights = [sum(len(value) for value in row if isinstance(value, bytes | str)) for row in rows]
    at = 0
    while at < len(rows):
        size = next(sizes(len(rows) - at, _LARGEST_SHARED))
        while size > 1 and sum(weights[at : at + size]) > _MAX_STATEMENT_BYTES:
            size //= 2
        yield size
        at += size


def select_in(connection: Connection, template: str, values: Iterable[Any], *before: Any) -> list[Any]:
    """Runs a query (with ``{rows}`` for a list of placeholders) over all values; every row it gives.

    ``before`` are the parameters that stand in the query before the list.
    """
    wanted = list(values)
    found: list[Any] = []
    at = 0
    largest = _LARGEST if connection.dialect.name == "sqlite" else _LARGEST_SHARED
    for size in sizes(len(wanted), largest):
        statement = _statement(template, "?", size)
        found += connection.exec_driver_sql(statement, (*before, *wanted[at : at + size])).fetchall()
        at += size
    return found


def update_in(connection: Connection, template: str, values: Sequence[Any]) -> int:
    """Runs a statement without rows (with ``{rows}`` for a list of placeholders) over all values; rows affected."""
    affected = 0
    at = 0
    for size in sizes(len(values)):
        statement = _statement(template, "?", size)
        affected += connection.exec_driver_sql(statement, tuple(values[at : at + size])).rowcount
        at += size
    return affected


def listed(connection: Connection, statement: str, *values: Any) -> list[Any]:
    """What a query gives whose one column is ``json_group_array(…)``, in the order of its rows.

    On SQLite that is one row for any number (token_check.py says what it saves); the others give a row each.
    """
    rows = connection.exec_driver_sql(statement, values).fetchall()
    if connection.dialect.name == "sqlite":
        found: list[Any] = _numbers.decode(rows[0][0])
        return found
    return [value for (value,) in rows]
