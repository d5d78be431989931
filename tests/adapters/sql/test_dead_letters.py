"""Dead letters in the store: listed newest first, and put back at the end of the log."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from longwire.adapters.sql.retention import Retention, Sweeper
from longwire.adapters.sql.sqlite import SqliteDatabase
from longwire.adapters.sql.uplink import SqlUplinkLog
from longwire.model import UplinkRecord
from longwire.reasons import Status
from longwire.testing import ManualClock

_WEEK_MS = 7 * 86_400_000


class Shop:
    """An uplink log with one device's messages in it."""

    def __init__(self, database: SqliteDatabase) -> None:
        self.database = database
        self.clock = ManualClock()
        self.log = SqlUplinkLog(database, self.clock)

    async def send(self, number: int) -> tuple[UplinkRecord, Status]:
        """Message ``number`` of device 1."""
        record = UplinkRecord(1, "d-1", number.to_bytes(16, "big"), "order", b"%d" % number, self.clock.now_ms())
        done: asyncio.Future[Status] = asyncio.get_running_loop().create_future()
        self.log.append(record, lambda _record, status: done.set_result(status))
        return record, await done

    async def bury(self, *numbers: int) -> None:
        for number in numbers:
            record, _ = await self.send(number)
            await self.log.bury("application", record, f"handler_failed: {number}")

    async def payloads(self) -> list[bytes]:
        """What a consumer reads that begins anew."""
        return [record.payload for record in await SqlUplinkLog(self.database, self.clock).read("another", 100)]


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    database = SqliteDatabase(tmp_path)
    await database.start()
    shop = Shop(database)
    await shop.log.start()
    yield shop
    await database.stop()


async def test_letters_are_listed_newest_first_and_in_pages(shop: Shop) -> None:
    await shop.bury(1, 2, 3)
    first = await shop.log.dead_letters(0, 2)
    second = await shop.log.dead_letters(first[-1].letter_no, 2)
    assert [letter.record.payload for letter in (*first, *second)] == [b"3", b"2", b"1"]
    assert second[0] == await shop.log.dead_letter(second[0].letter_no)
    assert (second[0].error, second[0].consumer) == ("handler_failed: 1", "application")
    assert second[0].buried_at_ms == shop.clock.now_ms()


async def test_a_replayed_message_comes_again_behind_all_others_under_its_own_id(shop: Shop) -> None:
    await shop.bury(1)
    await shop.send(2)
    await shop.log.read("application", 10)
    (letter,) = await shop.log.dead_letters(0, 10)
    waiting = asyncio.ensure_future(shop.log.read("application", 10))
    replayed = await shop.log.replay(letter.letter_no)
    (record,) = await asyncio.wait_for(waiting, 5)
    assert (record.message_id, record.payload, record.sent_at_ms) == (
        letter.record.message_id,
        b"1",
        letter.record.sent_at_ms,
    )
    assert record.offset > letter.record.offset + 1
    assert replayed is not None
    assert replayed.replayed_at_ms == shop.clock.now_ms()
    assert await shop.payloads() == [b"2", b"1"]
    _, status = await shop.send(3)
    assert status is Status.OK


async def test_a_letter_is_replayed_once(shop: Shop) -> None:
    await shop.bury(1)
    (letter,) = await shop.log.dead_letters(0, 10)
    first = await shop.log.replay(letter.letter_no)
    shop.clock.advance(5)
    assert await shop.log.replay(letter.letter_no) == first
    assert await shop.payloads() == [b"1"]
    assert await shop.log.replay(letter.letter_no + 1) is None


async def test_the_device_cannot_send_the_message_again_beside_its_replay(shop: Shop) -> None:
    await shop.bury(1)
    await shop.log.replay(1)
    _, status = await shop.send(1)
    assert status is Status.DUPLICATE


async def test_a_record_that_was_swept_from_the_log_can_be_replayed(shop: Shop) -> None:
    await shop.bury(1)
    await shop.database.write(lambda c: c.exec_driver_sql("DELETE FROM uplink").close())
    await shop.log.replay(1)
    assert await shop.payloads() == [b"1"]


async def test_an_old_message_that_is_replayed_takes_no_newer_ones_with_it_when_the_log_is_swept(shop: Shop) -> None:
    await shop.bury(1)
    shop.clock.advance(8 * 86_400)
    await shop.send(2)
    await shop.send(3)
    await shop.log.replay(1)
    await Sweeper(shop.database, shop.clock, Retention(uplink_ms=_WEEK_MS)).sweep_once()
    assert await shop.payloads() == [b"2", b"3", b"1"]


async def test_offsets_go_on_rising_after_a_restart_behind_a_replay(shop: Shop) -> None:
    await shop.bury(1)
    await shop.log.replay(1)
    shop.log = SqlUplinkLog(shop.database, shop.clock)
    await shop.log.start()
    await shop.send(2)
    assert await shop.payloads() == [b"1", b"2"]
