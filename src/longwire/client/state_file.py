"""A device's storage in one SQLite file, written in groups by a thread.

    put, remember, keep ─► _pending ─► one transaction for all that gathered while the last one ran ─► done
    remove ─► goes along with the next of these, or after a second

SQLite runs with a write-ahead log and full synchronisation: ``done`` means that it survives a power cut. The
file is locked for as long as it is open, so that two processes cannot be the same device by accident, and it
is readable by its owner only, for the tokens in it.
"""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from longwire.client.errors import StateError
from longwire.client.storage import MEMORY_OF_MESSAGES, Done, Kept, Stored
from longwire.client.timers import Timer, Timers

_VERSION = 1
_SCHEMA = """
CREATE TABLE outbox (seq INTEGER PRIMARY KEY, message_id BLOB NOT NULL UNIQUE, target TEXT NOT NULL,
                     kind TEXT NOT NULL, payload BLOB NOT NULL, ttl_s INTEGER NOT NULL,
                     collapse_key TEXT NOT NULL, taken_at_ms INTEGER NOT NULL, why_aside TEXT NOT NULL);
CREATE TABLE handled (seq INTEGER PRIMARY KEY, key BLOB NOT NULL);
CREATE TABLE kept (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_PUT = "INSERT OR REPLACE INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_REMOVE = "DELETE FROM outbox WHERE message_id = ?"
_SET_ASIDE = "UPDATE outbox SET why_aside = ? WHERE message_id = ?"
_REMEMBER = "INSERT INTO handled VALUES (?, ?)"
_FORGET = "DELETE FROM handled WHERE seq <= ?"
_KEEP = "INSERT OR REPLACE INTO kept VALUES (?, ?)"

_LAZY_S = 1.0
_MAX_LAZY = 1_000
_FORGET_EVERY = 512
_THREADS = 4

_Statement = tuple[str, Sequence[bytes | str | int]]


@cache
def _threads() -> ThreadPoolExecutor:
    """The process's few threads for all state files: a commit waits for the disk, not for the processor."""
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="longwire-state")


class StateFile:
    """``Storage`` in the file at ``path``; the file is made where it is missing, its folder is not."""

    def __init__(self, path: str | os.PathLike[str], timers: Timers) -> None:
        self._path = Path(path)
        self._timers = timers
        self._database: sqlite3.Connection | None = None
        self._pending: list[_Statement] = []
        self._waiting: list[Done] = []
        self._kept: dict[str, str] = {}  # named values that are not on disk yet: a failed write tries again
        self._handled_seq = 0
        self._is_urgent = False
        self._commit: asyncio.Future[None] | None = None
        self._timer: Timer | None = None

    async def open(self, device_id: str) -> Kept:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(_threads(), self._open, device_id)
        except (sqlite3.Error, OSError, ValueError) as error:
            self._shut()
            reason = "open in another process" if "locked" in str(error) else str(error)
            raise StateError(f"state file {self._path} cannot be used: {reason}") from error

    def _open(self, device_id: str) -> Kept:
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        database = sqlite3.connect(self._path, timeout=0.1, isolation_level=None, check_same_thread=False)
        self._database = database
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
            database.execute(f"PRAGMA {pragma}")
        database.execute("BEGIN IMMEDIATE")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version == 0:
            for statement in _SCHEMA.split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {_VERSION}")
            database.execute(_KEEP, ("device_id", device_id))
        elif version != _VERSION:
            raise ValueError(f"version {version} is not {_VERSION}")
        database.execute("COMMIT")
        values: dict[str, str] = dict(database.execute("SELECT name, value FROM kept"))
        if values.get("device_id") != device_id:
            raise ValueError(f"it belongs to device {values.get('device_id')}, not {device_id}")
        outbox = [Stored(*row) for row in database.execute("SELECT * FROM outbox ORDER BY seq")]
        names = database.execute(
            "SELECT seq, key FROM handled ORDER BY seq DESC LIMIT ?", (MEMORY_OF_MESSAGES,)
        ).fetchall()
        self._handled_seq = names[0][0] if names else 0
        return Kept(outbox, [key for _, key in reversed(names)], values)

    def put(self, message: Stored, done: Done) -> None:
        m = message
        row = (m.seq, m.message_id, m.to, m.kind, m.payload, m.ttl_s, m.collapse_key, m.taken_at_ms, m.why_aside)
        self._pending.append((_PUT, row))
        self._write(done)

    def mark(self, done: Done) -> None:
        self._write(done)

    def remove(self, message_id: bytes) -> None:
        self._pending.append((_REMOVE, (message_id,)))
        if len(self._pending) >= _MAX_LAZY:
            self._write(None)
        elif self._timer is None:
            self._timer = self._timers.call_later(_LAZY_S, lambda: self._write(None))

    def set_aside(self, message_id: bytes, why: str) -> None:
        self._pending.append((_SET_ASIDE, (why, message_id)))
        self._write(None)

    def remember(self, key: bytes, done: Done) -> None:
        self._handled_seq += 1
        self._pending.append((_REMEMBER, (self._handled_seq, key)))
        if self._handled_seq % _FORGET_EVERY == 0:
            self._pending.append((_FORGET, (self._handled_seq - MEMORY_OF_MESSAGES,)))
        self._write(done)

    def keep(self, name: str, value: str, done: Done | None = None) -> None:
        self._kept[name] = value
        self._write(done)

    async def close(self) -> None:
        self._write(None)
        while self._commit is not None:
            await asyncio.wait([self._commit])
        await asyncio.get_running_loop().run_in_executor(_threads(), self._shut)

    def _shut(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            with contextlib.suppress(sqlite3.Error):
                database.close()

    def _write(self, done: Done | None) -> None:
        if done is not None:
            self._waiting.append(done)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._is_urgent = self._is_urgent or bool(self._pending or self._kept or self._waiting)
        if self._commit is None and self._is_urgent:
            # From the next turn of the loop, so that what this turn still brings goes along.
            self._commit = asyncio.ensure_future(self._commits())

    async def _commits(self) -> None:
        """Writes group after group while anyone waits; each tells those who wait for it."""
        loop = asyncio.get_running_loop()
        try:
            while self._is_urgent:
                self._is_urgent = False
                pending, self._pending = self._pending, []
                waiting, self._waiting = self._waiting, []
                kept, self._kept = self._kept, {}
                failure: StateError | None = None
                try:
                    await loop.run_in_executor(_threads(), self._transact, pending, kept)
                except Exception as error:  # noqa: BLE001 - the root of a task: whoever waits must hear of it
                    failure = StateError(f"state file {self._path} was not written: {error}")
                    self._kept = kept | self._kept
                for done in waiting:
                    done(failure)
        finally:
            self._commit = None

    def _transact(self, statements: list[_Statement], kept: dict[str, str]) -> None:
        database = self._database
        if database is None:
            raise sqlite3.ProgrammingError("it is closed")
        if not statements and not kept:
            return
        database.execute("BEGIN IMMEDIATE")
        try:
            for statement, row in statements:
                database.execute(statement, row)
            for item in kept.items():
                database.execute(_KEEP, item)
            database.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                database.execute("ROLLBACK")
            raise
