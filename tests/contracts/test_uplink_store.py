"""The rows that a sink keeps of another log: what is new, what comes again, and what was sent again."""

from longwire.adapters.sql.uplink import SqlUplinkLog
from longwire.adapters.sql.uplink_store import Arrived, SqlUplinkStore
from longwire.ids import new_message_id
from longwire.model import UplinkRecord
from longwire.testing import ManualClock


def arrived(position: int, device_no: int = 1, message_id: bytes | None = None, *, is_replay: bool = False) -> Arrived:
    message_id = message_id or new_message_id()
    record = UplinkRecord(device_no, f"d-{device_no}", message_id, "kind", b"%d\0\xff" % position, 1_764_000_000_000)
    return Arrived(record, position, is_replay)


async def test_new_records_are_handed_on_and_kept_in_order(database) -> None:
    came = [arrived(n, 1 + n % 3) for n in range(200)]
    assert await SqlUplinkStore(database).store(came) == [True] * 200
    log = SqlUplinkLog(database, ManualClock())
    await log.start()
    records, _ = await log.records(0, None, None, 0, 500)
    assert [one.payload for one in records] == [one.record.payload for one in reversed(came)]


async def test_the_same_position_comes_again_and_another_one_is_a_repeat(database) -> None:
    store = SqlUplinkStore(database)
    first, other = arrived(5), arrived(6)
    again = arrived(1 << 48 | 7, 1, first.record.message_id)
    assert await store.store([first]) == [True]
    assert await store.store([first, other, again]) == [True, True, False]
    assert await store.store([again]) == [False]
    assert await store.store([first]) == [True]


async def test_of_two_in_one_call_the_first_is_handed_on(database) -> None:
    first = arrived(5)
    assert await SqlUplinkStore(database).store(
        [first, arrived(6, 1, first.record.message_id), arrived(7, 2, first.record.message_id)]
    ) == [True, False, True]


async def test_more_repeats_than_one_statement_seeks_are_all_known(database) -> None:
    store = SqlUplinkStore(database)
    came = [arrived(n) for n in range(150)]
    await store.store(came)
    again = [arrived(1_000 + n, 1, one.record.message_id) for n, one in enumerate(came)]
    assert await store.store(again) == [False] * 150


async def test_a_replay_is_handed_on_and_takes_the_rows_place(database) -> None:
    store = SqlUplinkStore(database)
    first = arrived(5)
    replay = arrived(9, 1, first.record.message_id, is_replay=True)
    await store.store([first, arrived(6)])
    assert await store.store([replay]) == [True]
    assert await store.store([replay]) == [True]  # the sink died before its handler ran
    assert await store.store([first]) == [False]
    log = SqlUplinkLog(database, ManualClock())
    await log.start()
    records, _ = await log.records(0, None, None, 0, 10)
    assert [one.payload[:1] for one in records] == [b"9", b"6"]


async def test_a_records_row_is_found_by_device_and_message(database) -> None:
    store = SqlUplinkStore(database)
    first = arrived(5)
    await store.store([first])
    assert await store.offset_of(first.record) == 1
    assert await store.offset_of(arrived(1).record) == 0
