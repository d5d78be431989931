"""What every ReceiptLog does, whatever it stands on: durable when it says so, and the same twice."""

import asyncio
import shutil

from push_stores import SEGMENT, receipts

from longwire.reasons import Status
from longwire.testing import ManualClock


async def test_receipts_are_durable_when_they_are_called_back(push_maker, tmp_path) -> None:
    """On a copy of the files as they were at that moment: as a kill would leave them."""
    clock = ManualClock()
    now, copy = tmp_path / "now", tmp_path / "copy"
    async with push_maker(now, clock) as made:
        push = await made.push([1, 2, SEGMENT])
        told = asyncio.get_running_loop().create_future()

        def keep(_receipts: object, status: Status) -> None:
            shutil.copytree(now, copy)
            told.set_result(status)

        made.receipts.append([receipts(push, [1]), receipts(push, [SEGMENT])], keep)
        assert await asyncio.wait_for(told, 20) is Status.OK
    async with push_maker(copy, clock) as made:
        assert (await made.stats(push)).acked == 2


async def test_each_call_is_told_of_its_own_receipts_in_order(pushing) -> None:
    push = await pushing.push(range(10))
    told: list[object] = []
    calls = [[receipts(push, [number])] for number in range(10)]
    for call in calls:
        pushing.receipts.append(call, lambda parts, status: told.append((parts, status)))
    await pushing.database.write(lambda _connection: None)
    assert told == [(call, Status.OK) for call in calls]
    assert (await pushing.stats(push)).acked == 10


async def test_receipts_that_the_store_does_not_take_are_given_back(pushing) -> None:
    push = await pushing.push([1])
    told: list[Status] = []
    trigger = "CREATE TRIGGER no BEFORE UPDATE ON push_segments BEGIN SELECT RAISE(ABORT, 'no'); END"
    await pushing.database.write(lambda c: c.exec_driver_sql(trigger).close())
    pushing.receipts.append([receipts(push, [1])], lambda _parts, status: told.append(status))
    await pushing.database.write(lambda c: c.exec_driver_sql("DROP TRIGGER no").close())
    assert told == [Status.NOT_DURABLE]
    await pushing.ack(push, [1])
    assert (await pushing.stats(push)).acked == 1


async def test_receipts_of_a_push_that_is_not_kept_any_more_are_dropped(pushing) -> None:
    push = await pushing.push([1])
    await pushing.database.write(lambda c: c.exec_driver_sql("DELETE FROM push_segments").close())
    await pushing.ack(push, [1])
