"""The embedded database: SQLite, one writer thread that commits in groups, a few reader threads, and the start.

Write-ahead log with full synchronisation: what is committed is on the disk.

Two threads and SQLAlchemy's synchronous connections instead of aiosqlite, because a hop between threads costs as
much as ten statements (docs/decisions/0002): here a whole group of statements pays for one hop.
"""

import asyncio
import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from longwire.adapters.sql import migrate
from longwire.adapters.sql.database import Database, Finished, Group, run_stage
from longwire.errors import LongwireError, StoreUnavailable

T = TypeVar("T")

FILE_NAME = "longwire.db"
_READERS = 2
_CHECKPOINT_BYTES = 16 << 20
_WAL_LIMIT_BYTES = 64 << 20


class DataFolderInUse(LongwireError):
    """Another process works on this data folder."""


class SqliteDatabase(Database):
    """One SQLite file, or rather one data folder, that belongs to this process alone."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._path = folder / FILE_NAME
        self._engine: Engine | None = None
        self._lock: IO[str] | None = None
        self._wake = threading.Event()
        self._writer: threading.Thread | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._local = threading.local()
        self._reading: list[Connection] = []

    # -- start and stop ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Takes the folder, migrates the schema and starts the threads.

        Raises DataFolderInUse, SchemaMismatch for a file of a newer program, and StoreUnavailable where the file
        cannot be opened or migrated.
        """
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(None, self._open)
        except OSError as error:
            self._let_go()
            raise StoreUnavailable(f"data folder {self._folder}: {error.strerror}") from error
        except DBAPIError as error:
            self._let_go()
            raise StoreUnavailable(f"database {self._path}: {error.orig}") from error
        except BaseException:
            self._let_go()
            raise
        self._loop = loop
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="lw-sql-read")
        self._writer = threading.Thread(target=self._write_loop, name="lw-sql-write", daemon=True)
        self._writer.start()

    async def stop(self) -> None:
        if self._loop is None or self._writer is None or self._readers is None or self._engine is None:
            return
        self._hand_over()
        self._is_stopping = True
        self._wake.set()
        await self._loop.run_in_executor(None, self._writer.join)
        self._finish_all()
        self._readers.shutdown(wait=True)
        for connection in self._reading:
            connection.close()
        self._let_go()
        self._writer = None
        self._loop = None
        self._hand_over()

    def _let_go(self) -> None:
        if self._engine is not None:
            self._engine.dispose()
        if self._lock is not None:
            self._lock.close()

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self._folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataFolderInUse(f"data folder {self._folder} is in use by another Longwire process") from error
        # Its companions (-wal, -shm) are made with its mode: they hold the same secrets.
        self._path.touch(mode=0o600)
        self._path.chmod(0o600)
        self._engine = create_engine(
            f"sqlite:///{self._path}",
            pool_size=_READERS + 2,
            connect_args={"check_same_thread": False, "cached_statements": 512, "timeout": 30},
        )
        event.listen(self._engine, "connect", _set_pragmas)
        with self._engine.connect() as connection:
            migrate.upgrade(connection)

    # -- reads ------------------------------------------------------------------------------------------------

    async def read(self, call: Callable[[Connection], T]) -> T:
        if self._readers is None or self._loop is None or self._is_stopping:
            raise StoreUnavailable("the store is stopped")
        began = time.monotonic()
        try:
            result = await self._loop.run_in_executor(self._readers, self._read, call)
        except DBAPIError as error:
            self.reads.failed()
            raise StoreUnavailable(f"read failed: {error.orig}") from error
        self.reads.note(time.monotonic() - began)
        return result

    def _read(self, call: Callable[[Connection], T]) -> T:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            assert self._engine is not None
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self._local.connection = connection
            self._reading.append(connection)
        return call(connection)

    # -- writes -----------------------------------------------------------------------------------------------

    def _wake_writer(self) -> None:
        self._wake.set()

    def _write_loop(self) -> None:
        assert self._engine is not None
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        checkpointer = _Checkpointer(self._engine, self._path.with_name(FILE_NAME + "-wal"))
        while True:
            if not self._handed:
                if self._is_stopping:
                    break
                self._wake.wait()
                self._wake.clear()
                continue
            self._tell(self._commit(connection, self._take_group()))
            checkpointer.look(connection)
        checkpointer.stop()
        connection.close()

    def _commit(self, connection: Connection, group: Group) -> list[Finished]:
        finished: list[Finished] = []
        began = time.monotonic()
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            for stage, items in self._in_order(group):
                finished += run_stage(connection, stage, items)
            connection.exec_driver_sql("COMMIT")
        except Exception as error:  # noqa: BLE001 - the root of the writer's thread: whatever it is, the next group is tried
            with contextlib.suppress(DBAPIError):
                connection.exec_driver_sql("ROLLBACK")
            return self._not_committed(group, error)
        self._committed(began)
        return finished


class _Checkpointer:
    """Moves the write-ahead log into the database beside the writer, so that no commit waits for it.

    A passive checkpoint does not block the writer, but under constant load it never catches up with the log's
    end, and the log would grow: past a limit the writer itself closes the small gap that is left.
    """

    def __init__(self, engine: Engine, wal: Path) -> None:
        self._engine = engine
        self._wal = wal
        self._next_bytes = _CHECKPOINT_BYTES
        self._wake = threading.Event()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="lw-sql-checkpoint", daemon=True)
        self._thread.start()

    def look(self, writer: Connection) -> None:
        """Called by the writer between two groups."""
        try:
            size = os.stat(self._wal).st_size  # noqa: PTH116 - once a commit: cheaper than Path.stat
        except OSError:
            return
        if size >= _WAL_LIMIT_BYTES:
            with contextlib.suppress(DBAPIError):
                writer.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").close()
            self._next_bytes = _CHECKPOINT_BYTES
        elif size >= self._next_bytes:
            self._next_bytes = size + _CHECKPOINT_BYTES
            self._wake.set()

    def stop(self) -> None:
        self._is_stopping = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not self._is_stopping:
                self._wake.wait()
                self._wake.clear()
                with contextlib.suppress(DBAPIError):
                    connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)").close()


def _set_pragmas(connection: Any, _record: object) -> None:
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "wal_autocheckpoint=0",
        "cache_size=-32768",
        "temp_store=MEMORY",
        "journal_size_limit=67108864",
    ):
        connection.execute(f"PRAGMA {pragma}")
