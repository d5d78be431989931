"""What every PresenceStore does: of two notes about a device the one with the higher version counts."""

import random
from collections.abc import AsyncIterator

import pytest
from databases import Maker, OpenDatabase, maker_of

from longwire.adapters.sql.accounts import SqlAccounts
from longwire.adapters.sql.presence import SqlPresence
from longwire.adapters.sql.trace_rows import SqlTraceRows
from longwire.errors import StoreUnavailable
from longwire.operations_model import LastSession
from longwire.ports.accounts import AccountStore, NewDevice
from longwire.ports.presence import PresenceStore

NOW_MS = 1_764_000_000_000


@pytest.fixture
def maker(open_database: OpenDatabase) -> Maker[tuple[AccountStore, PresenceStore]]:
    return maker_of(open_database, lambda database: (SqlAccounts(database), SqlPresence(database)))


@pytest.fixture
async def stores(maker: Maker[tuple[AccountStore, PresenceStore]]) -> AsyncIterator[tuple[AccountStore, PresenceStore]]:
    async with maker() as made:
        yield made


async def register(accounts: AccountStore, *names: str) -> list[int]:
    wanted = [NewDevice(name, name.encode().ljust(32, b"."), NOW_MS, None) for name in names]
    return [device.device_no for device, _ in await accounts.register(wanted, NOW_MS)]


def ended(device_no: int, version: int, code: int | None = 4005) -> LastSession:
    return LastSession(device_no, version, NOW_MS + version, "n1~0a", "native", code)


async def committed(accounts: AccountStore) -> None:
    """A write returns after what was queued before it."""
    await accounts.use_nonce("app", str(random.random()), NOW_MS)


async def test_how_a_device_was_last_seen_is_told(stores) -> None:
    accounts, store = stores
    one, two = await register(accounts, "a", "b")
    store.ended(ended(one, 7))
    store.ended(ended(two, 9, None))
    await committed(accounts)
    assert await store.last_sessions([two, 999, one, two]) == [
        ended(two, 9, None),
        None,
        ended(one, 7),
        ended(two, 9, None),
    ]
    assert await store.last_sessions([]) == []


async def test_the_higher_version_counts_in_whatever_order_and_groups_they_come(stores) -> None:
    accounts, store = stores
    numbers = await register(accounts, *(f"d-{n}" for n in range(20)))
    notes = [ended(no, version) for no in numbers for version in range(1, 12, 2)]
    random.Random(1).shuffle(notes)
    for at, note in enumerate(notes):
        store.ended(note)
        if at % 7 == 0:
            await committed(accounts)
    await committed(accounts)
    assert await store.last_sessions(numbers) == [ended(no, 11) for no in numbers]


async def test_a_device_that_is_deleted_is_forgotten_and_its_sessions_end_leaves_nothing(stores) -> None:
    accounts, store = stores
    one, two = await register(accounts, "a", "b")
    store.ended(ended(one, 1))
    await committed(accounts)
    await accounts.delete_device(one, NOW_MS)
    store.ended(ended(one, 3))
    store.ended(ended(two, 3))
    await committed(accounts)
    assert await store.last_sessions([one, two]) == [None, ended(two, 3)]


async def test_what_was_committed_is_there_after_a_restart(maker) -> None:
    async with maker() as (accounts, store):
        (one,) = await register(accounts, "a")
        store.ended(ended(one, 1))
    async with maker() as (_, store):
        assert await store.last_sessions([one]) == [ended(one, 1)]
    with pytest.raises(StoreUnavailable):
        await store.last_sessions([one])


async def test_every_connection_that_ended_is_kept_once_in_whatever_order_they_come(database) -> None:
    accounts, store, rows = SqlAccounts(database), SqlPresence(database), SqlTraceRows(database)
    (one,) = await register(accounts, "a")
    for epoch in (3, 1, 2, 3):
        store.ended(LastSession(one, epoch * 2 + 1, NOW_MS + epoch, "n1~0a", "native", 4005, NOW_MS))
    store.ended(LastSession(999, 3, NOW_MS, "n1~0a", "native", None, NOW_MS))
    await committed(accounts)
    past = await rows.past_sessions(one, 0, 10)
    assert [(session.epoch, session.began_at_ms, session.ended_at_ms) for session in past] == [
        (epoch, NOW_MS, NOW_MS + epoch) for epoch in (3, 2, 1)
    ]
    assert await rows.past_sessions(one, 3, 1) == past[1:2]
    assert await rows.past_sessions(999, 0, 10) == []
    assert [session.epoch for session in await rows.sessions_at(one, NOW_MS + 2, NOW_MS + 2, 10)] == [2, 3]
