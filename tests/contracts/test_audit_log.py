"""What every AuditLog does, whatever engine it stands on. An adapter joins by a maker in ``MAKERS``."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from longwire.adapters.sql.audit import SqlAudit
from longwire.adapters.sql.database import SqliteDatabase
from longwire.errors import StoreUnavailable
from longwire.operations_model import AuditEntry
from longwire.ports.audit import AuditLog

HANG_GUARD_S = 20.0


@contextlib.asynccontextmanager
async def on_sqlite(folder: Path) -> AsyncIterator[AuditLog]:
    database = SqliteDatabase(folder)
    await database.start()
    try:
        yield SqlAudit(database)
    finally:
        await database.stop()


Maker = Callable[[Path], AbstractAsyncContextManager[AuditLog]]
MAKERS: dict[str, Maker] = {"sqlite": on_sqlite}


@pytest.fixture(params=sorted(MAKERS))
def maker(request: pytest.FixtureRequest) -> Maker:
    return MAKERS[request.param]


def entry(n: int) -> AuditEntry:
    return AuditEntry(1_764_000_000_000 + n, "key_1", "POST /v1/pushes", f"psh_{n}", 202, f"req_{n}")


async def appended(log: AuditLog, count: int) -> list[AuditEntry]:
    for n in range(count):
        log.append(entry(n))
    async with asyncio.timeout(HANG_GUARD_S):
        while len(found := await log.entries(0, count + 1)) < count:
            await asyncio.sleep(0.001)
    return list(found)


async def test_entries_come_newest_first_as_they_were_appended(maker, tmp_path) -> None:
    async with maker(tmp_path) as log:
        found = await appended(log, 300)
    assert [one.target for one in found] == [f"psh_{n}" for n in reversed(range(300))]
    assert [one.audit_no for one in found] == sorted({one.audit_no for one in found}, reverse=True)
    async with maker(tmp_path) as log:
        assert list(await log.entries(0, 1_000)) == found


async def test_a_page_goes_on_below_a_number(maker, tmp_path) -> None:
    async with maker(tmp_path) as log:
        found = await appended(log, 7)
        first = list(await log.entries(0, 3))
        second = list(await log.entries(first[-1].audit_no, 3))
        third = list(await log.entries(second[-1].audit_no, 3))
    assert first + second + third == found


async def test_a_log_that_is_stopped_says_so(maker, tmp_path) -> None:
    async with maker(tmp_path) as log:
        pass
    with pytest.raises(StoreUnavailable):
        await log.entries(0, 1)
