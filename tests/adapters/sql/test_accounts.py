"""Accounts on SQLite, where it is SQLite that matters: inboxes, constraints, batches as blobs."""

import hashlib

import pytest
from sqlalchemy import insert, select

from longwire.adapters.sql import token_check
from longwire.adapters.sql.accounts import SqlAccounts
from longwire.adapters.sql.tables import inbox, receipts, tokens
from longwire.errors import StoreUnavailable
from longwire.model import Outcome
from longwire.ports.accounts import App, NewDevice


@pytest.fixture
def store(database) -> SqlAccounts:
    return SqlAccounts(database)


def hash_of(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


async def registered(store, *device_ids, refresh=None):
    made = await store.register([NewDevice(one, hash_of(one), 10, refresh) for one in device_ids], 1)
    return [device for device, _ in made]


async def waits(database, device_no, *seqs) -> None:
    rows = [{"device_no": device_no, "seq": seq, "expires_at_ms": 5} for seq in seqs]
    await database.write(lambda connection: connection.execute(insert(inbox), rows).close())


async def test_ids_with_every_allowed_character_come_back_from_json_whole(store) -> None:
    device_id = "A-Za-z0-9._:@-" * 4
    await registered(store, device_id)
    assert (await store.check_tokens([hash_of(device_id)], 1))[0].device_id == device_id


@pytest.mark.parametrize("value", [b"", b"x" * 31, b"x" * 33])
async def test_what_is_no_hash_is_a_mistake_of_the_caller(database, value) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        await database.read(lambda connection: token_check.check_tokens(connection, [value]))


async def test_hashes_with_zero_bytes_are_hashes_as_any_other(database, store) -> None:
    (device,) = await registered(store, "d-1")
    for value in (b"\0" * 32, b"\0" * 31 + b"\1", b"\xff" * 32):
        await store.add_token(device.device_no, value, 10)
    checked = await store.check_tokens([b"\xff" * 32, b"\0" * 31 + b"\1", b"\0" * 32], 1)
    assert all(found is not None for found in checked)


async def test_what_waited_for_a_deleted_device_ends_withdrawn(database, store) -> None:
    one, two = await registered(store, "d-1", "d-2")
    await waits(database, one.device_no, 7, 8)
    await waits(database, two.device_no, 7)
    already = {"seq": 8, "device_no": one.device_no, "outcome": 1, "at_ms": 2, "node_id": "n"}
    await database.write(lambda connection: connection.execute(insert(receipts), already).close())
    await store.delete_device(one.device_no, 99)
    left = await database.read(lambda connection: connection.execute(select(inbox)).fetchall())
    assert [(row.device_no, row.seq) for row in left] == [(two.device_no, 7)]
    ended = await database.read(lambda connection: connection.execute(select(receipts)).fetchall())
    assert sorted((row.seq, row.outcome, row.at_ms) for row in ended) == [
        (7, Outcome.WITHDRAWN, 99),
        (8, Outcome.ACKED, 2),
    ]


async def test_every_token_of_a_deleted_device_goes(database, store) -> None:
    (device,) = await registered(store, "d-1")
    for n in range(5):
        await store.add_token(device.device_no, hash_of(str(n)), 10)
    await store.delete_device(device.device_no, 1)
    assert await database.read(lambda connection: connection.execute(select(tokens)).fetchall()) == []


async def test_a_number_is_not_given_again_after_a_restart(open_database) -> None:
    numbers = []
    for n in range(3):
        async with open_database() as database:
            store = SqlAccounts(database)
            (device,) = await registered(store, f"d-{n}")
            await store.delete_device(device.device_no, 1)
            numbers.append(device.device_no)
    assert numbers == sorted(set(numbers))


async def test_numbers_stay_dense_while_known_devices_come_back(store) -> None:
    (first,) = await registered(store, "d-1")
    for n in range(10):
        await store.register([NewDevice("d-1", hash_of(f"again-{n}"), 10, None)], 1)
    (second,) = await registered(store, "d-2")
    assert second.device_no == first.device_no + 1


async def test_what_a_constraint_refuses_is_told_as_not_kept(store) -> None:
    await registered(store, "d-1", refresh=hash_of("r"))
    with pytest.raises(StoreUnavailable, match="refused"):
        await registered(store, "d-2", refresh=hash_of("r"))
    assert await store.find_devices(["d-2"]) == [None]
    await store.add_app(App("a", "s", "m"))
    with pytest.raises(StoreUnavailable, match="refused"):
        await store.add_app(App("a", "s", "m"))
