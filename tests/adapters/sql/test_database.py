"""The database: writes in groups, one fault alone, engines that fail and come back, the folder, the log's size."""

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from longwire.adapters.sql import database as groups
from longwire.adapters.sql import sqlite as module
from longwire.adapters.sql.sqlite import DataFolderInUse, SqliteDatabase
from longwire.errors import StoreUnavailable

HANG_GUARD_S = 20.0


class Gathered:
    """A stage that writes numbers into a table and notes what it is told of each."""

    def __init__(self, database: SqliteDatabase, poison: object = None) -> None:
        self.poison = poison
        self.groups: list[list[int]] = []
        self.told: list[tuple[int, object]] = []
        self.committed = threading.Event()
        self.breaks_on: int | None = None
        self.stage = database.stage(self._run, self._finish, self._fail)

    def _run(self, connection: Connection, items: list[int]) -> list[int]:
        for item in items:
            if item == self.poison:
                raise ValueError(f"{item} is poison")
            connection.exec_driver_sql("INSERT INTO numbers VALUES (?)", (item,))
        self.groups.append(items)
        return [item * 10 for item in items]

    def _finish(self, item: int, result: int) -> None:
        if item == self.breaks_on:
            raise RuntimeError("a bug in a callback")
        self.told.append((item, result))

    def _fail(self, item: int, error: Exception) -> None:
        self.told.append((item, error))


@pytest.fixture
async def database(tmp_path: Path):
    database = SqliteDatabase(tmp_path)
    await database.start()
    await database.write(lambda c: c.exec_driver_sql("CREATE TABLE numbers (n INTEGER PRIMARY KEY)").close())
    yield database
    await database.stop()


async def numbers(database: SqliteDatabase) -> list[int]:
    rows = await database.read(lambda c: c.exec_driver_sql("SELECT n FROM numbers ORDER BY n").fetchall())
    return [n for (n,) in rows]


async def told(gathered: Gathered, count: int) -> None:
    async with asyncio.timeout(HANG_GUARD_S):
        while len(gathered.told) < count:
            await asyncio.sleep(0.001)


async def test_what_one_turn_gathers_is_one_group(database) -> None:
    gathered = Gathered(database)
    for n in range(100):
        gathered.stage.add(n)
    await told(gathered, 100)
    assert gathered.groups == [list(range(100))]
    assert gathered.told == [(n, n * 10) for n in range(100)]
    assert await numbers(database) == list(range(100))


async def test_items_are_told_in_order_across_groups_also_when_a_group_takes_many_turns(database) -> None:
    gathered = Gathered(database)
    # The loop stands still while the writer commits two groups: both ends wait for it at once.
    for start in (0, 1_000):
        for n in range(start, start + 1_000):
            gathered.stage.add(n)
        database._hand_over()
        done = threading.Event()
        database._handed.append((database.stage(lambda c, items: items, lambda i, r: None, lambda i, e: None), []))
        while len(gathered.groups) < start // 1_000 + 1:
            done.wait(0.001)
        done.wait(0.05)
    await told(gathered, 2_000)
    assert [item for item, _ in gathered.told] == list(range(2_000))


async def test_a_group_is_bounded(database, monkeypatch) -> None:
    monkeypatch.setattr(groups, "_GROUP", 10)
    gathered = Gathered(database)
    for n in range(35):
        gathered.stage.add(n)
    await told(gathered, 35)
    assert [len(group) for group in gathered.groups] == [10, 10, 10, 5]


@pytest.mark.parametrize("poison", [0, 17, 36])
async def test_one_item_at_fault_fails_alone(database, poison) -> None:
    gathered = Gathered(database, poison)
    for n in range(37):
        gathered.stage.add(n)
    await told(gathered, 37)
    assert [item for item, _ in gathered.told] == list(range(37))
    failed = [(item, str(result)) for item, result in gathered.told if isinstance(result, Exception)]
    assert failed == [(poison, f"{poison} is poison")]
    assert await numbers(database) == [n for n in range(37) if n != poison]
    assert database.is_writable


