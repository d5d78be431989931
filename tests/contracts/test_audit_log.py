"""What every AuditLog does, whatever engine it stands on."""

import asyncio

import pytest
from databases import Maker, OpenDatabase, maker_of

from longwire.adapters.sql.audit import SqlAudit
from longwire.errors import StoreUnavailable
from longwire.operations_model import AuditEntry
from longwire.ports.audit import AuditLog

HANG_GUARD_S = 20.0


@pytest.fixture
def maker(open_database: OpenDatabase) -> Maker[AuditLog]:
    return maker_of(open_database, SqlAudit)


def entry(n: int) -> AuditEntry:
    return AuditEntry(1_764_000_000_000 + n, "key_1", "POST /v1/pushes", f"psh_{n}", 202, f"req_{n}")


async def appended(log: AuditLog, count: int) -> list[AuditEntry]:
    for n in range(count):
        log.append(entry(n))
    async with asyncio.timeout(HANG_GUARD_S):
        while len(found := await log.entries(0, count + 1)) < count:
            await asyncio.sleep(0.001)
    return list(found)


async def test_entries_come_newest_first_as_they_were_appended(maker) -> None:
    async with maker() as log:
        found = await appended(log, 300)
    assert [one.target for one in found] == [f"psh_{n}" for n in reversed(range(300))]
    assert [one.audit_no for one in found] == sorted({one.audit_no for one in found}, reverse=True)
    async with maker() as log:
        assert list(await log.entries(0, 1_000)) == found


async def test_a_page_goes_on_below_a_number(maker) -> None:
    async with maker() as log:
        found = await appended(log, 7)
        first = list(await log.entries(0, 3))
        second = list(await log.entries(first[-1].audit_no, 3))
        third = list(await log.entries(second[-1].audit_no, 3))
    assert first + second + third == found


async def test_a_log_that_is_stopped_says_so(maker) -> None:
    async with maker() as log:
        pass
    with pytest.raises(StoreUnavailable):
        await log.entries(0, 1)


async def test_entries_are_found_by_caller_by_the_action_s_beginning_and_from_a_time_on(maker) -> None:
    async with maker() as log:
        for n, (caller, action) in enumerate(
            [("key_1", "POST /v1/pushes"), ("person:anna", "POST /v1/pushes/{push_id}/cancel"), ("key_1", "PUT /v1/x")]
        ):
            log.append(AuditEntry(1_000 + n, caller, action, str(n), 200, ""))
        async with asyncio.timeout(HANG_GUARD_S):
            while len(await log.entries(0, 4)) < 3:
                await asyncio.sleep(0.001)

        async def targets(**which) -> str:
            return "".join(one.target for one in await log.entries(0, 10, **which))

        assert await targets(caller="key_1") == "20"
        assert await targets(action="POST /v1/pushes") == "10"
        assert await targets(since_ms=1_001) == "21"
        assert await targets(caller="person:anna", action="POST", since_ms=1) == "1"
        assert await targets(caller="key_1", action="POST", since_ms=1_001) == ""
