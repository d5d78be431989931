"""A database on SQLite: one writer thread that commits in groups, a few reader threads, and the start.

What is queued while one transaction syncs becomes the next one: many messages pay for one sync, and a message
that comes alone waits for nobody. Write-ahead log with full synchronisation: a callback or a returned write means
that the disk has it.

Two threads and SQLAlchemy's synchronous connections instead of aiosqlite, because a hop between threads costs as
much as ten statements (docs/decisions/0002): here a whole group of statements pays for one hop.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from longwire.adapters.sql import migrate
from longwire.errors import LongwireError, StoreUnavailable

T = TypeVar("T")
Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)

FILE_NAME = "longwire.db"
_READERS = 2
_GROUP = 2_000
"""Items of one stage in one transaction: bounds how long a commit takes and how long its callbacks hold the loop."""
_FINISH_SLICE = 128
_CHECKPOINT_BYTES = 16 << 20
_WAL_LIMIT_BYTES = 64 << 20


class DataFolderInUse(LongwireError):
    """Another process works on this data folder."""


class Stage(Generic[Item, Result]):
    """A kind of write that is gathered: items in, on the loop; results out, on the loop, once they are durable."""

    def __init__(
        self,
        database: "SqliteDatabase",
        run: Callable[[Connection, list[Item]], Sequence[Result]],
        finish: Callable[[Item, Result], None],
        fail: Callable[[Item, Exception], None],
    ) -> None:
        self._database = database
        self.run = run
        self.finish = finish
        self.fail = fail
        self.gathered: list[Item] = []

    def add(self, item: Item) -> None:
        """Queues ``item`` for the next group; ``finish`` or ``fail`` is called for it, in order."""
        self.gathered.append(item)
        if not self._database.is_handing_over:
            self._database.hand_over_soon()


class SqliteDatabase:
    """One SQLite file, or rather one data folder, that belongs to this process alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / FILE_NAME
        self._engine: Engine | None = None
        self._lock: IO[str] | None = None
        self._stages: list[Stage[Any, Any]] = []
        self._handed: deque[tuple[Stage[Any, Any], list[Any]]] = deque()
        self._finished: deque[_Finished] = deque()
        self._is_finishing = False
        self._wake = threading.Event()
        self._is_stopping = False
        self._writer: threading.Thread | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._local = threading.local()
        self._reading: list[Connection] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: Stage[_Call, Any] = self.stage(
            _run_calls, lambda call, result: call.settle(result), lambda call, error: call.fail(error)
        )
        self.is_handing_over = False
        self.is_writable = True
        """Whether the last group was committed."""

    def stage(
        self,
        run: Callable[[Connection, list[Item]], Sequence[Result]],
        finish: Callable[[Item, Result], None],
        fail: Callable[[Item, Exception], None],
    ) -> Stage[Item, Result]:
        """A new kind of gathered write. ``run`` is called on the writer thread, within a transaction.

        Within a group the stages run in the order in which they were made, and the calls of ``write`` behind them.
        """
        stage = Stage(self, run, finish, fail)
        # Calls stay the last: when a write has returned, what was queued before it has been told.
        self._stages.insert(len(self._stages) - 1, stage)
        return stage

    # -- start and stop ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Takes the folder, migrates the schema and starts the threads.

        Raises DataFolderInUse, and StoreUnavailable where the file cannot be opened or migrated.
        """
        self._loop = asyncio.get_running_loop()
        try:
            await self._loop.run_in_executor(None, self._open)
        except OSError as error:
            self._let_go()
            raise StoreUnavailable(f"data folder {self._folder}: {error.strerror}") from error
        except DBAPIError as error:
            self._let_go()
            raise StoreUnavailable(f"database {self._path}: {error.orig}") from error
        except BaseException:
            self._let_go()
            raise
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="lw-sql-read")
        self._writer = threading.Thread(target=self._write_loop, name="lw-sql-write", daemon=True)
        self._writer.start()

    async def stop(self) -> None:
        """Commits what is queued, then closes everything."""
        if self._loop is None or self._writer is None or self._readers is None or self._engine is None:
            return
        self._hand_over()
        self._is_stopping = True
        self._wake.set()
        await self._loop.run_in_executor(None, self._writer.join)
        while self._is_finishing:
            self._finish()
        self._readers.shutdown(wait=True)
        for connection in self._reading:
            connection.close()
        self._let_go()
        self._writer = None

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
        """Runs ``call`` on a reader thread: it sees every group that was committed before.

        Raises StoreUnavailable for what the database raised.
        """
        if self._readers is None or self._loop is None or self._is_stopping:
            raise StoreUnavailable("the store is stopped")
        try:
            return await self._loop.run_in_executor(self._readers, self._read, call)
        except DBAPIError as error:
            raise StoreUnavailable(f"read failed: {error.orig}") from error

    def _read(self, call: Callable[[Connection], T]) -> T:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            assert self._engine is not None
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self._local.connection = connection
            self._reading.append(connection)
        return call(connection)

    # -- writes -----------------------------------------------------------------------------------------------

    async def write(self, call: Callable[[Connection], T]) -> T:
        """Runs ``call`` in the next group, all or nothing; durable when it returns.

        What ``call`` raises comes back and undoes that call alone. Raises StoreUnavailable where the database
        did not take it. Cancelling the caller does not undo the write.
        """
        self.check_open()
        assert self._loop is not None
        pending = _Call(call, self._loop.create_future())
        self._calls.add(pending)
        result: T = await pending.future
        return result

    def check_open(self) -> None:
        """Raises StoreUnavailable where nothing can be queued: before the start, and while it stops."""
        if self._writer is None or self._loop is None or self._is_stopping:
            raise StoreUnavailable("the store is stopped")

    def hand_over_soon(self) -> None:
        """Gives the writer what this turn of the loop gathers, at the turn's end: one wake-up for all of it."""
        assert self._loop is not None
        self.is_handing_over = True
        self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self.is_handing_over = False
        for stage in self._stages:
            if stage.gathered:
                self._handed.append((stage, stage.gathered))
                stage.gathered = []
        self._wake.set()

    def _write_loop(self) -> None:
        assert self._engine is not None
        assert self._loop is not None
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        checkpointer = _Checkpointer(self._engine, self._path.with_name(FILE_NAME + "-wal"))
        while True:
            if not self._handed:
                if self._is_stopping:
                    break
                self._wake.wait()
                self._wake.clear()
                continue
            group = self._take_group()
            finished = self._commit(connection, group)
            with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
                self._loop.call_soon_threadsafe(self._take_finished, finished)
            checkpointer.look(connection)
        checkpointer.stop()
        connection.close()

    def _take_finished(self, finished: "list[_Finished]") -> None:
        """On the loop: a group is done. Its callbacks run behind those of the groups before it."""
        self._finished += finished
        if not self._is_finishing:
            self._is_finishing = True
            self._finish()

    def _finish(self) -> None:
        """Calls back for a slice, then lets the loop breathe; the order of the calls is kept."""
        assert self._loop is not None
        left = _FINISH_SLICE
        while self._finished and left:
            call, items, results = self._finished.popleft()
            if len(items) > left:
                self._finished.appendleft((call, items[left:], results[left:]))
                items, results = items[:left], results[:left]
            left -= len(items)
            for item, result in zip(items, results, strict=True):
                try:
                    call(item, result)
                except Exception:
                    log.exception("what a commit led to failed; the others of its group go on")
        self._is_finishing = bool(self._finished)
        if self._is_finishing:
            self._loop.call_soon(self._finish)

    def _take_group(self) -> dict[Stage[Any, Any], list[Any]]:
        group: dict[Stage[Any, Any], list[Any]] = {}
        while self._handed:
            stage, items = self._handed[0]
            gathered = group.setdefault(stage, [])
            room = _GROUP - len(gathered)
            if room <= 0:
                break
            gathered += items[:room]
            if len(items) <= room:
                self._handed.popleft()
            else:
                self._handed[0] = (stage, items[room:])
        return group

    def _commit(self, connection: Connection, group: dict[Stage[Any, Any], list[Any]]) -> "list[_Finished]":
        finished: list[_Finished] = []
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            for stage in self._stages:
                if stage in group:
                    finished += _run_stage(connection, stage, group[stage])
            connection.exec_driver_sql("COMMIT")
        except Exception as error:  # the root of the writer's thread: whatever it is, the next group is tried
            with contextlib.suppress(DBAPIError):
                connection.exec_driver_sql("ROLLBACK")
            cause = error.orig if isinstance(error, DBAPIError) else error
            if self.is_writable:
                log.error("the store does not take writes: %s", cause, exc_info=not isinstance(error, DBAPIError))
            self.is_writable = False
            failure = StoreUnavailable(f"commit failed: {cause}")
            return [(stage.fail, items, [failure] * len(items)) for stage, items in group.items()]
        if not self.is_writable:
            log.warning("the store takes writes again")
            self.is_writable = True
        return finished


