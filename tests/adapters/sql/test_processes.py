"""Stores of several processes on one shared database: what one of them took, the others know."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest

from longwire.adapters.sql.accounts import SqlAccounts
from longwire.adapters.sql.audiences import SqlAudiences
from longwire.adapters.sql.idempotency import SqlIdempotency
from longwire.adapters.sql.messages import SqlMessageStore
from longwire.adapters.sql.shared import SharedDatabase, migrate_shared
from longwire.adapters.sql.uplink import SqlUplinkLog
from longwire.ids import new_message_id
from longwire.model import Committed, Envelope, InboxQuery, UplinkRecord
from longwire.ports.accounts import NewDevice
from longwire.push_model import KeptAnswer, SetChange, SetKind
from longwire.reasons import Status
from longwire.testing import ManualClock
from longwire.testing.engines import MariaDb, Postgres

HANG_GUARD_S = 30.0


@pytest.fixture(params=["mariadb", "postgres"])
async def databases(request: pytest.FixtureRequest) -> AsyncIterator[list[SharedDatabase]]:
    """Three processes' handles of one database."""
    engine: MariaDb | Postgres = request.getfixturevalue(f"{request.param}_engine")
    url = engine.fresh_url()
    await migrate_shared(url)
    made = [SharedDatabase(url) for _ in range(3)]
    for database in made:
        await database.start()
    yield made
    for database in made:
        await database.stop()


def device(device_id: str, token: str, **more: object) -> NewDevice:
    return NewDevice(device_id, hashlib.sha256(token.encode()).digest(), 1 << 50, None, **more)  # type: ignore[arg-type]


async def test_a_device_that_registers_at_several_apis_at_once_is_one_device(databases) -> None:
    stores = [SqlAccounts(database) for database in databases]
    ids = [f"d-{n}" for n in range(20)]
    made = await asyncio.gather(
        *[
            store.register([device(one, f"{one}-{at}", tags=(f"t-{at}",))], 1)
            for one in ids
            for at, store in enumerate(stores)
        ]
    )
    numbers = {found.device_id: found.device_no for ((found, _),) in made}
    assert sum(is_new for ((_, is_new),) in made) == len(ids)
    assert sorted(numbers.values()) == list(range(1, len(ids) + 1))
    assert all(numbers[found.device_id] == found.device_no for ((found, _),) in made)
    sets = SqlAudiences(databases[0])
    assert sorted(await sets.everyone()) == sorted(numbers.values())
    # Nobody's change of a bitmap overwrote another's.
    for members in await sets.members(SetKind.TAG, ["t-0", "t-1", "t-2"]):
        assert sorted(members) == sorted(numbers.values())


async def test_tags_that_several_processes_change_at_once_all_stand(databases) -> None:
    stores = [SqlAudiences(database) for database in databases]
    await SqlAccounts(databases[0]).register([device(f"d-{n}", f"t-{n}") for n in range(1, 31)], 1)
    changes = [SetChange(n, SetKind.TAG, add=("x", f"y-{n % 3}")) for n in range(1, 31)]
    await asyncio.gather(*[stores[n % 3].change([change], 1) for n, change in enumerate(changes)])
    (members,) = await stores[0].members(SetKind.TAG, ["x"])
    assert list(members) == list(range(1, 31))


async def test_a_message_that_is_sent_again_at_another_node_is_kept_once_and_places_rise(databases) -> None:
    clock = ManualClock()
    stores = [SqlMessageStore(database, clock, 1_000) for database in databases]
    for store in stores:
        await store.start()
    told: list[Committed] = []
    now = clock.now_ms()
    ids = [new_message_id() for _ in range(50)]
    for message_id in ids:
        for store in stores:
            store.commit(
                Envelope(9, "device:s", message_id, "", "k", b"x", "", now, now + 60_000, (1,)),
                lambda _envelope, outcome: told.append(outcome),
            )
    async with asyncio.timeout(HANG_GUARD_S):
        while len(told) < 150:
            await asyncio.sleep(0.001)
    kept = [outcome.seq for outcome in told if outcome.status == Status.OK]
    assert len(kept) == len(set(kept)) == 50
    assert sum(outcome.status == Status.DUPLICATE for outcome in told) == 100
    for store in stores:
        # Also where only a repeat came through: its hint stands all the same.
        assert await store.who_may_wait([1]) == {1}
        (found,) = await store.waiting([InboxQuery(1, 0, 100)], now)
        assert [message.seq for message in found] == sorted(kept)
        assert await store.oldest_waiting([1, 2], now) == {1: min(kept)}


async def test_records_that_several_nodes_append_are_all_read_in_order_by_one_that_looks_again(databases) -> None:
    clock = ManualClock()
    logs = [SqlUplinkLog(database, clock, poll_s=0.01) for database in databases]
    for log in logs:
        await log.start()
    reading = asyncio.ensure_future(logs[2].read("sink", 10))
    for n in range(60):
        logs[n % 2].append(
            UplinkRecord(n % 2, "d", new_message_id(), "k", b"%d" % n, clock.now_ms()), lambda _record, _status: None
        )
    seen: list[UplinkRecord] = []
    async with asyncio.timeout(HANG_GUARD_S):
        seen += await reading
        while len(seen) < 60:
            seen += await logs[2].read("sink", 10)
    for device_no in (0, 1):
        assert [int(record.payload) for record in seen if record.device_no == device_no] == list(
            range(device_no, 60, 2)
        )
    assert [record.offset for record in seen] == sorted({record.offset for record in seen})


async def test_a_key_and_a_nonce_are_taken_by_one_of_several(databases) -> None:
    keys = [SqlIdempotency(database) for database in databases]
    answers = [KeptAnswer("c", "key", bytes(32), 200 + at, b"", 1_000) for at in range(3)]
    kept = await asyncio.gather(*[store.keep(answer) for store, answer in zip(keys, answers, strict=True)])
    assert sorted(answer is None for answer in kept) == [False, False, True]
    (winner,) = {answer.status for answer in kept if answer is not None}
    assert kept[winner - 200] is None
    used = await asyncio.gather(*[SqlAccounts(database).use_nonce("app", "n", 1) for database in databases])
    assert sorted(used) == [False, False, True]
