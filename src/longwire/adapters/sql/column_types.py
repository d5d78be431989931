"""The types of columns: on every engine the same values, the same order, and names compared byte by byte.

Tables and migrations share them: what stands here is never changed, another one is added.
"""

from sqlalchemy import BigInteger, Boolean, Integer, LargeBinary, SmallInteger, String, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

# SQLite counts only INTEGER PRIMARY KEY by itself.
Serial = BigInteger().with_variant(Integer(), "sqlite")

# Statements say 0 and 1, which PostgreSQL's own type does not take.
Flag = Boolean().with_variant(SmallInteger(), "postgresql")

# MySQL's TEXT ends at 64 KiB.
LongText = Text().with_variant(mysql.MEDIUMTEXT(), "mysql")

# MySQL's TEXT has no default.
TextOrEmpty = Text().with_variant(mysql.VARCHAR(8_000), "mysql")


def name(length: int) -> TypeEngine[str]:
    """A text of at most so many characters, in the order of its code points.

    On MySQL the collation is the database's (migrate.py), for its name differs from MariaDB's.
    """
    return String(length).with_variant(String(length, collation="C"), "postgresql")


def fitting(text: str, length: int) -> str:
    """Free text as every engine keeps it: cut, and without the NUL that PostgreSQL refuses."""
    return text[:length].replace("\0", "")


def key(length: int) -> TypeEngine[bytes]:
    """A few bytes, which may stand in an index."""
    return LargeBinary(length).with_variant(mysql.VARBINARY(length), "mysql")


def payload(length: int) -> TypeEngine[bytes]:
    """Bytes that may be more than the 65,535 of MySQL's BLOB."""
    return LargeBinary(length).with_variant(mysql.MEDIUMBLOB(), "mysql")
