"""What several processes do at once to one database: nothing is lost, nothing is done twice, nothing is remembered.

Each of two opens the same database for itself, as a process does, with a thread and connections of its own.
"""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from functools import partial
from typing import NamedTuple

import pytest
from databases import OpenDatabase
from push_stores import LEASE_MS, SEGMENT, Made, pushes_on, receipts
from pyroaring import BitMap

from longwire.adapters.redis import RedisWaiting, connect
from longwire.adapters.sql.audiences import SqlAudiences
from longwire.adapters.sql.database import Database
from longwire.adapters.sql.domains import Domain
from longwire.adapters.sql.events import SqlEvents
from longwire.adapters.sql.push_segments import forget_device
from longwire.adapters.sql.webhooks import SqlWebhooks
from longwire.operations_model import Event, Webhook
from longwire.ports.accounts import NewDevice
from longwire.ports.pushes import AnsweredBefore
from longwire.push_model import KeptAnswer, PushQuery, PushStatus, SetChange, SetKind
from longwire.testing import ManualClock

pytestmark = pytest.mark.parametrize("open_database", ["mariadb", "postgres"], indirect=True)

HANG_GUARD_S = 30.0
NOW_MS = 1_764_000_000_000
TAG = SetKind.TAG

_prefixes = itertools.count()


class Two(NamedTuple):
    """Two processes on one database, under one clock."""

    here: Made
    there: Made
    clock: ManualClock


@pytest.fixture
async def databases(open_database: OpenDatabase) -> AsyncIterator[tuple[Database, Database]]:
    async with open_database() as here, open_database() as there:
        yield here, there


@pytest.fixture
def two(databases: tuple[Database, Database]) -> Two:
    clock = ManualClock()
    here, there = databases
    return Two(pushes_on(here, clock), pushes_on(there, clock), clock)


# -- pushes -------------------------------------------------------------------------------------------------------


async def test_what_two_merge_into_the_same_segments_is_all_there(two: Two) -> None:
    chance = random.Random(5)
    devices = [segment * SEGMENT + no for segment in range(2) for no in range(1_000)]
    push = await two.here.push(devices)
    written: set[int] = set()
    acked: set[int] = set()

    async def tell(made: Made) -> None:
        for _ in range(40):
            first = chance.choice([0, SEGMENT])
            some = {first + chance.randrange(1_000) for _ in range(20)}
            done = set(itertools.islice(some, 10))
            written.update(some)
            acked.update(done)
            await made.tell(receipts(push, done, some))

    await asyncio.gather(*(tell(made) for made in (two.here, two.there) for _ in range(3)))
    for made in (two.here, two.there):
        stats = await made.stats(push)
        assert (stats.written, stats.acked) == (len(written | acked), len(acked))
        assert await made.store.drift((0, -1), 100, two.clock.now_ms()) == ([], None)


async def test_no_segment_is_claimed_by_two(two: Two) -> None:
    count = 40
    await two.here.push(range(0, count * SEGMENT, SEGMENT))

    async def claim(made: Made, worker: str) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        while claims := await made.claim(3, worker):
            found += [(claim.segment, claim.lease_no) for claim in claims]
        return found

    async def claimed() -> list[tuple[int, int]]:
        made = [(two.here, "a"), (two.here, "b"), (two.there, "c"), (two.there, "d")]
        found = await asyncio.gather(*(claim(*one) for one in made))
        assert sum(bool(part) for part in found) > 1, "one did it all: this shows nothing"
        return sorted(itertools.chain(*found))

    assert await claimed() == [(segment, 1) for segment in range(count)]
    two.clock.advance(LEASE_MS / 1000)
    assert await claimed() == [(segment, 2) for segment in range(count)]


