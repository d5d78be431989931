"""A database that several processes share: MariaDB, MySQL or PostgreSQL, over asynchronous drivers.

One thread with an event loop of its own drives SQLAlchemy's asynchronous engines, and each group and each read is a
plain function over a ``Connection`` (AsyncConnection.run_sync), as on SQLite. A group is one transaction:

    SELECT … FROM write_locks … FOR UPDATE      the domains of its stages: their writers go one after another
    the stages
    UPDATE write_locks SET next = …             the numbers that they took, and the number of this group
    COMMIT

The last row makes the outcome of a COMMIT known whose answer is lost: on a new connection the process reads the
number of its last group, behind the lock of the transaction in doubt.

A connection that is lost, or a server that does not answer, costs at most ``CONNECT_WITHIN_S`` and ``ANSWER_WITHIN_S``;
the next call tries again. Nothing has to be restarted when the engine returns.
"""

import asyncio
import contextlib
import itertools
import logging
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

import uvloop
from sqlalchemy import Connection, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from longwire.adapters.sql import dialect, migrate
from longwire.adapters.sql.database import Database, Finished, Group, run_stage
from longwire.adapters.sql.domains import HELD, LOCK_ONE, Domain
from longwire.errors import LongwireError, StoreUnavailable

T = TypeVar("T")

log = logging.getLogger(__name__)

CONNECT_WITHIN_S = 3.0
ANSWER_WITHIN_S = 10.0
"""How long a read or an attempt at a group may take as seen from here; the engine itself ends a statement before."""

_READERS = 8
_ATTEMPTS = 4
_RECYCLE_S = 1_800
_STATEMENT_S = 8
_IDLE_IN_TRANSACTION_S = 5
"""A process that stands still in a transaction holds up every other one: the engine ends it, while they still wait."""
_READS_END_WITHIN_S = 1.0
_THREAD_ENDS_WITHIN_S = 5.0
_FORGET_PROCESSES_MS = 7 * 86_400_000
_DRIVERS = {"mysql": "mysql+asyncmy", "postgresql": "postgresql+asyncpg"}
_LOCK = 'SELECT name, "next" FROM write_locks{index} WHERE name IN ({rows}) ORDER BY name FOR UPDATE'
# By the index: a scan of the whole table would wait for rows of other domains.
_BY_INDEX = {"mysql": " FORCE INDEX (PRIMARY)", "postgresql": ""}
_KEEP = 'UPDATE write_locks SET "next" = CASE name {cases} ELSE "next" END WHERE name IN ({rows})'
_ADD_PROCESS = 'INSERT INTO write_locks (name, "next") VALUES (?, ?)'
_FORGET = """DELETE FROM write_locks WHERE name >= 'process:' AND name < 'process;' AND "next" < ?"""
_FORGET_SELF = "DELETE FROM write_locks WHERE name = ?"


class UnknownEngine(LongwireError):
    """A URL that names no engine that the store can stand on."""


