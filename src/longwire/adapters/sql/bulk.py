"""Statements over many rows at once, at the driver's level.

One statement for 64 rows instead of 64 statements: the interpreter's lock is given up and taken again once a
statement, and beside a busy loop every one of those hand-overs costs more than the row does.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection

_LARGEST = 128


def sizes(count: int) -> Iterator[int]:
    """Cuts ``count`` rows into powers of two, so that few different statements are ever prepared."""
    while count:
        size = min(1 << (count.bit_length() - 1), _LARGEST)
        yield size
        count -= size


@lru_cache(maxsize=256)
def _statement(template: str, row: str, size: int) -> str:
    return template.format(rows=",".join([row] * size))


def execute(connection: Connection, template: str, rows: Sequence[Sequence[Any]]) -> int:
    """Runs ``template`` (with ``{rows}`` for a list of placeholder tuples) over all rows; rows affected."""
    if not rows:
        return 0
    row = "(" + ",".join("?" * len(rows[0])) + ")"
    affected = 0
    at = 0
    for size in sizes(len(rows)):
        flat: list[Any] = []
        for values in rows[at : at + size]:
            flat += values
        result = connection.exec_driver_sql(_statement(template, row, size), tuple(flat))
        affected += result.rowcount
        at += size
    return affected


def select_in(connection: Connection, template: str, values: Iterable[Any], *before: Any) -> list[Any]:
    """Runs a query (with ``{rows}`` for a list of placeholders) over all values; every row it gives.

    ``before`` are the parameters that stand in the query before the list.
    """
    wanted = list(values)
    found: list[Any] = []
    at = 0
    for size in sizes(len(wanted)):
        statement = _statement(template, "?", size)
        found += connection.exec_driver_sql(statement, (*before, *wanted[at : at + size])).fetchall()
        at += size
    return found
