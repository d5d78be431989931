"""A database that several processes share: groups, locks and numbers, engines that go away and come back."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from longwire.adapters.sql import bulk, shared
from longwire.adapters.sql.domains import Domain, take
from longwire.adapters.sql.migrate import SchemaMismatch
from longwire.adapters.sql.shared import SharedDatabase, UnknownEngine, migrate_shared
from longwire.adapters.sql.tables import metadata
from longwire.errors import StoreUnavailable
from longwire.testing.engines import MariaDb, Postgres

HANG_GUARD_S = 30.0
_PUT = 'INSERT INTO uplink_cursors (consumer, "offset") VALUES (?, ?)'
_GET = 'SELECT "offset" FROM uplink_cursors WHERE consumer = ?'
_SET = 'UPDATE uplink_cursors SET "offset" = ? WHERE consumer = ?'
_ADD = 'UPDATE uplink_cursors SET "offset" = "offset" + 1 WHERE consumer = ?'
_ALL = 'SELECT consumer, "offset" FROM uplink_cursors ORDER BY consumer'


@pytest.fixture(params=["mariadb", "postgres"])
def engine(request: pytest.FixtureRequest) -> MariaDb | Postgres:
    found: MariaDb | Postgres = request.getfixturevalue(f"{request.param}_engine")
    return found


@pytest.fixture
async def url(engine: MariaDb | Postgres) -> str:
    """Of a fresh database with this program's schema."""
    fresh = engine.fresh_url()
    await migrate_shared(fresh)
    return fresh


@contextlib.asynccontextmanager
async def started(url: str, **options: float) -> AsyncIterator[SharedDatabase]:
    database = SharedDatabase(url, **options)
    await database.start()
    try:
        yield database
    finally:
        await database.stop()


@pytest.fixture
async def database(url: str) -> AsyncIterator[SharedDatabase]:
    async with started(url) as database:
        yield database


@pytest.fixture
async def other(url: str) -> AsyncIterator[SharedDatabase]:
    """Another process on the same database."""
    async with started(url) as other:
        yield other


def put(consumer: str, offset: int) -> Callable[[Connection], None]:
    return lambda connection: connection.exec_driver_sql(_PUT, (consumer, offset)).close()


async def rows(database: SharedDatabase) -> list[tuple[str, int]]:
    return await database.read(lambda c: [tuple(row) for row in c.exec_driver_sql(_ALL).fetchall()])


class Gathered:
    """A stage that writes consumers, and notes what it is told of each."""

    def __init__(self, database: SharedDatabase, poison: object = None) -> None:
        self.poison = poison
        self.groups: list[list[int]] = []
        self.told: list[tuple[int, object]] = []
        self.stage = database.stage(
            self._run, lambda i, r: self.told.append((i, r)), lambda i, e: self.told.append((i, e)), Domain.UPLINK
        )

    def _run(self, connection: Connection, items: list[int]) -> list[int]:
        if self.poison in items:
            raise ValueError(f"{self.poison} is poison")
        bulk.execute(
            connection,
            'INSERT INTO uplink_cursors (consumer, "offset") VALUES {rows}',
            [(f"{item:04}", item) for item in items],
        )
        self.groups.append(items)
        return [item * 10 for item in items]

    async def all_told(self, count: int) -> None:
        async with asyncio.timeout(HANG_GUARD_S):
            while len(self.told) < count:
                await asyncio.sleep(0.001)


# -- groups --------------------------------------------------------------------------------------------------------


async def test_what_one_turn_gathers_is_one_group_told_in_order(database) -> None:
    gathered = Gathered(database)
    for n in range(300):
        gathered.stage.add(n)
    await gathered.all_told(300)
    assert gathered.groups == [list(range(300))]
    assert gathered.told == [(n, n * 10) for n in range(300)]
    assert [offset for _, offset in await rows(database)] == list(range(300))


@pytest.mark.parametrize("poison", [0, 17, 36])
async def test_one_item_at_fault_fails_alone(database, poison) -> None:
    gathered = Gathered(database, poison)
    for n in range(37):
        gathered.stage.add(n)
    await database.write(put("other", 1), Domain.UPLINK)
    await gathered.all_told(37)
    assert [item for item, _ in gathered.told] == list(range(37))
    failed = [(item, str(result)) for item, result in gathered.told if isinstance(result, Exception)]
    assert failed == [(poison, f"{poison} is poison")]
    assert [offset for _, offset in await rows(database)] == [*(n for n in range(37) if n != poison), 1]
    assert database.is_writable