_Finished = tuple[Callable[[Any, Any], None], list[Any], Sequence[Any]]


class _Call:
    """A write that somebody awaits."""

    __slots__ = ("future", "run")

    def __init__(self, run: Callable[[Connection], Any], future: asyncio.Future[Any]) -> None:
        self.run = run
        self.future = future

    def settle(self, result: Any) -> None:
        if not self.future.done():
            self.future.set_result(result)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


def _run_calls(connection: Connection, calls: list[_Call]) -> list[Any]:
    return [call.run(connection) for call in calls]


def _run_stage(connection: Connection, stage: Stage[Any, Any], items: list[Any]) -> list[_Finished]:
    """Runs a stage's items, halving them on a failure until the one at fault stands alone.

    An error of the database as a whole (full, not readable, locked) is not an item's fault and goes up.
    """
    connection.exec_driver_sql("SAVEPOINT part")
    try:
        results = stage.run(connection, items)
    except Exception as error:
        if isinstance(error, DBAPIError) and _is_engine_failure(error):
            raise
        connection.exec_driver_sql("ROLLBACK TO part")
        connection.exec_driver_sql("RELEASE part")
        if len(items) == 1:
            return [(stage.fail, items, [error])]
        half = len(items) // 2
        return _run_stage(connection, stage, items[:half]) + _run_stage(connection, stage, items[half:])
    connection.exec_driver_sql("RELEASE part")
    return [(stage.finish, items, results)]


def _is_engine_failure(error: DBAPIError) -> bool:
    name: str = getattr(error.orig, "sqlite_errorname", "")
    return name.startswith(
        (
            "SQLITE_FULL",
            "SQLITE_IOERR",
            "SQLITE_BUSY",
            "SQLITE_CORRUPT",
            "SQLITE_READONLY",
            "SQLITE_CANTOPEN",
            "SQLITE_NOMEM",
        )
    )


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
