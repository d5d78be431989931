"""What every PushWaiting does, whatever engine it stands on: a hint never errs towards no, and what waits is found."""

import asyncio
import contextlib
import itertools

from push_stores import SEGMENT, receipts
from pyroaring import BitMap

from longwire.adapters.sql import push_waiting as module
from longwire.push_model import PushMessage, PushQuery
from longwire.testing import ManualClock


async def settled(made, *devices: int) -> set[int]:
    """Hints for the devices once everything is rebuilt."""
    made.waiting.changed({device >> 16 for device in devices})
    await made.waiting.rebuild()
    return await made.waiting.who_may_wait(devices)


async def waiting(made, device_no: int, after: int = 0, limit: int = 64) -> list[int]:
    (found,) = await made.waiting.waiting([PushQuery(device_no, after, limit)], made.clock.now_ms())
    return found


# -- hints --------------------------------------------------------------------------------------------------------


async def test_everybody_may_wait_before_their_segment_was_rebuilt(pushing) -> None:
    assert await pushing.waiting.who_may_wait([1, SEGMENT]) == {1, SEGMENT}
    assert set(await pushing.waiting.online_waiting(BitMap([1, SEGMENT]))) == {1, SEGMENT}
    await settled(pushing, 1, SEGMENT)
    assert await pushing.waiting.who_may_wait([1, SEGMENT]) == set()
    assert not await pushing.waiting.online_waiting(BitMap([1, SEGMENT]))


async def test_a_push_sets_the_hints_of_its_devices_before_its_call_returns(pushing) -> None:
    await settled(pushing, 1, SEGMENT)
    await pushing.push([1, 3, SEGMENT])
    assert await pushing.waiting.who_may_wait([1, 2, 3, SEGMENT]) == {1, 3, SEGMENT}
    assert set(await pushing.waiting.online_waiting(BitMap([1, 2, SEGMENT]))) == {1, SEGMENT}


async def test_who_has_acknowledged_everything_is_hinted_at_until_the_next_rebuild(pushing) -> None:
    await settled(pushing, 1)
    push = await pushing.push([1, 2])
    await pushing.ack(push, [1])
    assert await pushing.waiting.who_may_wait([1, 2]) == {1, 2}
    await pushing.waiting.rebuild()
    assert await pushing.waiting.who_may_wait([1, 2]) == {2}


async def test_a_push_that_is_kept_during_a_rebuild_is_not_lost(pushing, monkeypatch) -> None:
    """The rebuild's read is held back until the push is kept, and then still says what it saw before."""
    await settled(pushing, 1)
    read, is_read, goes_on = pushing.database.read, asyncio.Event(), asyncio.Event()

    async def late(call):
        result = await read(call)
        is_read.set()
        await goes_on.wait()
        return result

    monkeypatch.setattr(pushing.database, "read", late)
    pushing.waiting.changed([0])
    rebuilding = asyncio.ensure_future(pushing.waiting.rebuild())
    await is_read.wait()
    monkeypatch.setattr(pushing.database, "read", read)
    await pushing.push([1])
    goes_on.set()
    await rebuilding
    assert await pushing.waiting.who_may_wait([1, 2]) == {1}


async def test_paused_pushes_are_hinted_at_when_they_go_on(pushing) -> None:
    push = await pushing.push([1])
    await pushing.store.set_paused(push.push_no, True)
    assert await settled(pushing, 1) == set()
    await pushing.store.set_paused(push.push_no, False)
    assert await pushing.waiting.who_may_wait([1, 2]) == {1}


async def test_what_is_for_those_who_are_online_sets_no_hint(pushing) -> None:
    await settled(pushing, 1)
    await pushing.push([1], ttl_s=0)
    assert await pushing.waiting.who_may_wait([1]) == set()