async def test_a_broken_constraint_is_the_items_own_fault(database) -> None:
    gathered = Gathered(database)
    for n in (1, 2, 1, 3):
        gathered.stage.add(n)
    await told(gathered, 4)
    assert [isinstance(result, Exception) for _, result in gathered.told] == [False, False, True, False]
    assert await numbers(database) == [1, 2, 3]


async def test_a_bug_in_a_callback_swallows_nobody_elses(database, caplog) -> None:
    gathered = Gathered(database)
    gathered.breaks_on = 5
    for n in range(300):
        gathered.stage.add(n)
    await told(gathered, 299)
    assert [item for item, _ in gathered.told] == [n for n in range(300) if n != 5]
    assert "a bug in a callback" in caplog.text
    await database.write(lambda c: None)


async def test_writes_of_different_callers_share_a_transaction_and_fail_apart(database) -> None:
    def bad(connection: Connection) -> None:
        connection.exec_driver_sql("INSERT INTO numbers VALUES (99)").close()
        raise KeyError("bad")

    outcomes = await asyncio.gather(
        database.write(lambda c: c.exec_driver_sql("INSERT INTO numbers VALUES (1)").rowcount),
        database.write(bad),
        database.write(lambda c: c.exec_driver_sql("INSERT INTO numbers VALUES (2)").rowcount),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [int, KeyError, int]
    assert await numbers(database) == [1, 2]


def _full(connection: Connection) -> None:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorname = "SQLITE_FULL"
    raise OperationalError("INSERT", None, error)


async def test_an_engine_that_fails_fails_the_whole_group_and_recovers(database, caplog) -> None:
    gathered = Gathered(database)
    gathered.stage.add(1)  # in the turn in which the other is queued too: one group
    with pytest.raises(StoreUnavailable, match="full"):
        await database.write(_full)
    await told(gathered, 1)
    assert isinstance(gathered.told[0][1], StoreUnavailable)
    assert not database.is_writable
    assert await numbers(database) == []
    gathered.stage.add(1)
    await told(gathered, 2)
    assert gathered.told[1] == (1, 10)
    assert database.is_writable
    assert "takes writes again" in caplog.text


async def test_a_disk_without_room_refuses_writes_and_takes_them_when_there_is_room(database, tmp_path) -> None:
    pages = await database.read(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar_one())

    def room(connection: Connection, pages: int) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}").close()

    await database.write(lambda c: room(c, pages + 4))
    with pytest.raises(StoreUnavailable, match="full"):
        await database.write(
            lambda c: c.exec_driver_sql("INSERT INTO uplink_cursors VALUES (?, 1)", ("x" * 200_000,)).close()
        )
    assert not database.is_writable
    assert await numbers(database) == []
    await database.write(lambda c: room(c, 1 << 30))
    await database.write(
        lambda c: c.exec_driver_sql("INSERT INTO uplink_cursors VALUES (?, 1)", ("x" * 200_000,)).close()
    )
    assert database.is_writable


async def test_when_a_write_returns_what_was_queued_before_it_is_done_and_told(database) -> None:
    gathered = Gathered(database)
    for n in range(300):
        gathered.stage.add(n)
    seen = await database.write(lambda c: c.exec_driver_sql("SELECT COUNT(*) FROM numbers").scalar())
    assert seen == 300
    assert len(gathered.told) == 300


async def test_an_exception_of_another_kind_does_not_kill_the_writer(database, monkeypatch) -> None:
    monkeypatch.setattr(module, "run_stage", lambda *_: 1 / 0)
    with pytest.raises(StoreUnavailable):
        await database.write(lambda c: None)
    monkeypatch.undo()
    await database.write(lambda c: None)