async def test_fifty_equal_calls_to_two_processes_make_one_push(two: Two) -> None:
    now = two.clock.now_ms()

    async def post(made: Made) -> bytes:
        new = made.new()
        kept = KeptAnswer("key:k1", "once", b"f" * 32, 202, new.push_id, now, "/v1/pushes/x")
        try:
            push, is_new = await made.store.create(new, BitMap([1, 2]), kept)
        except AnsweredBefore as before:
            return before.kept.body
        assert is_new
        return push.new.push_id

    answers = await asyncio.gather(*(post(made) for _ in range(25) for made in (two.here, two.there)))
    assert len(set(answers)) == 1
    pushes = await two.there.store.page(0, 100, None, now)
    assert [push.new.push_id for push in pushes] == answers[:1]


async def test_the_same_message_of_a_sender_to_two_processes_makes_one_push(two: Two) -> None:
    new = two.here.new()
    made = [two.here, two.there] * 10
    found = await asyncio.gather(*(one.store.create(new, BitMap([1])) for one in made))
    assert sum(is_new for _, is_new in found) == 1
    assert len({push.push_no for push, _ in found}) == 1


async def test_push_numbers_are_given_once(two: Two) -> None:
    made = [two.here, two.there] * 30
    pushes = await asyncio.gather(*(one.push([1]) for one in made))
    assert len({push.push_no for push in pushes}) == 60
    waiting = await two.there.waiting.waiting([PushQuery(1, 0, 100)], two.clock.now_ms())
    assert waiting == [sorted(push.push_no for push in pushes)]


async def test_a_scheduled_push_begins_once(two: Two) -> None:
    pushes = [await two.here.push([], send_in_s=1) for _ in range(5)]
    two.clock.advance(1)
    now = two.clock.now_ms()
    found = await asyncio.gather(*(one.work.due(now, 60_000, 10) for one in (two.here, two.there) * 3))
    taken = [due for part in found for due in part]
    assert sorted(due.push_no for due in taken) == [push.push_no for push in pushes]
    begun = await asyncio.gather(
        *(one.work.begin(taken[0], BitMap([1]), 0, [], now) for one in (two.here, two.there) * 3)
    )
    assert sorted(begun) == [False] * 5 + [True]


async def test_a_worker_that_waits_finds_what_another_process_made(two: Two) -> None:
    waiting = asyncio.create_task(two.there.work.wait(HANG_GUARD_S))
    await two.there.database.read(lambda _connection: None)
    assert not waiting.done()
    await two.here.push([1])
    async with asyncio.timeout(5):
        await waiting
    assert len(await two.there.claim()) == 1
    async with asyncio.timeout(HANG_GUARD_S):
        await two.there.work.wait(0.3)  # nothing is left: it waits as long as it is told to


async def test_the_schedule_learns_of_what_another_process_made_within_a_second(two: Two) -> None:
    assert await two.there.work.next_moment_ms() is None
    push = await two.here.push([], send_in_s=100)
    assert await two.there.work.next_moment_ms() is None
    two.clock.advance(1)
    assert await two.there.work.next_moment_ms() == push.new.send_at_ms


async def test_what_one_process_cancels_another_gives_nobody_any_more(two: Two) -> None:
    push, other = await two.here.push([1]), await two.here.push([1])
    now = two.clock.now_ms()
    numbers = [push.push_no, other.push_no]
    assert all(await two.there.waiting.messages(numbers, now))
    await two.here.store.cancel(push.push_no, now)
    gone, live = await two.there.waiting.messages(numbers, now)
    assert gone is None
    assert live is not None
    assert await two.there.waiting.waiting([PushQuery(1, 0, 10)], now) == [[other.push_no]]


async def test_steering_and_merging_at_once_keeps_the_counts_and_deadlocks_nobody(two: Two) -> None:
    chance = random.Random(7)
    devices = range(1, 201)
    pushes = [await two.here.push(devices, key=f"k{no}" if no % 2 else "") for no in range(6)]
    now = two.clock.now_ms()

    async def live(made: Made, push_index: int) -> None:
        push = pushes[push_index]
        for step in range(10):
            some = chance.sample(devices, 5)
            await made.tell(receipts(push, some))
            if step == 5 and push_index == 1:
                await made.store.cancel(push.push_no, now)
                await made.store.finish_cancel(push.push_no, [], now)
            if step == 5 and push_index == 2:
                await made.store.withdraw(push.push_no, [], made.notice(push), now)
            if step == 7 and push_index == 3:
                forget = partial(forget_device, device_no=some[0], now_ms=now)
                await made.database.write(forget, Domain.PUSHES, Domain.EVENTS)
            if step == 8:
                await made.push(devices[:50], key=f"k{push_index}")

    await asyncio.gather(*(live(made, index) for index in range(len(pushes)) for made in (two.here, two.there)))
    for push in pushes:
        assert await two.here.again(push) == await two.there.again(push)
    assert (await two.here.again(pushes[1])).status is PushStatus.CANCELED
    assert (await two.here.again(pushes[2])).status is PushStatus.WITHDRAWN
    assert await two.there.store.drift((0, -1), 1_000, now) == ([], None)