async def test_a_store_that_is_away_during_a_rebuild_leaves_the_hints_as_they_are(pushing) -> None:
    push = await pushing.push([1])
    assert await settled(pushing, 1, 2) == {1}
    await pushing.ack(push, [1])
    await pushing.database.stop()
    running = asyncio.ensure_future(pushing.waiting.run())
    await pushing.clock.run_for(60)
    assert await pushing.waiting.who_may_wait([1, 2]) == {1}
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_a_segment_is_rebuilt_at_most_every_five_seconds(pushing, monkeypatch) -> None:
    rebuilt: list[float] = []
    rebuild = module.SqlPushWaiting._rebuild

    async def count(self, segment: int) -> None:
        rebuilt.append(pushing.clock.monotonic())
        await rebuild(self, segment)

    monkeypatch.setattr(module.SqlPushWaiting, "_rebuild", count)
    await settled(pushing, 1)
    rebuilt.clear()
    running = asyncio.ensure_future(pushing.waiting.run())
    for _ in range(20):
        pushing.waiting.changed([0])
        await pushing.database.read(lambda _connection: None)
        await pushing.clock.run_for(1)
        await pushing.database.read(lambda _connection: None)
    assert 2 <= len(rebuilt) <= 5
    assert all(later - earlier >= 5 for earlier, later in itertools.pairwise(rebuilt))
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


# -- what waits ---------------------------------------------------------------------------------------------------


async def test_what_waits_comes_oldest_first_behind_a_push_and_within_a_limit(pushing) -> None:
    made = [await pushing.push([1, 2]) for _ in range(5)]
    numbers = [push.push_no for push in made]
    await pushing.ack(made[1], [1])
    left = [number for number in numbers if number != numbers[1]]
    assert await waiting(pushing, 1) == left
    assert await waiting(pushing, 2) == numbers
    assert await waiting(pushing, 3) == []
    assert await waiting(pushing, 1, after=numbers[2]) == numbers[3:]
    assert await waiting(pushing, 1, limit=2) == left[:2]
    assert await waiting(pushing, 1, limit=0) == []


async def test_many_devices_of_many_segments_are_answered_in_the_order_of_the_questions(pushing) -> None:
    first = await pushing.push([1, SEGMENT + 1])
    second = await pushing.push([2, SEGMENT + 1, 5 * SEGMENT])
    queries = [
        PushQuery(5 * SEGMENT, 0, 10),
        PushQuery(1, 0, 10),
        PushQuery(SEGMENT + 1, 0, 10),
        PushQuery(3, 0, 10),
        PushQuery(SEGMENT + 1, first.push_no, 10),
        PushQuery(2, 0, 1),
    ]
    one, two = first.push_no, second.push_no
    assert await pushing.waiting.waiting(queries, pushing.clock.now_ms()) == [
        [two],
        [one],
        [one, two],
        [],
        [two],
        [two],
    ]
    assert await pushing.waiting.waiting([], pushing.clock.now_ms()) == []


async def test_what_ended_or_pauses_or_is_over_does_not_wait(pushing) -> None:
    canceled = await pushing.push([1])
    withdrawn = await pushing.push([1])
    paused = await pushing.push([1])
    collapsed = await pushing.push([1], key="k")
    await pushing.push([1], ttl_s=5)
    newest = await pushing.push([1], key="k")
    now = pushing.clock.now_ms()
    await pushing.store.cancel(canceled.push_no, now)
    await pushing.store.withdraw(withdrawn.push_no, [], pushing.notice(withdrawn), now)
    await pushing.store.set_paused(paused.push_no, True)
    pushing.clock.advance(5)
    assert (await pushing.stats(collapsed)).collapsed == 1
    assert await waiting(pushing, 1) == [newest.push_no]


async def test_of_a_push_with_a_rate_waits_only_what_was_its_turn(pushing) -> None:
    push = await pushing.push([1, 2, 3, SEGMENT], rate=2)
    assert await waiting(pushing, 1) == []
    (claim,) = await pushing.claim()
    await pushing.written(claim, [], is_done=False, cursor=2)
    assert [await waiting(pushing, device) for device in (1, 2, 3)] == [[push.push_no], [push.push_no], []]
    await pushing.written(claim, [])
    assert await waiting(pushing, 3) == [push.push_no]
    assert await waiting(pushing, SEGMENT) == []
    await pushing.store.set_rate(push.push_no, None)
    assert await waiting(pushing, SEGMENT) == [push.push_no]


