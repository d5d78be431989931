"""One text for three engines: statements are written for SQLite and said to MariaDB, MySQL and PostgreSQL in theirs.

``speak`` hangs itself on an engine and translates what goes through ``exec_driver_sql``, once a text (``translate``).
What it knows is what this package writes, not SQL at large. MySQL's IGNORE also cuts what is too long for its column:
lengths are checked before.

| written                                    | MariaDB, MySQL                        | PostgreSQL            |
|--------------------------------------------|---------------------------------------|-----------------------|
| ``?``                                      | ``%s``                                | ``$1``, ``$2`` …      |
| ``"name"``, bare ``cursor`` and ``lines``  | in backquotes                         | as written            |
| ``INSERT OR IGNORE INTO``                  | ``INSERT IGNORE INTO``                | ON CONFLICT DO NOTHING|
| ``ON CONFLICT (…) DO NOTHING``             | ``INSERT IGNORE INTO``                | as written            |
| ``ON CONFLICT (…) DO UPDATE SET … WHERE …``| ON DUPLICATE KEY UPDATE, ``IF`` each  | as written            |
| ``(a, b) IN (VALUES (?, ?), …)``           | ``IN ((…), …)``                       | ``IN ((…), …)``       |
| ``MAX(a, b)``, ``MIN(a, b)``               | GREATEST, LEAST                       | GREATEST, LEAST       |
| ``SUM(x)``                                 | an integer                            | an integer            |
| ``json_group_array(x)``                    | ``x``: a row each (bulk.listed)       | ``x``                 |
| ``DELETE … k IN (SELECT k … LIMIT ?)``     | ``DELETE … LIMIT ?``                  | as written            |
| ``INDEXED BY i``                           | ``FORCE INDEX (i)``                   | left out              |
| ``x'00'``                                  | as written                            | ``'\\x00'::bytea``    |
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError

_STATEMENTS = 4_096

# -- what is wrong -------------------------------------------------------------------------------------------------

_SQLITE_FAILURES = (
    "SQLITE_FULL",
    "SQLITE_IOERR",
    "SQLITE_BUSY",
    "SQLITE_CORRUPT",
    "SQLITE_READONLY",
    "SQLITE_CANTOPEN",
    "SQLITE_NOMEM",
)
# Classes of SQLSTATE: connection, rolled back, out of resources, not now, operator, system, internal, configuration.
_POSTGRES_FAILURES = ("08", "25006", "40", "53", "55", "57", "58", "F0", "XX")
_MYSQL_FAILURES = frozenset(
    {
        *(1021, 1030, 1037, 1038, 1040, 1041, 1053, 1114, 1129, 1135, 1180, 1181, 1194, 1195),
        *(1203, 1205, 1206, 1213, 1226, 1290, 1317, 1613, 1614, 1792, 1836, 1877, 1927, 1969, 3024, 3032, 3058, 3100),
        *range(2000, 2100),
        *(4150, 4151),
    }
)
_LOST_STATES = ("40001", "40P01")
_LOST_NUMBERS = frozenset({1020, 1213, 1614})


def is_engine_failure(error: DBAPIError) -> bool:
    """Whether the database as a whole failed (full, away, rolled back), rather than the statement."""
    if error.connection_invalidated:
        return True
    cause: Any = error.orig
    sqlite = getattr(cause, "sqlite_errorname", None)
    if sqlite is not None:
        return str(sqlite).startswith(_SQLITE_FAILURES)
    state = _state(cause)
    if state is not None:
        return state.startswith(_POSTGRES_FAILURES)
    return _number(cause) in _MYSQL_FAILURES


def is_passing(error: DBAPIError) -> bool:
    """Whether the same transaction may well succeed now: it lost to another one, and was undone."""
    state = _state(error.orig)
    if state is not None:
        return state in _LOST_STATES
    return _number(error.orig) in _LOST_NUMBERS


def _state(cause: Any) -> str | None:
    state = getattr(cause, "sqlstate", None)
    return state if isinstance(state, str) else None


def _number(cause: Any) -> int | None:
    number = cause.args[0] if getattr(cause, "args", None) else None
    return number if isinstance(number, int) else None


# -- statements ----------------------------------------------------------------------------------------------------


def speak(engine: Engine) -> None:
    """Translates what goes through ``exec_driver_sql`` on this engine; SQLAlchemy's own statements pass as they are."""
    name = engine.dialect.name

    def say(
        _connection: Connection, _cursor: Any, statement: str, parameters: Any, context: Any, _many: bool
    ) -> tuple[str, Any]:
        return (statement if context.compiled is not None else translate(statement, name)), parameters

    event.listen(engine, "before_cursor_execute", say, retval=True)


@lru_cache(maxsize=_STATEMENTS)
def translate(statement: str, dialect: str) -> str:
    """The statement as ``dialect`` ("mysql" or "postgresql") takes it."""
    if dialect == "mysql":
        statement = _DELETE_SOME.sub(r"\1\2 LIMIT ?", statement)
    masked, quoted = _mask(statement)
    masked = _IN_VALUES.sub(r"(\1) IN (\2)", masked)
    masked = re.sub(r"\bjson_group_array(?=\()", "", masked)
    masked = _calls(masked, "SUM", lambda text: f"CAST(SUM({text}) AS {_INTEGER[dialect]})")
    masked = _calls(masked, "MAX", lambda text: f"{'GREATEST' if _is_list(text) else 'MAX'}({text})")
    masked = _calls(masked, "MIN", lambda text: f"{'LEAST' if _is_list(text) else 'MIN'}({text})")
    return _mysql(masked, quoted) if dialect == "mysql" else _postgres(masked, quoted)