async def test_a_second_process_does_not_get_the_folder(database, tmp_path) -> None:
    for _ in range(2):
        with pytest.raises(DataFolderInUse, match="in use"):
            await SqliteDatabase(tmp_path).start()
    await database.write(lambda c: None)


async def test_the_folder_is_free_again_after_the_stop(tmp_path) -> None:
    for _ in range(3):
        database = SqliteDatabase(tmp_path)
        await database.start()
        await database.read(lambda c: c.exec_driver_sql("SELECT 1").scalar())
        await database.stop()


async def test_a_folder_that_cannot_be_made_is_told(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="data folder"):
        await SqliteDatabase(tmp_path / "file" / "data").start()


async def test_a_file_that_is_no_database_is_told_and_the_folder_is_left_free(tmp_path) -> None:
    (tmp_path / module.FILE_NAME).write_bytes(b"not a database, whatever its name says" * 100)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="not a database"):
            await SqliteDatabase(tmp_path).start()


async def test_what_was_queued_is_committed_by_the_stop_and_told(tmp_path) -> None:
    database = SqliteDatabase(tmp_path)
    await database.start()
    await database.write(lambda c: c.exec_driver_sql("CREATE TABLE numbers (n INTEGER PRIMARY KEY)").close())
    gathered = Gathered(database)
    for n in range(5_000):
        gathered.stage.add(n)
    await database.stop()
    assert [item for item, _ in gathered.told] == list(range(5_000))
    with sqlite3.connect(tmp_path / module.FILE_NAME) as connection:
        assert connection.execute("SELECT COUNT(*) FROM numbers").fetchone() == (5_000,)
    connection.close()


async def test_only_the_owner_may_read_the_database(database, tmp_path) -> None:
    for file in tmp_path.glob(module.FILE_NAME + "*"):
        assert file.stat().st_mode & 0o077 == 0, file


async def test_a_commit_is_fully_synchronised(database) -> None:
    def pragmas(connection: Connection) -> tuple[object, object]:
        return (
            connection.exec_driver_sql("PRAGMA journal_mode").scalar(),
            connection.exec_driver_sql("PRAGMA synchronous").scalar(),
        )

    assert await database.read(pragmas) == ("wal", 2)
    seen: list[tuple[object, object]] = []
    gathered = database.stage(
        lambda c, items: [seen.append(pragmas(c)) for _ in items], lambda i, r: None, lambda i, e: None
    )
    gathered.add(1)
    await database.write(lambda c: None)
    assert seen == [("wal", 2)]


async def test_the_write_ahead_log_stays_bounded_under_constant_writes(database, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "_CHECKPOINT_BYTES", 256 << 10)
    monkeypatch.setattr(module, "_WAL_LIMIT_BYTES", 1 << 20)
    wal = tmp_path / (module.FILE_NAME + "-wal")
    largest = 0
    for n in range(400):
        await database.write(
            lambda c, n=n: c.exec_driver_sql(
                "INSERT INTO uplink_cursors VALUES (?, 1) ON CONFLICT DO UPDATE SET offset = 2",
                (f"{n}-" + "x" * 20_000,),
            ).close()
        )
        await database.read(lambda c: c.exec_driver_sql("SELECT 1").scalar())
        largest = max(largest, wal.stat().st_size)
    assert largest < 2 << 20


async def test_a_reader_that_takes_long_neither_stops_nor_unbounds_the_writer(database, tmp_path) -> None:
    go_on = threading.Event()

    def linger(connection: Connection) -> int:
        rows = connection.exec_driver_sql("SELECT 1 UNION SELECT 2")
        go_on.wait(HANG_GUARD_S)
        return len(rows.fetchall())

    reading = asyncio.ensure_future(database.read(linger))
    for n in range(50):
        await database.write(lambda c, n=n: c.exec_driver_sql("INSERT INTO numbers VALUES (?)", (n,)).close())
    go_on.set()
    assert await reading == 2