async def test_a_broken_constraint_is_the_writes_own_fault(database) -> None:
    outcomes = await asyncio.gather(
        database.write(put("a", 1)), database.write(put("a", 2)), database.write(put("b", 3)), return_exceptions=True
    )
    assert [isinstance(outcome, Exception) for outcome in outcomes] == [False, True, False]
    assert await rows(database) == [("a", 1), ("b", 3)]
    assert database.is_writable


async def test_names_are_compared_byte_by_byte_and_sorted_by_code_points(database) -> None:
    names = ["B", "a", "a ", "A", "á", "z", "\U0001f600"]
    for number, name in enumerate(names):
        await database.write(put(name, number))
    assert [name for name, _ in await rows(database)] == sorted(names)
    for number, name in enumerate(names):
        found = await database.read(lambda c, name=name: c.exec_driver_sql(_GET, (name,)).fetchall())
        assert [tuple(row) for row in found] == [(number,)]


async def test_a_statement_of_many_large_rows_is_sent_in_pieces_that_the_engine_takes(database) -> None:
    payload = b"'\\\0" * 21_000
    statement = (
        "INSERT INTO dead_letters (letter_no, consumer, device_no, device_id, message_id, kind, payload, sent_at_ms,"
        ' trace, error, buried_at_ms, "offset") VALUES {rows}'
    )

    def write(connection: Connection) -> int:
        letters = [
            (number, "c", 1, "d", bytes(16), "k", payload, 1, bytes(24), "", 1, 1)
            for number in take(connection, Domain.DEAD_LETTERS, 400)
        ]
        return bulk.execute(connection, statement, letters)

    assert await database.write(write, Domain.DEAD_LETTERS) == 400
    kept = await database.read(lambda c: c.exec_driver_sql("SELECT payload FROM dead_letters LIMIT 1").scalar())
    assert kept == payload


async def test_before_the_start_and_after_the_stop_everything_is_refused(url) -> None:
    database = SharedDatabase(url)
    gathered = Gathered(database)
    for turn in (1, 2):
        gathered.stage.add(turn)
        await gathered.all_told(turn)
        with pytest.raises(StoreUnavailable):
            await database.write(put("a", 1))
        with pytest.raises(StoreUnavailable):
            await rows(database)
        if turn == 1:
            await database.start()
            await database.stop()
    assert [type(result) for _, result in gathered.told] == [StoreUnavailable] * 2


async def test_a_caller_that_is_cancelled_neither_undoes_its_write_nor_costs_a_connection(database) -> None:
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(connection: Connection) -> None:
        loop.call_soon_threadsafe(begun.set)
        put("a", 1)(connection)

    writing = asyncio.ensure_future(database.write(slow))
    await begun.wait()
    writing.cancel()
    reading = [asyncio.ensure_future(rows(database)) for _ in range(20)]
    await asyncio.sleep(0)
    for one in reading:
        one.cancel()
    await asyncio.gather(writing, *reading, return_exceptions=True)
    await database.write(put("b", 1))
    assert await rows(database) == [("a", 1), ("b", 1)]


# -- several processes ----------------------------------------------------------------------------------------------


async def test_what_one_process_reads_in_order_to_write_no_other_changes_meanwhile(database, other) -> None:
    await database.write(put("count", 0), Domain.UPLINK)

    def raise_it(connection: Connection) -> None:
        count = connection.exec_driver_sql(_GET, ("count",)).scalar_one()
        connection.exec_driver_sql(_SET, (count + 1, "count")).close()

    async def many(writer: SharedDatabase) -> None:
        for _ in range(50):
            await writer.write(raise_it, Domain.UPLINK)

    await asyncio.gather(many(database), many(other))
    assert await rows(other) == [("count", 100)]


