"""The outbox: what is kept, what webhooks are shown of it, and how it is swept."""

import asyncio

import pytest
from databases import OpenDatabase

from longwire.adapters.sql import events as module
from longwire.adapters.sql.database import Database
from longwire.adapters.sql.domains import Domain
from longwire.adapters.sql.events import SqlEvents, sweep_events
from longwire.adapters.sql.messages import SqlMessageStore
from longwire.adapters.sql.webhooks import SqlWebhooks
from longwire.ids import new_message_id
from longwire.model import APPLICATION_NO, Envelope, Receipt
from longwire.operations_model import Event, Webhook
from longwire.testing import ManualClock

GIB = 1 << 30


class Outbox:
    """A store with an outbox, and webhooks that nobody serves."""

    def __init__(self, database: Database) -> None:
        self.clock = ManualClock()
        self.database = database
        self.events = SqlEvents(self.database)
        self.webhooks = SqlWebhooks(self.database, self.events)
        self.messages = SqlMessageStore(self.database, self.clock, 2, self.events)

    async def add(self, *kinds: str) -> int:
        webhook = Webhook(0, "https://a.example/", "secret", kinds, True, self.clock.now_ms())
        return (await self.webhooks.add(webhook)).webhook_no

    async def note(self, *events: Event) -> None:
        await self.database.write(lambda connection: self.events.note(connection, events), Domain.EVENTS)

    async def sweep(self, *, max_age_ms: int = 1_000, max_bytes: int = GIB, limit: int = 100) -> int:
        now_ms = self.clock.now_ms()
        return await self.database.write(lambda c: sweep_events(c, now_ms, max_age_ms, max_bytes, limit))

    async def commit(self, sender_no: int, receiver: int) -> bytes:
        message_id, now_ms = new_message_id(), self.clock.now_ms()
        envelope = Envelope(sender_no, "", message_id, "", "k", b"", "", now_ms, now_ms + 60_000, (receiver,))
        done = asyncio.get_running_loop().create_future()
        self.messages.commit(envelope, lambda _, outcome: done.set_result(outcome))
        await done
        return message_id


@pytest.fixture
async def outbox(database: Database) -> Outbox:
    outbox = Outbox(database)
    await outbox.messages.start()
    await outbox.webhooks.start()
    return outbox


def event(kind: str = "push.acked", at_ms: int = 0) -> Event:
    return Event(kind, at_ms, 0, b"{}")


async def test_readers_are_woken_by_the_commit_of_what_they_wait_for(outbox: Outbox) -> None:
    number = await outbox.add("push.*", "presence.*")
    waiting = asyncio.create_task(outbox.events.read(number, 0, 10))
    await asyncio.sleep(0)
    await outbox.note(event())
    async with asyncio.timeout(20):
        (first,) = await waiting
        waiting = asyncio.create_task(outbox.events.read(number, first.event_no, 10))
        outbox.events.append(event("presence.online"))
        (second,) = await waiting
    assert (first.kind, second.kind) == ("push.acked", "presence.online")