async def test_a_thousand_pushes_that_everybody_acknowledged_cost_no_row(pushing) -> None:
    """The query finds nothing in the index: no row is read, of whatever push."""
    pushes = [await pushing.push([1, 2]) for _ in range(100)]
    for push in pushes:
        await pushing.ack(push, [1, 2])
    assert await settled(pushing, 1, 2) == set()
    opened = "SELECT COUNT(*) FROM push_segments WHERE is_open = 1"
    assert await pushing.database.read(lambda c: c.exec_driver_sql(opened).scalar()) == 0
    plan, index = {
        "sqlite": ("EXPLAIN QUERY PLAN", "USING INDEX ix_push_segments_open (segment=? AND is_open=? AND rest_min<?)"),
        "mysql": ("EXPLAIN", "range ix_push_segments_open"),
        # PostgreSQL plans by how many rows there are.
        "postgresql": ("EXPLAIN", "push_segments s"),
    }[await pushing.database.read(lambda c: c.dialect.name)]
    rows = await pushing.database.read(
        lambda c: c.exec_driver_sql(f"{plan} {module._WAITING}", (0, 0, 9, 0, 0)).fetchall()
    )
    assert index in " ".join(str(value) for row in rows for value in row)


# -- messages -----------------------------------------------------------------------------------------------------


async def test_messages_of_live_pushes_are_given_as_they_are_sent(pushing) -> None:
    push = await pushing.push([1], key="k", payload=b"\x00\xff")
    ended = await pushing.push([])
    scheduled = await pushing.push([], send_in_s=10)
    numbers = [ended.push_no, push.push_no, 99, scheduled.push_no]
    for _ in range(2):
        none, live, unknown, later = await pushing.waiting.messages(numbers, pushing.clock.now_ms())
        assert none is unknown is later is None
        assert live is not None
        assert (live.push_no, live.message, live.expires_at_ms) == (
            push.push_no,
            push.new.message,
            push.new.expires_at_ms,
        )
    assert isinstance(live.message, PushMessage)


async def test_a_message_is_not_given_once_its_push_has_ended_or_is_over(pushing) -> None:
    pushes = [await pushing.push([1], ttl_s=ttl_s) for ttl_s in (60, 60, 60, 5)]
    numbers = [push.push_no for push in pushes]
    now = pushing.clock.now_ms()
    assert all(await pushing.waiting.messages(numbers, now))
    await pushing.store.cancel(numbers[0], now)
    await pushing.store.withdraw(numbers[1], [], pushing.notice(pushes[1]), now)
    await pushing.send(pushes[2], [1])
    await pushing.tell(receipts(pushes[2], [1]))
    assert await pushing.waiting.messages(numbers[:3], now) == [None, None, None]
    pushing.clock.advance(5)
    assert await pushing.waiting.messages(numbers[3:], pushing.clock.now_ms()) == [None]


async def test_messages_are_kept_within_their_bound(pushing, monkeypatch) -> None:
    monkeypatch.setattr(module, "MAX_CACHED_BYTES", 10_000)
    pushes = [await pushing.push([1], payload=bytes(1_000)) for _ in range(20)]
    numbers = [push.push_no for push in pushes]
    assert all(await pushing.waiting.messages(numbers, pushing.clock.now_ms()))
    kept = pushing.waiting._messages
    assert kept._bytes <= 10_000
    assert set(kept._kept) < set(numbers)  # which, is the engine's order to say
    assert len(kept._kept) == 6


async def test_a_message_that_is_read_again_outlives_those_that_are_not(pushing, monkeypatch) -> None:
    monkeypatch.setattr(module, "MAX_CACHED_BYTES", 5_000)
    pushes = [await pushing.push([1], payload=bytes(1_000)) for _ in range(4)]
    numbers = [push.push_no for push in pushes]
    now = pushing.clock.now_ms()
    for wanted in (numbers[:3], numbers[:1], numbers[3:]):
        await pushing.waiting.messages(wanted, now)
    assert list(pushing.waiting._messages._kept) == [numbers[2], numbers[0], numbers[3]]


async def test_hints_after_a_restart_are_rebuilt_from_what_waits(push_maker) -> None:
    clock = ManualClock()
    async with push_maker(clock) as made:
        push = await made.push([1, 2, 3])
        await made.ack(push, [1])
    async with push_maker(clock) as made:
        assert await settled(made, 1, 2, 3, 4) == {2, 3}