async def test_a_reader_who_has_seen_a_number_never_sees_a_smaller_one_appear(database, other) -> None:
    def note(connection: Connection) -> None:
        for number in take(connection, Domain.EVENTS, 2):
            assert number is not None
            put(f"{number:06}", number)(connection)

    async def write(writer: SharedDatabase) -> None:
        await asyncio.gather(*[writer.write(note, Domain.EVENTS) for _ in range(10)])
        for _ in range(40):
            await writer.write(note, Domain.EVENTS)

    async def watch() -> None:
        seen: list[tuple[str, int]] = []
        while len(seen) < 200:
            now = await rows(other)
            assert now[: len(seen)] == seen
            seen = now

    async with asyncio.timeout(HANG_GUARD_S):
        await asyncio.gather(watch(), write(database), write(other))
    assert [number for _, number in await rows(database)] == list(range(1, 201))


async def test_numbers_of_a_write_that_fails_are_left_out_and_none_is_given_twice(database, other) -> None:
    def fail(connection: Connection) -> None:
        take(connection, Domain.SETS, 5)
        raise KeyError("bad")

    first = await database.write(lambda c: take(c, Domain.SETS, 3), Domain.SETS)
    with pytest.raises(KeyError):
        await database.write(fail, Domain.SETS)
    second = await other.write(lambda c: take(c, Domain.SETS, 3), Domain.SETS)
    assert list(first) == [1, 2, 3]
    assert second[0] > 3


async def test_writers_of_different_domains_do_not_wait_for_each_other(database, other) -> None:
    holding, let_go = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    at_it = asyncio.ensure_future(_hold(database, Domain.MESSAGES, loop, holding, let_go))
    await holding.wait()
    async with asyncio.timeout(HANG_GUARD_S):
        await other.write(put("a", 1), Domain.UPLINK)
    waiting = asyncio.ensure_future(other.write(put("b", 1), Domain.MESSAGES))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    let_go.set()
    await asyncio.gather(at_it, waiting)


async def _hold(
    database: SharedDatabase,
    domain: Domain,
    loop: asyncio.AbstractEventLoop,
    holding: asyncio.Event,
    let_go: asyncio.Event,
) -> None:
    """A write that stands in its transaction until it is let go; the store's thread stands with it."""

    def stand(_connection: Connection) -> None:
        loop.call_soon_threadsafe(holding.set)
        asyncio.run_coroutine_threadsafe(let_go.wait(), loop).result(HANG_GUARD_S)

    await database.write(stand, domain)


async def test_a_group_that_loses_a_deadlock_is_done_again(database, other) -> None:
    for name in ("a", "b"):
        await database.write(put(name, 0))
    met = [asyncio.Event(), asyncio.Event()]
    loop = asyncio.get_running_loop()

    def crossing(mine: int, names: tuple[str, str]) -> Callable[[Connection], None]:
        def change(connection: Connection) -> None:
            connection.exec_driver_sql(_ADD, (names[0],)).close()
            loop.call_soon_threadsafe(met[mine].set)
            asyncio.run_coroutine_threadsafe(met[1 - mine].wait(), loop).result(HANG_GUARD_S)
            connection.exec_driver_sql(_ADD, (names[1],)).close()

        return change

    async with asyncio.timeout(HANG_GUARD_S):
        await asyncio.gather(database.write(crossing(0, ("a", "b"))), other.write(crossing(1, ("b", "a"))))
    assert await rows(database) == [("a", 2), ("b", 2)]
    assert database.is_writable
    assert other.is_writable


async def test_a_process_that_stands_still_in_a_transaction_is_thrown_out_by_the_engine(url, monkeypatch) -> None:
    monkeypatch.setattr(shared, "_IDLE_IN_TRANSACTION_S", 1)
    holding, let_go = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    async with started(url) as stuck, started(url) as other:
        at_it = asyncio.ensure_future(_hold(stuck, Domain.MESSAGES, loop, holding, let_go))
        await holding.wait()
        async with asyncio.timeout(HANG_GUARD_S):
            await other.write(put("a", 1), Domain.MESSAGES)
        let_go.set()
        # It is done again on a new connection.
        await at_it
        assert await rows(stuck) == [("a", 1)]