# -- hints --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def hinted(databases: tuple[Database, Database], redis_engine) -> AsyncIterator[Two]:
    """Two that share hints, as two processes share Redis."""
    clock, prefix = ManualClock(), f"pushes{next(_prefixes)}"
    servers = [connect(redis_engine.url) for _ in databases]
    made = [
        pushes_on(database, clock, RedisWaiting(server, "p", prefix))
        for database, server in zip(databases, servers, strict=True)
    ]
    yield Two(made[0], made[1], clock)
    for server in servers:
        await server.aclose()


async def whole(made: Made, *segments: int) -> None:
    made.waiting.changed(segments or (0,))
    await made.waiting.rebuild()


async def test_a_push_is_hinted_at_everywhere_when_its_call_returns(hinted: Two) -> None:
    await whole(hinted.here, 0, 1)
    assert await hinted.there.waiting.who_may_wait([1, 2, SEGMENT]) == set()
    push = await hinted.here.push([1, SEGMENT])
    assert await hinted.there.waiting.who_may_wait([1, 2, SEGMENT]) == {1, SEGMENT}
    assert await hinted.there.waiting.online_waiting(BitMap([1, 2])) == BitMap([1])
    await hinted.there.ack(push, [1])
    await hinted.there.waiting.rebuild()
    assert await hinted.here.waiting.who_may_wait([1, SEGMENT]) == {SEGMENT}


async def test_a_worker_says_the_hints_of_a_push_whose_maker_died_before_it_did(hinted: Two, databases) -> None:
    await whole(hinted.here, 0)
    dead = pushes_on(databases[0], hinted.clock)
    await dead.push([1, 2])
    await dead.push([3], ttl_s=0)
    assert await hinted.here.waiting.who_may_wait([1, 2, 3]) == set()
    assert len(await hinted.there.claim()) == 2
    assert await hinted.here.waiting.who_may_wait([1, 2, 3, 4]) == {1, 2}


async def test_a_rebuild_by_one_loses_nothing_that_another_makes_meanwhile(hinted: Two) -> None:
    made = iter(range(1, 201))
    pushes = []

    async def push(one: Made) -> None:
        for device_no in made:
            pushes.append(await one.push([device_no]))

    async def rebuild(one: Made) -> None:
        for _ in range(40):
            await whole(one)

    both = (hinted.here, hinted.there)
    await asyncio.gather(*(push(one) for one in both), *(rebuild(one) for one in both))
    await whole(hinted.here)
    assert await hinted.there.waiting.who_may_wait(range(1, 301)) == set(range(1, 201))


# -- sets ---------------------------------------------------------------------------------------------------------


async def test_the_same_thousand_devices_tagged_by_two_have_every_tag(two: Two, databases) -> None:
    here, there = (SqlAudiences(database) for database in databases)
    new = [NewDevice(f"d-{no}", no.to_bytes(32, "big"), NOW_MS, None) for no in range(1_000)]
    halves = await asyncio.gather(
        two.here.accounts.register(new[:500], NOW_MS), two.there.accounts.register(new[500:], NOW_MS)
    )
    numbers = [device.device_no for half in halves for device, _ in half]
    assert len(set(numbers)) == 1_000

    async def tag(sets: SqlAudiences, *names: str) -> None:
        changes = [SetChange(no, TAG, add=names) for no in random.Random(names[0]).sample(numbers, 1_000)]
        for at in range(0, 1_000, 50):
            assert all(await sets.change(changes[at : at + 50], NOW_MS))

    await asyncio.gather(tag(here, "a", "both"), tag(there, "b", "both"), tag(here, "c"), tag(there, "d"))
    assert await there.members(TAG, ["a", "b", "both", "c", "d"]) == [BitMap(numbers)] * 5
    assert await here.names_of(numbers, TAG) == [("a", "b", "both", "c", "d")] * 1_000
    assert await here.everyone() == BitMap(numbers)
    rows = await databases[0].read(lambda c: c.exec_driver_sql("SELECT set_no, name FROM device_sets").fetchall())
    assert len({number for number, _ in rows}) == len({name for _, name in rows}) == len(rows)


