"""Group commit: what is told of a commit comes in the order of the commits, and nobody else reads the files."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from longwire.adapters.sql.sqlite import SqliteDatabase
from longwire.testing import settle


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    database = SqliteDatabase(tmp_path)
    await database.start()
    yield database
    await database.stop()


async def test_a_group_that_commits_while_another_is_called_back_waits_its_turn(database: SqliteDatabase) -> None:
    """Else a receiver is offered a later message first, and takes the earlier one for delivered."""
    told: list[int] = []

    def tell(item: int, _result: int) -> None:
        told.append(item)

    numbers = list(range(1_000))
    database._take_finished([(tell, numbers[:600], numbers[:600])])
    database._take_finished([(tell, numbers[600:], numbers[600:])])
    await settle()
    assert told == numbers


async def test_no_file_of_the_store_can_be_read_by_others(database: SqliteDatabase, tmp_path: Path) -> None:
    await database.write(lambda connection: connection.exec_driver_sql("CREATE TABLE t (x)").close())
    assert modes_in(tmp_path) == {"longwire.db": 0o600, "longwire.db-wal": 0o600, "longwire.db-shm": 0o600}


def modes_in(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.glob("longwire.db*")}