async def test_a_process_that_was_forgotten_writes_on(database, other) -> None:
    await other.write(lambda c: c.exec_driver_sql("DELETE FROM write_locks WHERE name LIKE 'process:%'").close())
    await database.write(put("a", 1), Domain.UPLINK)
    await database.write(put("b", 1), Domain.UPLINK)
    assert await rows(other) == [("a", 1), ("b", 1)]


async def test_no_trace_of_a_process_is_left_when_it_stops(url, database) -> None:
    async with started(url) as other:
        await other.write(put("a", 1))
    names = await database.read(lambda c: [name for (name,) in c.exec_driver_sql("SELECT name FROM write_locks")])
    assert sorted(name for name in names if not name.startswith("process:")) == sorted(Domain)
    assert len(names) == len(Domain) + 1


# -- engines that go away -------------------------------------------------------------------------------------------


@pytest.fixture(params=[MariaDb, Postgres], ids=["mariadb", "postgres"])
async def own(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MariaDb | Postgres]:
    """An engine that the test may stop and freeze."""
    with request.param(tmp_path / "engine") as engine:
        await migrate_shared(engine.url)
        yield engine


async def _until_written(database: SharedDatabase, consumer: str) -> None:
    async with asyncio.timeout(HANG_GUARD_S):
        while True:
            with contextlib.suppress(StoreUnavailable):
                await database.write(put(consumer, 1), Domain.UPLINK)
                return
            await asyncio.sleep(0.05)


async def test_a_killed_engine_refuses_at_once_and_is_found_again(own) -> None:
    async with started(own.url) as database:
        await database.write(put("before", 1), Domain.UPLINK)
        await rows(database)
        own.kill()
        for _ in range(2):
            begun = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await database.write(put("never", 1), Domain.UPLINK)
            with pytest.raises(StoreUnavailable):
                await rows(database)
            assert time.monotonic() - begun < 5
        assert not database.is_writable
        own.restart()
        await _until_written(database, "after")
        assert await rows(database) == [("after", 1), ("before", 1)]
        assert database.is_writable


async def test_an_engine_that_was_restarted_between_two_calls_is_not_noticed(own) -> None:
    async with started(own.url) as database:
        await database.write(put("a", 1), Domain.UPLINK)
        await asyncio.gather(*[rows(database) for _ in range(4)])
        own.stop()
        own.restart()
        assert await rows(database) == [("a", 1)]
        await database.write(put("b", 1), Domain.UPLINK)
        assert database.is_writable


async def test_a_frozen_engine_is_given_up_in_time_and_is_found_again(own) -> None:
    async with started(own.url, connect_within_s=0.5, answer_within_s=1.0) as database:
        await database.write(put("before", 1), Domain.UPLINK)
        await rows(database)
        own.freeze()
        try:
            begun = time.monotonic()
            outcomes = await asyncio.gather(
                database.write(put("unknown", 1), Domain.UPLINK), rows(database), return_exceptions=True
            )
            assert [type(outcome) for outcome in outcomes] == [StoreUnavailable, StoreUnavailable]
            with pytest.raises(StoreUnavailable):
                await database.write(put("never", 1), Domain.UPLINK)
            assert time.monotonic() - begun < 6
        finally:
            own.thaw()
        await _until_written(database, "after")
        assert {"before", "after"} <= {name for name, _ in await rows(database)}


async def test_it_stops_also_while_the_engine_is_away(own) -> None:
    async with started(own.url, connect_within_s=0.5, answer_within_s=1.0) as database:
        gathered = Gathered(database)
        own.freeze()
        gathered.stage.add(1)
        begun = time.monotonic()
        await database.stop()
        assert time.monotonic() - begun < 10
        assert [type(result) for _, result in gathered.told] == [StoreUnavailable]
        own.thaw()


async def test_an_engine_that_is_not_there_is_told_without_its_password(own) -> None:
    own.stop()
    with pytest.raises(StoreUnavailable, match="is away") as raised:
        await SharedDatabase(own.url).start()
    assert "pw" not in str(raised.value)