async def test_a_group_is_made_once_and_its_number_never_given_again(databases) -> None:
    here, there = (SqlAudiences(database) for database in databases)
    made = await asyncio.gather(*(sets.add_group("g", "", NOW_MS) for sets in (here, there) * 5))
    assert sorted(made) == [False] * 9 + [True]
    number = "SELECT set_no FROM device_sets WHERE name = 'g'"
    before = await databases[0].read(lambda c: c.exec_driver_sql(number).scalar())
    await there.delete_group("g")
    await here.add_group("g", "", NOW_MS)
    assert await databases[0].read(lambda c: c.exec_driver_sql(number).scalar()) > before


# -- the outbox ---------------------------------------------------------------------------------------------------


def webhook() -> Webhook:
    return Webhook(0, "https://a.example/", "secret", ("push.*",), True, NOW_MS)


async def test_a_reader_sees_every_event_of_two_writers_once_and_in_order(databases) -> None:
    outboxes = [SqlEvents(database) for database in databases]
    webhooks = [SqlWebhooks(*both) for both in zip(databases, outboxes, strict=True)]
    number = (await webhooks[0].add(webhook())).webhook_no
    assert not outboxes[1].wants("push.acked")
    await webhooks[1].start()
    assert outboxes[1].wants("push.acked")

    async def note(index: int) -> None:
        for no in range(100):
            event = Event("push.acked", NOW_MS, 0, b'{"no":"%d-%d"}' % (index, no))
            await databases[index].write(lambda c, event=event: outboxes[index].note(c, [event]), Domain.EVENTS)

    async def read() -> list[Event]:
        found: list[Event] = []
        while len(found) < 200:
            found += await outboxes[1].read(number, found[-1].event_no if found else 0, 7)
        return found

    async with asyncio.timeout(HANG_GUARD_S):
        found, *_ = await asyncio.gather(read(), note(0), note(1))
    assert [event.event_no for event in found] == sorted({event.event_no for event in found})
    assert {event.body for event in found} == {b'{"no":"%d-%d"}' % (i, no) for i in (0, 1) for no in range(100)}


async def test_a_batch_that_two_give_up_is_one_letter_and_no_cursor_goes_back(databases) -> None:
    outboxes = [SqlEvents(database) for database in databases]
    here, there = (SqlWebhooks(*both) for both in zip(databases, outboxes, strict=True))
    number = (await here.add(webhook())).webhook_no
    await there.start()
    await databases[0].write(lambda c: outboxes[0].note(c, [Event("push.acked", NOW_MS, 0, b"{}")] * 9), Domain.EVENTS)
    batch = b'{"events":[{"kind":"push.acked"},{"kind":"push.acked"}]}'
    await asyncio.gather(*(one.bury(number, 5, batch, "500\0", NOW_MS) for one in (here, there) * 3))
    (letter,) = await there.letters(0, 10)
    assert letter.error == "500"
    await outboxes[1].flush(number, 8, NOW_MS)
    await outboxes[0].flush(number, 6, NOW_MS)
    assert [one.cursor for one in await here.all_webhooks()] == [8]
    replays = await asyncio.gather(*(one.replay(letter.letter_no, NOW_MS) for one in (here, there) * 3))
    assert all(one is not None and one.replayed_at_ms == NOW_MS for one in replays)
    assert await outboxes[1].waiting(number) == 3
