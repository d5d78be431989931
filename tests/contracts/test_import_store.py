"""What every ImportStore does."""

import pytest
from databases import Maker, OpenDatabase, maker_of
from msgspec.structs import replace

from longwire.adapters.sql.imports import SqlImports
from longwire.errors import StoreUnavailable
from longwire.ids import new_message_id
from longwire.operations_model import Import
from longwire.ports.imports import ImportStore

NOW_MS = 1_764_000_000_000


@pytest.fixture
def maker(open_database: OpenDatabase) -> Maker[ImportStore]:
    return maker_of(open_database, SqlImports)


def job() -> Import:
    return Import(new_message_id(), "running", "csv", NOW_MS)


async def test_jobs_are_kept_as_they_stand_listed_newest_first_and_gone_on_with_oldest_first(maker) -> None:
    async with maker() as store:
        jobs = [job() for _ in range(4)]
        for one in jobs:
            await store.put(one)
        ended = replace(
            jobs[1],
            status="completed",
            ended_at_ms=NOW_MS + 5,
            lines=10,
            done=7,
            failed=2,
            errors=((3, "invalid-parameter", "what \u00fc"), (4, "unknown-field", "x")),
        )
        await store.put(ended)
        assert await store.find(ended.import_id) == ended
        assert await store.find(b"?" * 16) is None
        assert await store.page(b"", 2) == [jobs[3], jobs[2]]
        assert await store.page(jobs[2].import_id, 5) == [ended, jobs[0]]
        assert await store.running() == [jobs[0], jobs[2], jobs[3]]
    async with maker() as store:
        assert await store.find(ended.import_id) == ended
    with pytest.raises(StoreUnavailable):
        await store.put(ended)