class LosesCommits:
    """Passes connections on, and cuts one at a COMMIT: before it reaches the engine, or before its answer is back."""

    def __init__(self, url: str) -> None:
        self._target = make_url(url)
        self.url = ""
        self.loses: str | None = None
        self.cuts = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "LosesCommits":
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = self._target.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        # The database has stopped, and its ends are closed: each way ends by itself, and closes the other end.
        async with asyncio.timeout(HANG_GUARD_S):
            await asyncio.gather(*self._tasks)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        from_engine, to_engine = await asyncio.open_connection(self._target.host, self._target.port)
        ways = [asyncio.ensure_future(way) for way in (self._ask(reader, to_engine), self._answer(from_engine, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (writer, to_engine):
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    async def _ask(self, reader: asyncio.StreamReader, engine: asyncio.StreamWriter) -> None:
        while said := await reader.read(1 << 16):
            if b"COMMIT" in said and self.loses == "the question":
                self._cut()
                return
            engine.write(said)
            await engine.drain()
            if b"COMMIT" in said and self.loses == "the answer":
                self.loses = "this answer"

    async def _answer(self, engine: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while said := await engine.read(1 << 16):
            if self.loses == "this answer":
                self._cut()
                return
            writer.write(said)
            await writer.drain()

    def _cut(self) -> None:
        self.loses = None
        self.cuts += 1


@pytest.mark.parametrize("lost", ["the question", "the answer"])
async def test_a_commit_whose_outcome_is_lost_counts_once(url, lost) -> None:
    async with LosesCommits(url) as proxy, started(proxy.url) as database:
        await database.write(put("count", 0), Domain.UPLINK)
        gathered = Gathered(database)
        for turn in range(1, 4):
            proxy.loses = lost
            gathered.stage.add(turn)
            # Not idempotent at all: done twice it would count twice.
            await database.write(lambda c: c.exec_driver_sql(_ADD, ("count",)).close(), Domain.UPLINK)
            assert proxy.cuts == turn
            assert (await rows(database))[-1] == ("count", turn)
        assert gathered.told == [(1, 10), (2, 20), (3, 30)]
        assert database.is_writable


async def test_a_start_whose_commit_was_lost_can_be_tried_again(url, database) -> None:
    other = SharedDatabase(url)
    row = (other._process, 1)  # as the COMMIT left it whose answer was lost
    await database.write(lambda c: c.exec_driver_sql(shared._ADD_PROCESS, row).close())
    await other.start()
    await other.write(put("a", 1), Domain.UPLINK)
    await other.stop()
    assert await rows(database) == [("a", 1)]


# -- the schema -----------------------------------------------------------------------------------------------------


async def test_a_database_without_tables_names_the_command(engine) -> None:
    with pytest.raises(SchemaMismatch, match="longwire migrate"):
        await SharedDatabase(engine.fresh_url()).start()


@pytest.mark.parametrize(
    ("found", "said"), [("0003", "0003 and this program needs 0004: run `longwire migrate`"), ("9999", "older")]
)
async def test_a_schema_of_another_program_is_refused(url, found, said) -> None:
    async with started(url) as database:
        await database.write(
            lambda c: c.exec_driver_sql("UPDATE alembic_version SET version_num = ?", (found,)).close()
        )
    with pytest.raises(SchemaMismatch, match=said):
        await SharedDatabase(url).start()
    if found == "9999":
        with pytest.raises(SchemaMismatch, match="older"):
            await migrate_shared(url)


async def test_of_two_that_migrate_at_once_one_does_it(engine) -> None:
    url = engine.fresh_url()
    done = await asyncio.gather(migrate_shared(url), migrate_shared(url))
    assert sorted(done) == [[], ["0001", "0002", "0003", "0004"]]
    assert await migrate_shared(url) == []
    async with started(url):
        pass


async def test_migrations_and_tables_are_equal(url) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))

    engine = create_async_engine(url)
    async with engine.connect() as connection:
        found = await connection.run_sync(differences)
    await engine.dispose()
    assert found == []


@pytest.mark.parametrize("url", ["sqlite:///x.db", "mysql+pymysql://a:secret@h/d", "postgresql://a:secret@h/d"])
def test_an_engine_that_is_not_known_is_refused_with_those_that_are(url) -> None:
    with pytest.raises(UnknownEngine, match=r"mysql\+asyncmy://… or postgresql\+asyncpg://…") as raised:
        SharedDatabase(url)
    assert "secret" not in str(raised.value)