async def test_a_webhook_that_wants_little_does_not_hold_up_the_sweeper(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SPAN", 50)
    monkeypatch.setattr(module, "_SKIP_EVERY", 100)
    busy, quiet = await outbox.add("push.acked"), await outbox.add("push.completed")
    await outbox.note(*[event() for _ in range(500)])
    waiting = asyncio.create_task(outbox.events.read(quiet, 0, 10))
    await outbox.events.flush(busy, 500, 1)
    async with asyncio.timeout(20):
        while (await outbox.webhooks.all_webhooks())[1].cursor < 400:
            await asyncio.sleep(0.001)
        await outbox.note(event("push.completed"))
        (found,) = await waiting
    assert found.kind == "push.completed"
    assert await outbox.sweep(limit=1_000) >= 400


async def test_events_stay_until_every_webhook_is_past_them(outbox: Outbox) -> None:
    first, second = await outbox.add("push.*"), await outbox.add("push.*")
    await outbox.note(*[event(at_ms=outbox.clock.now_ms()) for _ in range(10)])
    await outbox.events.flush(first, 10, 1)
    assert await outbox.sweep() == 0
    await outbox.events.flush(second, 4, 1)
    assert (await outbox.sweep(), await outbox.events.waiting(second)) == (4, 6)
    outbox.clock.advance(2)
    assert await outbox.sweep() == 6
    await outbox.note(*[event(at_ms=outbox.clock.now_ms()) for _ in range(10)])
    assert await outbox.sweep(max_bytes=500, limit=3) == 3
    await outbox.webhooks.delete(first)
    await outbox.webhooks.delete(second)
    assert await outbox.sweep() == 7


async def test_receipts_of_the_applications_messages_are_noted_and_no_others(outbox: Outbox) -> None:
    number = await outbox.add("message.*")
    mine = await outbox.commit(APPLICATION_NO, 1)
    await outbox.commit(9, 1)
    outbox.messages.acknowledge([Receipt(1, 1, 5, "n"), Receipt(1, 2, 6, "n")])
    missed = [await outbox.commit(APPLICATION_NO, 2) for _ in range(4)][:2]
    async with asyncio.timeout(20):
        found = list(await outbox.events.read(number, 0, 10))
        while len(found) < 3:
            found += await outbox.events.read(number, found[-1].event_no, 10)
    told = [(one.kind, one.device_no, one.body) for one in found]
    assert told == [
        ("message.acked", 1, b'{"message_id":"msg_%b"}' % mine.hex().encode()),
        *[("message.missed", 2, b'{"message_id":"msg_%b"}' % one.hex().encode()) for one in missed],
    ]


async def test_nothing_is_noted_where_nobody_wants_it(outbox: Outbox) -> None:
    await outbox.add("push.*")
    await outbox.commit(APPLICATION_NO, 1)
    outbox.messages.acknowledge([Receipt(1, 1, 5, "n")])
    outbox.events.append(event("presence.online"))
    await outbox.note(event("message.acked"))
    count = await outbox.database.read(lambda c: c.exec_driver_sql("SELECT COUNT(*) FROM events").scalar_one())
    assert count == 0


async def test_webhooks_are_known_again_after_a_restart(open_database: OpenDatabase) -> None:
    async with open_database() as database:
        outbox = Outbox(database)
        await outbox.webhooks.start()
        await outbox.add("push.acked", "uplink")
        await outbox.webhooks.fails(1, 70)
        await outbox.webhooks.fails(1, 90)
        before = await outbox.webhooks.all_webhooks()
    async with open_database() as database:
        again = Outbox(database)
        await again.webhooks.start()
        assert await again.webhooks.all_webhooks() == before
        assert before[0].failing_since_ms == 70
        assert "secret" not in repr(before[0])
        assert again.events.wants("push.acked")
        assert not again.events.wants("push.completed")


async def test_a_look_at_the_webhooks_that_finds_nothing_new_wakes_nobody(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    await outbox.add("push.*")
    woken: list[None] = []
    monkeypatch.setattr(outbox.events, "grow", lambda: woken.append(None))
    await outbox.webhooks.start()
    assert woken == []
    await outbox.add("presence.*")
    assert woken


async def test_the_letter_of_a_batch_is_found_and_replayed_once(outbox: Outbox) -> None:
    number = await outbox.add("push.*")
    await outbox.note(*[event() for _ in range(3)])
    batch = b'{"events":[{"kind":"push.acked","id":"1"},{"kind":"push.completed","id":"2"}]}'
    await outbox.webhooks.bury(number, 2, batch, "x" * 5_000, 7)
    (letter,) = await outbox.webhooks.letters(0, 10)
    assert (letter.webhook_no, letter.body, len(letter.error), letter.buried_at_ms) == (number, b"", 4_000, 7)
    assert await outbox.webhooks.letters(letter.letter_no, 10) == []
    kept = await outbox.webhooks.letter(letter.letter_no)
    assert kept is not None
    assert kept.body == batch
    assert [one.event_no for one in await outbox.events.read(number, 2, 10)] == [3]
    for _ in range(2):
        replayed = await outbox.webhooks.replay(letter.letter_no, 9)
        assert replayed is not None
        assert replayed.replayed_at_ms == 9
    again = await outbox.events.read(number, 3, 10)
    assert [(one.kind, one.webhook_no) for one in again] == [("push.acked", number), ("push.completed", number)]
    assert await outbox.events.waiting(number) == 3


async def test_a_deleted_webhook_takes_what_waits_for_it_alone_and_the_uplink_place(outbox: Outbox) -> None:
    gone, kept = await outbox.add("push.*", "uplink"), await outbox.add("push.*")
    await outbox.note(Event("push.acked", 0, 0, b"{}", webhook_no=gone), event())
    assert await outbox.webhooks.delete(gone)
    assert not await outbox.webhooks.delete(gone)
    assert [one.webhook_no for one in await outbox.webhooks.all_webhooks()] == [kept]
    assert [one.event_no for one in await outbox.events.read(kept, 0, 10)] == [2]
    places = await outbox.database.read(lambda c: c.exec_driver_sql("SELECT consumer FROM uplink_cursors").fetchall())
    assert places == []