_INTEGER = {"mysql": "SIGNED", "postgresql": "BIGINT"}
_QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*\"""")
_IN_VALUES = re.compile(r"\(([^()]+)\)\s+IN\s+\(VALUES\s+(\(\?[?,()\s]*\))\)")
_UPSERT = re.compile(r"\bON CONFLICT\s*(?:\([^()]*\)\s*)?DO UPDATE SET\s+(.*?)(?:\s+WHERE\s+(.*))?$", re.DOTALL)
_NO_UPSERT = re.compile(r"\bON CONFLICT\s*(?:\([^()]*\)\s*)?DO NOTHING\b")
_IGNORE = re.compile(r"\bINSERT OR IGNORE INTO\b")
_DELETE_SOME = re.compile(
    r'^(\s*DELETE .*?)(?:\([\w, "]+\)|[\w"]+) IN\s+\(SELECT [\w, "]+ FROM \w+ WHERE (.*) LIMIT \?\)\s*$', re.DOTALL
)
_RESERVED = re.compile(r"(?<![\w.])(?:cursor|lines)\b|(?<=\.)(?:cursor|lines)\b")
_BYTES = re.compile(r"\bx'([0-9a-fA-F]*)'")
_INDEX = re.compile(r"\bINDEXED BY (\w+)")
_MARK = "\0"


def _mask(statement: str) -> tuple[str, list[str]]:
    """The statement with a mark for each quoted text, so that nothing in them is mistaken for SQL."""
    return _QUOTED.sub(_MARK, statement), _QUOTED.findall(statement)


def _unmask(masked: str, quoted: list[str], say: Callable[[str], str]) -> str:
    pieces = masked.split(_MARK)
    assert len(pieces) == len(quoted) + 1, "a translation dropped or doubled a quoted text"
    said = [pieces[0]]
    for text, piece in zip(quoted, pieces[1:], strict=True):
        said += (say(text), piece)
    return "".join(said)


def _calls(text: str, function: str, say: Callable[[str], str]) -> str:
    """Says every call of a function anew, by what stands between its brackets."""
    done = ""
    while (found := re.search(rf"\b{function}\(", text)) is not None:
        end = _closing(text, found.end())
        inner = _calls(text[found.end() : end], function, say)
        done += text[: found.start()] + say(inner)
        text = text[end + 1 :]
    return done + text


def _closing(text: str, at: int) -> int:
    depth = 1
    while depth:
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        at += 1
    return at - 1


def _is_list(text: str) -> bool:
    return len(_split(text)) > 1


def _split(text: str) -> list[str]:
    """By the commas that stand in no brackets."""
    parts, depth, start = [], 0, 0
    for at, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and not depth:
            parts.append(text[start:at].strip())
            start = at + 1
    return [*parts, text[start:].strip()]


def _postgres(masked: str, quoted: list[str]) -> str:
    masked = _INDEX.sub("", masked)
    if _IGNORE.search(masked):
        masked = _IGNORE.sub("INSERT INTO", masked).rstrip() + " ON CONFLICT DO NOTHING"
    pieces = masked.split("?")
    masked = pieces[0] + "".join(f"${number}{piece}" for number, piece in enumerate(pieces[1:], 1))
    return _BYTES.sub(r"'\\x\1'::bytea", _unmask(masked, quoted, str))


def _mysql(masked: str, quoted: list[str]) -> str:
    masked = _INDEX.sub(r"FORCE INDEX (\1)", masked)
    masked = _IGNORE.sub("INSERT IGNORE INTO", masked)
    masked = _RESERVED.sub(r"`\g<0>`", masked).replace("%", "%%").replace("?", "%s")
    said = _unmask(masked, quoted, _backquoted)
    if _NO_UPSERT.search(said):
        said = _NO_UPSERT.sub("", said).replace("INSERT INTO", "INSERT IGNORE INTO", 1)
    return _UPSERT.sub(_on_duplicate, said)


def _backquoted(text: str) -> str:
    return (f"`{text[1:-1]}`" if text.startswith('"') else text).replace("%", "%%")


def _on_duplicate(found: re.Match[str]) -> str:
    assignments = [tuple(part.split("=", 1)) for part in _split(found[1])]
    changes = [(column.strip(), _values_of(value.strip())) for column, value in assignments]
    if found[2]:
        condition = re.sub(r"\b(?!VALUES\()\w+\.(?=\w|`)", "", _values_of(found[2].strip()))
        # Each assignment sees those before it: what the condition reads is changed last.
        changes.sort(key=lambda change: re.search(rf"(?<![\w`]){re.escape(change[0])}(?![\w`])", condition) is not None)
        changes = [(column, f"IF({condition}, {value}, {column})") for column, value in changes]
    return "ON DUPLICATE KEY UPDATE " + ", ".join(f"{column} = {value}" for column, value in changes)


def _values_of(text: str) -> str:
    return re.sub(r"\bexcluded\.(`?\w+`?)", r"VALUES(\1)", text)