class _Group:
    """One attempt at a group, as far as it came."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.is_careful = False
        """Whether a failing item is searched for; before, the group is run as if there were none."""
        self.is_committing = False
        self.finished: list[Finished] = []
        self.number = 0


class _ItemFailed(Exception):
    """A stage refused its items: one of them is at fault, and nothing of the group was kept."""


class SharedDatabase(Database):
    """One database on an engine that others use at the same time; ``url`` is SQLAlchemy's, with its driver."""

    is_shared = True

    def __init__(
        self,
        url: str,
        *,
        connect_within_s: float = CONNECT_WITHIN_S,
        answer_within_s: float = ANSWER_WITHIN_S,
    ) -> None:
        """Raises UnknownEngine. Nothing is opened yet."""
        super().__init__()
        self._url = make_url(url)
        self.engine_name = self._url.get_backend_name()
        if self._url.drivername != _DRIVERS.get(self.engine_name):
            known = " or ".join(f"{driver}://…" for driver in _DRIVERS.values())
            raise UnknownEngine(f"the store cannot stand on {self._url.drivername}: {known}")
        self._connect_within_s = connect_within_s
        self._answer_within_s = answer_within_s
        self._no_answer = f"{self.engine_name} did not answer within {answer_within_s:g} s"
        self._process = f"process:{secrets.token_hex(8)}"
        self._numbers = itertools.count(time.time_ns() // 1_000_000)
        """Of groups: they rise, and begin with the time, by which the rows of processes that are gone are known."""
        self._thread: _LoopThread | None = None
        self._writers: AsyncEngine | None = None
        self._readers: AsyncEngine | None = None
        self._wake: asyncio.Event | None = None
        self._writing: asyncio.Future[None] | None = None

    # -- start and stop ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Starts the thread, and looks whether the schema is this program's: it is not migrated here.

        Raises SchemaMismatch, and StoreUnavailable where the engine does not answer.
        """
        self._thread = _LoopThread()
        try:
            await self._thread.call(self._open())
        except BaseException:
            await self._thread.call(self._close())
            await self._thread.stop()
            self._thread = None
            raise
        self._loop = asyncio.get_running_loop()
        self._writing = asyncio.ensure_future(self._thread.call(self._write_loop()))

    async def stop(self) -> None:
        if self._thread is None or self._writing is None:
            return
        self._hand_over()
        self._is_stopping = True
        self._wake_writer()
        await self._writing
        # The last group's callbacks were sent to the loop before the writer ended.
        await asyncio.sleep(0)
        self._finish_all()
        # Reads that nobody waits for any more: a connection that is still being made is not in its pool.
        await self._thread.call(_end_others())
        await self._thread.call(self._close())
        await self._thread.stop()
        self._thread = None
        self._loop = None
        self._hand_over()

    async def _open(self) -> None:
        self._wake = asyncio.Event()
        self._writers = self._engine(isolation_level="READ COMMITTED", pool_size=1, max_overflow=1)
        self._readers = self._engine(isolation_level="AUTOCOMMIT", pool_size=_READERS, max_overflow=0)
        now_ms = time.time_ns() // 1_000_000

        def join(connection: Connection) -> None:
            migrate.check(connection)
            connection.exec_driver_sql(_FORGET, (now_ms - _FORGET_PROCESSES_MS,)).close()
            # There already where the answer to a start's COMMIT was lost, and it is tried again.
            connection.exec_driver_sql(_FORGET_SELF, (self._process,)).close()
            connection.exec_driver_sql(_ADD_PROCESS, (self._process, now_ms)).close()
            connection.commit()

        await self._asked(self._writers, join)

    async def _close(self) -> None:
        if self._writers is not None and self._writing is not None:
            with contextlib.suppress(StoreUnavailable):
                await self._asked(self._writers, self._leave)
        for engine in (self._writers, self._readers):
            if engine is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._connect_within_s):
                        await engine.dispose()

    def _leave(self, connection: Connection) -> None:
        connection.exec_driver_sql(_FORGET_SELF, (self._process,)).close()
        connection.commit()

    def _engine(self, **options: Any) -> AsyncEngine:
        if self.engine_name == "mysql":
            arguments: dict[str, Any] = {"connect_timeout": self._connect_within_s, "charset": "utf8mb4"}
        else:
            settings = {
                "application_name": "longwire",
                "statement_timeout": str(_STATEMENT_S * 1000),
                "lock_timeout": str(_STATEMENT_S * 1000),
                "idle_in_transaction_session_timeout": str(_IDLE_IN_TRANSACTION_S * 1000),
            }
            arguments = {
                "timeout": self._connect_within_s,
                "server_settings": settings,
                "prepared_statement_cache_size": 512,
            }
        engine = create_async_engine(
            self._url,
            connect_args=arguments,
            pool_timeout=self._connect_within_s,
            pool_recycle=_RECYCLE_S,
            pool_reset_on_return=None,
            **options,
        )
        dialect.speak(engine.sync_engine)
        if self.engine_name == "mysql":
            # It would log what INSERT IGNORE leaves out.
            logging.getLogger("asyncmy").setLevel(logging.ERROR)
            event.listen(engine.sync_engine, "connect", _set_session)
        return engine

    # -- reads ------------------------------------------------------------------------------------------------

    async def read(self, call: Callable[[Connection], T]) -> T:
        if self._thread is None or self._loop is None or self._is_stopping:
            raise StoreUnavailable("the store is stopped")
        assert self._readers is not None
        began = time.monotonic()
        try:
            result = await self._thread.call(self._read(self._readers, call))
        except StoreUnavailable:
            self.reads.failed()
            raise
        self.reads.note(time.monotonic() - began)
        return result

    async def _read(self, engine: AsyncEngine, call: Callable[[Connection], T]) -> T:
        try:
            return await self._asked(engine, call)
        except _ConnectionLost:
            # It may have been lost long ago, while it waited in the pool; a new one tells.
            return await self._asked(engine, call)

    async def _asked(self, engine: AsyncEngine, call: Callable[[Connection], T]) -> T:
        """Runs ``call`` on a connection of ``engine``. Raises StoreUnavailable for what the engine raised."""
        try:
            async with self._connected(engine) as connection, asyncio.timeout(self._answer_within_s):
                try:
                    return await connection.run_sync(call)
                except DBAPIError:
                    if connection.in_transaction() and not connection.invalidated:
                        await connection.rollback()
                    raise
        except TimeoutError as error:
            raise StoreUnavailable(self._no_answer) from error
        except DBAPIError as error:
            kind = _ConnectionLost if error.connection_invalidated else StoreUnavailable
            raise kind(f"{self.engine_name}: {_said(error)}") from error

    @contextlib.asynccontextmanager
    async def _connected(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        """A connection, within the time for that. Raises StoreUnavailable."""
        try:
            async with asyncio.timeout(self._connect_within_s):
                connection = await engine.connect()
        except TimeoutError as error:
            raise StoreUnavailable(f"{self.engine_name} took no connection in {self._connect_within_s:g} s") from error
        except (OSError, SQLAlchemyError) as error:
            raise StoreUnavailable(f"{self.engine_name} is away: {_said(error)}") from error
        try:
            yield connection
        finally:
            with contextlib.suppress(OSError, SQLAlchemyError):
                await connection.close()

    # -- writes -----------------------------------------------------------------------------------------------

    def _wake_writer(self) -> None:
        if self._thread is not None and self._wake is not None:
            self._thread.loop.call_soon_threadsafe(self._wake.set)

    async def _write_loop(self) -> None:
        assert self._wake is not None
        while True:
            if not self._handed:
                if self._is_stopping:
                    return
                await self._wake.wait()
                self._wake.clear()
                continue
            self._tell(await self._commit(self._take_group()))

    async def _commit(self, group: Group) -> list[Finished]:
        attempt, began = _Group(group), time.monotonic()
        try:
            await self._attempts(attempt)
        except Exception as error:  # noqa: BLE001 - the root of the writer: whatever it is, the next group is tried
            return self._not_committed(group, error)
        self._committed(began)
        return attempt.finished

    async def _attempts(self, attempt: _Group) -> None:
        """Commits the group, again where it may be repeated. Raises what the last attempt did."""
        assert self._writers is not None
        for left in reversed(range(_ATTEMPTS)):
            attempt.number = next(self._numbers)
            attempt.is_committing = False
            try:
                async with self._connected(self._writers) as connection:
                    await self._attempt(connection, attempt)
            except _ItemFailed:
                attempt.is_careful = True
            except TimeoutError as error:
                if not attempt.is_committing or not await self._is_committed(attempt.number):
                    raise StoreUnavailable(self._no_answer) from error
                return
            except DBAPIError as error:
                if error.connection_invalidated and attempt.is_committing:
                    if await self._is_committed(attempt.number):
                        return
                elif not left or not (error.connection_invalidated or dialect.is_passing(error)):
                    raise
                log.info("a group of writes is tried again: %s", _said(error))
            else:
                return
        raise StoreUnavailable("a group of writes was undone each time it was tried")

    async def _attempt(self, connection: AsyncConnection, attempt: _Group) -> None:
        async with asyncio.timeout(self._answer_within_s):
            try:
                await connection.run_sync(self._run, attempt)
            except BaseException:
                if not connection.invalidated:
                    with contextlib.suppress(SQLAlchemyError):
                        await connection.rollback()
                raise

    def _run(self, connection: Connection, attempt: _Group) -> None:
        held = self._take_locks(connection, self._domains_of(attempt.group) - {Domain.EVENTS})
        before = dict(held)
        connection.info[HELD] = held
        attempt.finished = []
        for stage, items in self._in_order(attempt.group):
            if attempt.is_careful:
                attempt.finished += run_stage(connection, stage, items)
                continue
            try:
                results = stage.run(connection, items)
            except Exception as error:
                if isinstance(error, DBAPIError) and dialect.is_engine_failure(error):
                    raise
                raise _ItemFailed from error
            attempt.finished.append((stage.finish, items, results))
        changed = {name: number for name, number in held.items() if number != before.get(name)}
        self._keep_numbers(connection, changed | {self._process: attempt.number})
        attempt.is_committing = True
        connection.commit()

    def _take_locks(self, connection: Connection, domains: set[Domain]) -> dict[str, int]:
        if not domains:
            return {}
        statement = _LOCK.format(index=_BY_INDEX[self.engine_name], rows=",".join("?" * len(domains)))
        rows = connection.exec_driver_sql(statement, tuple(sorted(domains))).fetchall()
        if len(rows) < len(domains):
            raise StoreUnavailable(f"write_locks lacks {sorted(domains - {name for name, _ in rows})}")
        return dict(map(tuple, rows))

    def _keep_numbers(self, connection: Connection, numbers: dict[str, int]) -> None:
        names = tuple(sorted(numbers))
        cases = " ".join(["WHEN ? THEN ?"] * len(names))
        statement = _KEEP.format(cases=cases, rows=",".join("?" * len(names)))
        pairs = [value for name in names for value in (name, numbers[name])]
        if connection.exec_driver_sql(statement, (*pairs, *names)).rowcount < len(names):
            # It has not written for so long that it was forgotten.
            connection.exec_driver_sql(_ADD_PROCESS, (self._process, numbers[self._process])).close()

    async def _is_committed(self, number: int) -> bool:
        """Whether the group in doubt was committed. Raises StoreUnavailable where nobody can tell now."""
        assert self._writers is not None

        def is_last(connection: Connection) -> bool:
            # Behind the lock of the transaction in doubt: it has ended when this returns.
            found = connection.exec_driver_sql(LOCK_ONE, (self._process,)).scalar()
            connection.commit()
            return bool(found == number)

        return await self._read(self._writers, is_last)


class _ConnectionLost(StoreUnavailable):
    """The connection broke under a call."""


class _LoopThread:
    """A thread with an event loop, and calls into it."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="lw-sql", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.loop.run_forever()
        self.loop.close()

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine there. Where the caller is cancelled it goes on: to break it off costs the connection."""
        return await asyncio.shield(asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop)))

    async def stop(self) -> None:
        """Ends what still runs there, and the thread."""
        await self.call(_end_others(0))
        self.loop.call_soon_threadsafe(self.loop.stop)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join, _THREAD_ENDS_WITHIN_S)
        if self._thread.is_alive():
            log.warning("the thread of the store would not end and is left behind")


async def _end_others(within_s: float = _READS_END_WITHIN_S) -> None:
    """Lets the loop's other tasks end by themselves for so long, and cancels them then."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others and within_s:
        await asyncio.wait(others, timeout=within_s)
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def migrate_shared(url: str) -> list[str]:
    """Brings a shared database to this program's schema; the names of what was done. For `longwire migrate`.

    Raises SchemaMismatch, StoreUnavailable and UnknownEngine.
    """
    return await _on_schema(url, migrate.upgrade)


async def check_shared(url: str) -> None:
    """Raises SchemaMismatch where a shared database has not this program's schema; StoreUnavailable, UnknownEngine."""
    await _on_schema(url, migrate.check)


async def _on_schema(url: str, call: Callable[[Connection], T]) -> T:
    """Without the time limits of daily work: a migration takes what it takes."""
    name = SharedDatabase(url).engine_name
    engine = create_async_engine(url)
    dialect.speak(engine.sync_engine)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(call)
    except (OSError, SQLAlchemyError) as error:
        raise StoreUnavailable(f"{name}: {_said(error)}") from error
    finally:
        await engine.dispose()


def _set_session(connection: Any, _record: object) -> None:
    """What MariaDB and MySQL are to be like for this connection."""
    cursor = connection.cursor()
    cursor.execute("SELECT VERSION(), @@collation_database")
    version, collation = cursor.fetchone()
    settings = [
        "sql_mode = 'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO'",
        f"collation_connection = {collation}",
        f"innodb_lock_wait_timeout = {_STATEMENT_S}",
    ]
    if "MariaDB" in version:
        settings += [f"max_statement_time = {_STATEMENT_S}", f"idle_transaction_timeout = {_IDLE_IN_TRANSACTION_S}"]
    else:
        settings += [f"max_execution_time = {_STATEMENT_S * 1000}", f"wait_timeout = {_IDLE_IN_TRANSACTION_S}"]
    cursor.execute("SET SESSION " + ", SESSION ".join(settings))
    cursor.close()


def _said(error: BaseException) -> str:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return str(cause) or type(cause).__name__
