"""What every ReceiptLog does, whatever it stands on: durable when it says so, and the same twice.

Straight into the store, or through Kafka and a sink that merges.
"""

import asyncio
import contextlib
import shutil
import uuid
from collections.abc import AsyncIterator

import pytest
from databases import opened
from push_stores import SEGMENT, Made, pushes_on, receipts

from longwire.adapters.kafka import KafkaProducer, KafkaReceipts, KafkaSettings, ReceiptsConsumer
from longwire.adapters.sql.sqlite import SqliteDatabase
from longwire.ports.receipts import ReceiptLog
from longwire.push_model import Push, SegmentReceipts
from longwire.reasons import Status
from longwire.testing import ManualClock

HANG_GUARD_S = 30.0


@pytest.fixture(params=["store", "kafka"])
async def log(request: pytest.FixtureRequest, pushing: Made) -> AsyncIterator[ReceiptLog]:
    if request.param == "store":
        yield pushing.receipts
        return
    servers = request.getfixturevalue("kafka_engine").servers
    settings = KafkaSettings(servers, topic_prefix=uuid.uuid4().hex, partitions=3, replication=1)
    producer = KafkaProducer(settings)
    await producer.start()
    merging = asyncio.create_task(ReceiptsConsumer(settings, pushing.store.merge).run())
    yield KafkaReceipts(producer)
    merging.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await merging
    await producer.stop()


async def tell(log: ReceiptLog, *calls: list[SegmentReceipts]) -> list[tuple[list[SegmentReceipts], Status]]:
    """Appends each; what was told, in the order of the calls."""
    told: list[tuple[list[SegmentReceipts], Status]] = []
    for call in calls:
        log.append(call, lambda parts, status: told.append((parts, status)))
    async with asyncio.timeout(HANG_GUARD_S):
        while len(told) < len(calls):
            await asyncio.sleep(0.005)
    return sorted(told, key=lambda one: [id(call) for call in calls].index(id(one[0])))


async def merged(pushing: Made, push: Push, acked: int) -> None:
    """Waits until the store has so many acknowledgements of the push."""
    async with asyncio.timeout(HANG_GUARD_S):
        while (await pushing.stats(push)).acked != acked:
            await asyncio.sleep(0.02)


async def test_receipts_are_durable_when_they_are_called_back(tmp_path) -> None:
    """On a copy of the files as they were at that moment: as a kill would leave them."""
    clock = ManualClock()
    now, copy = tmp_path / "now", tmp_path / "copy"
    async with opened(SqliteDatabase(now)) as database:
        made = pushes_on(database, clock)
        push = await made.push([1, 2, SEGMENT])
        told = asyncio.get_running_loop().create_future()

        def keep(_receipts: object, status: Status) -> None:
            shutil.copytree(now, copy)
            told.set_result(status)

        made.receipts.append([receipts(push, [1]), receipts(push, [SEGMENT])], keep)
        assert await asyncio.wait_for(told, 20) is Status.OK
    async with opened(SqliteDatabase(copy)) as database:
        assert (await pushes_on(database, clock).stats(push)).acked == 2


async def test_each_call_is_told_of_its_own_receipts(log, pushing) -> None:
    push = await pushing.push(range(10))
    calls = [[receipts(push, [number])] for number in range(10)]
    assert await tell(log, *calls) == [(call, Status.OK) for call in calls]
    await merged(pushing, push, 10)


async def test_receipts_of_several_segments_go_together(log, pushing) -> None:
    push = await pushing.push([1, 2, SEGMENT])
    call = [receipts(push, [1, 2]), receipts(push, [SEGMENT])]
    assert await tell(log, call) == [(call, Status.OK)]
    await merged(pushing, push, 3)


async def test_the_same_receipts_twice_change_nothing(log, pushing) -> None:
    push = await pushing.push([1, 2])
    await tell(log, [receipts(push, [1], latency_ms=5)])
    await merged(pushing, push, 1)
    before = (await pushing.again(push)).latency_ms
    await tell(log, [receipts(push, [1], latency_ms=5_000)], [receipts(push, [2], latency_ms=5)])
    await merged(pushing, push, 2)
    assert (await pushing.again(push)).latency_ms == before


async def test_receipts_that_the_store_does_not_take_are_given_back(pushing) -> None:
    push = await pushing.push([1])
    told: list[Status] = []
    damage = "UPDATE push_segments SET written = ?"
    await pushing.database.write(lambda c: c.exec_driver_sql(damage, (b"no bitmap",)).close())
    pushing.receipts.append([receipts(push, [1])], lambda _parts, status: told.append(status))
    await pushing.database.write(lambda c: c.exec_driver_sql(damage, (None,)).close())
    assert told == [Status.NOT_DURABLE]
    await pushing.ack(push, [1])
    assert (await pushing.stats(push)).acked == 1


async def test_receipts_of_a_push_that_is_not_kept_any_more_are_dropped(log, pushing) -> None:
    gone, push = await pushing.push([1]), await pushing.push([1])
    delete = f"DELETE FROM push_segments WHERE push_no = {gone.push_no}"
    await pushing.database.write(lambda c: c.exec_driver_sql(delete).close())
    await tell(log, [receipts(gone, [1])], [receipts(push, [1])])
    await merged(pushing, push, 1)
