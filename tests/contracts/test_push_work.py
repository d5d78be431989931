"""What every PushWork does, whatever engine it stands on: leases, the schedule, and the end of time."""

import asyncio

from push_stores import LEASE_MS, SEGMENT, receipts
from pyroaring import BitMap

from longwire.adapters.sql.push_leases import MAX_ATTEMPTS
from longwire.adapters.sql.push_segments import forget_device
from longwire.push_model import Priority, PushStatus, RecipientState
from longwire.testing import ManualClock

MINUTE_MS = 60_000


async def due_of(made, lease_ms: int = MINUTE_MS):
    return list(await made.work.due(made.clock.now_ms(), lease_ms, 10))


async def begin(made, due, devices=(1, 2)) -> bool:
    return await made.work.begin(due, BitMap(devices), 3, ["x"], made.clock.now_ms())


# -- claims -------------------------------------------------------------------------------------------------------


async def test_a_claim_says_what_a_worker_needs(pushing) -> None:
    new = pushing.new(rate=100, priority=Priority.HIGH)
    push, _ = await pushing.store.create(new, BitMap([1, 5]))
    (claim,) = await pushing.claim()
    assert claim.message == new.message
    assert (claim.push_no, claim.segment, claim.priority) == (push.push_no, 0, Priority.HIGH)
    assert (claim.rate_per_s, claim.cursor, claim.is_online_only) == (100, -1, False)
    assert (claim.expires_at_ms, claim.lease_until_ms) == (new.expires_at_ms, pushing.clock.now_ms() + LEASE_MS)
    assert set(claim.targets) == {1, 5}
    assert (await pushing.again(push)).status is PushStatus.SENDING


async def test_claims_come_by_priority_and_then_by_age(pushing) -> None:
    low = await pushing.push([1, SEGMENT], priority=Priority.LOW)
    normal = await pushing.push([1])
    high = await pushing.push([1], priority=Priority.HIGH)
    expected = [(high.push_no, 0), (normal.push_no, 0), (low.push_no, 0), (low.push_no, 1)]
    first = await pushing.claim(3)
    assert [(claim.push_no, claim.segment) for claim in first] == expected[:3]
    assert [(claim.push_no, claim.segment) for claim in await pushing.claim(3)] == expected[3:]


async def test_two_workers_never_get_the_same_segment(pushing) -> None:
    await pushing.push(range(0, 10 * SEGMENT, SEGMENT))
    claims = await asyncio.gather(*(pushing.claim(3, f"w-{number}") for number in range(5)))
    segments = [claim.segment for taken in claims for claim in taken]
    assert sorted(segments) == list(range(10))


async def test_a_push_with_a_rate_gives_one_segment_at_a_time(pushing) -> None:
    paced = await pushing.push([1, SEGMENT, 2 * SEGMENT], rate=10)
    other = await pushing.push([1])
    claims = await pushing.claim()
    assert [(claim.push_no, claim.segment) for claim in claims] == [(paced.push_no, 0), (other.push_no, 0)]
    assert await pushing.claim() == []
    await pushing.work.wait(0)
    await pushing.written(claims[0])
    await asyncio.wait_for(pushing.work.wait(20), 20)
    assert [claim.segment for claim in await pushing.claim()] == [1]


async def test_a_lease_that_ran_out_is_claimed_again_and_the_old_holder_only_merges(pushing) -> None:
    push = await pushing.push([1, 2, 3])
    (old,) = await pushing.claim(worker="w-1")
    pushing.clock.advance(LEASE_MS / 1000 - 0.001)
    assert await pushing.claim() == []
    pushing.clock.advance(0.001)
    (new,) = await pushing.claim(worker="w-2")
    assert new.lease_no > old.lease_no
    assert not (await pushing.written(old, [1], online=1, cursor=1)).is_held
    stats = await pushing.stats(push)
    assert (stats.written, stats.online_at_send) == (1, 0)
    assert (await pushing.again(push)).status is PushStatus.SENDING
    assert (await pushing.written(new, [2], online=2)).is_held
    done = await pushing.again(push)
    assert (done.status, done.stats.written, done.stats.online_at_send) == (PushStatus.DISPATCHED, 2, 2)


async def test_a_start_ends_the_leases_of_the_process_before_where_there_is_one_process(pushing) -> None:
    """Whoever starts on a folder of its own knows that nobody else works on it; elsewhere others may hold them."""
    await pushing.push([1, 2, 3])
    (old,) = await pushing.claim(worker="w-1")
    assert await pushing.claim() == []
    await pushing.work.start()
    if pushing.database.is_shared:
        assert await pushing.claim() == []
        pushing.clock.advance(LEASE_MS / 1000)
    (new,) = await pushing.claim(worker="w-2")
    assert new.lease_no > old.lease_no
    assert not (await pushing.written(old, [1], online=1, cursor=1)).is_held


async def test_a_lease_goes_on_with_every_report(pushing) -> None:
    await pushing.push([1, 2, 3])
    (claim,) = await pushing.claim()
    pushing.clock.advance(20)
    assert (await pushing.written(claim, [1], is_done=False, cursor=1)).is_held
    pushing.clock.advance(20)
    assert await pushing.claim() == []


async def test_a_segment_that_is_done_again_begins_behind_what_was_handled(pushing) -> None:
    push = await pushing.push([1, 2, 3, 4], rate=2)
    (claim,) = await pushing.claim()
    await pushing.written(claim, [1], is_done=False, cursor=2)
    await pushing.ack(push, [3])
    pushing.clock.advance(LEASE_MS / 1000)
    (again,) = await pushing.claim()
    assert (again.cursor, set(again.targets)) == (2, {4})


async def test_a_worker_learns_that_its_push_has_ended_or_pauses(pushing) -> None:
    paused = await pushing.push([1, 2])
    canceled = await pushing.push([1, 2])
    first, second = await pushing.claim()
    await pushing.store.set_paused(paused.push_no, True)
    await pushing.store.cancel(canceled.push_no, pushing.clock.now_ms())
    assert not (await pushing.written(first, [1], is_done=False, cursor=1)).is_held
    assert not (await pushing.written(second, [1], is_done=False, cursor=1)).is_held
    assert (await pushing.stats(paused)).written == (await pushing.stats(canceled)).written == 1
    await pushing.store.set_paused(paused.push_no, False)
    (again,) = await pushing.claim()
    assert set(again.targets) == {2}


async def test_a_segment_that_is_given_back_waits_for_its_moment(pushing) -> None:
    await pushing.push([1])
    (claim,) = await pushing.claim()
    await pushing.work.give_back(claim, pushing.clock.now_ms() + 2_000, "node n-1 does not answer")
    pushing.clock.advance(1.999)
    assert await pushing.claim() == []
    pushing.clock.advance(0.001)
    (again,) = await pushing.claim()
    await pushing.work.give_back(claim, 0, "an old lease")
    assert await pushing.claim() == []
    await pushing.work.give_back(again, 0, "")
    assert len(await pushing.claim()) == 1


async def test_the_tenth_error_fails_who_was_there_and_leaves_the_others_to_come_back(pushing) -> None:
    push = await pushing.push([1, 2, 3])
    for _ in range(MAX_ATTEMPTS):
        (claim,) = await pushing.claim()
        claim.targets &= BitMap([1, 2])
        await pushing.work.give_back(claim, 0, "node n-1 does not answer")
    now = pushing.clock.now_ms()
    assert await pushing.claim() == []
    stats = await pushing.stats(push)
    assert (stats.failed, stats.pending) == (2, 1)
    assert await pushing.store.state_of(push.push_no, 2, now) == (RecipientState.FAILED, False, "link-failed")
    assert (await pushing.again(push)).status is PushStatus.DISPATCHED


async def test_progress_in_between_forgives_errors(pushing) -> None:
    push = await pushing.push([1, 2])
    for _ in range(2 * MAX_ATTEMPTS):
        (claim,) = await pushing.claim()
        await pushing.written(claim, [1], is_done=False, cursor=0)
        await pushing.work.give_back(claim, 0, "node n-1 does not answer")
    assert (await pushing.stats(push)).failed == 0


async def test_a_segment_whose_devices_have_all_ended_is_not_claimed(pushing) -> None:
    push = await pushing.push([1, SEGMENT])
    await pushing.ack(push, [1])
    assert [claim.segment for claim in await pushing.claim()] == [1]


async def test_a_push_whose_time_is_over_is_not_claimed(pushing) -> None:
    await pushing.push([1], ttl_s=5)
    pushing.clock.advance(5)
    assert await pushing.claim() == []


async def test_workers_are_rung_for_when_there_is_something_to_do(pushing) -> None:
    waiting = asyncio.ensure_future(pushing.work.wait(60))
    await asyncio.sleep(0)
    await pushing.push([1])
    await asyncio.wait_for(waiting, 20)
    await pushing.work.wait(0.001)


async def test_what_is_told_at_once_and_in_any_order_is_one_sum(pushing) -> None:
    push = await pushing.push(range(2_000))
    (claim,) = await pushing.claim()
    parts = [receipts(push, range(at, at + 10)) for at in range(0, 1_000, 10)]
    told: list[object] = []
    for part in parts + parts[::-1]:
        pushing.receipts.append([part], lambda _parts, status: told.append(status))
    await pushing.written(claim, range(1_500), online=1_500)
    stats = await pushing.stats(push)
    assert (stats.acked, stats.written, stats.online_at_send, stats.pending) == (1_000, 1_500, 1_500, 1_000)
    assert len(told) == 200


# -- the schedule -------------------------------------------------------------------------------------------------


async def test_a_scheduled_push_begins_at_its_time_and_once(pushing) -> None:
    push = await pushing.push([9], send_in_s=10)
    assert (push.status, push.stats.targeted, push.started_at_ms) == (PushStatus.SCHEDULED, 0, None)
    pushing.clock.advance(9.999)
    assert await due_of(pushing) == []
    pushing.clock.advance(0.001)
    (due,) = await due_of(pushing)
    assert due.new == push.new
    assert await due_of(pushing) == []
    assert (await pushing.again(push)).status is PushStatus.RESOLVING
    assert [await begin(pushing, due), await begin(pushing, due)] == [True, False]
    begun = await pushing.again(push)
    assert (begun.status, begun.stats.targeted, begun.new.unresolved) == (PushStatus.ACCEPTED, 2, 3)
    assert begun.started_at_ms == begun.new.message.sent_at_ms == pushing.clock.now_ms()
    (claim,) = await pushing.claim()
    assert set(claim.targets) == {1, 2}


async def test_of_two_who_resolve_the_same_push_the_later_lease_wins(pushing) -> None:
    push = await pushing.push([], send_in_s=1)
    pushing.clock.advance(1)
    (first,) = await due_of(pushing)
    pushing.clock.advance(60)
    (second,) = await due_of(pushing)
    assert not await begin(pushing, first)
    assert await begin(pushing, second)
    assert (await pushing.stats(push)).targeted == 2


async def test_a_lease_that_is_over_begins_nothing(pushing) -> None:
    await pushing.push([], send_in_s=1)
    pushing.clock.advance(1)
    (due,) = await due_of(pushing)
    pushing.clock.advance(60)
    assert not await begin(pushing, due)


async def test_a_schedule_fires_once_also_across_a_restart(push_maker) -> None:
    clock = ManualClock()
    async with push_maker(clock) as made:
        push = await made.push([], send_in_s=10)
        clock.advance(10)
        (lost,) = await due_of(made)
    async with push_maker(clock) as made:
        assert await due_of(made) == []
        clock.advance(60)
        (due,) = await due_of(made)
        assert await begin(made, due)
    async with push_maker(clock) as made:
        clock.advance(3_600)
        assert await due_of(made) == []
        assert not await begin(made, lost)
        assert not await begin(made, due)
        assert (await made.stats(push)).targeted == 2


async def test_a_scheduled_push_collapses_what_is_older_when_it_begins(pushing) -> None:
    await pushing.push([], send_in_s=10, key="k")
    older = await pushing.push([1, 2, 3], key="k")
    assert (await pushing.stats(older)).collapsed == 0
    pushing.clock.advance(10)
    (due,) = await due_of(pushing)
    await begin(pushing, due)
    assert (await pushing.stats(older)).collapsed == 2


async def test_a_scheduled_push_for_those_who_are_online_counts_from_its_beginning(pushing) -> None:
    push = await pushing.push([], ttl_s=0, send_in_s=10)
    pushing.clock.advance(100)
    (due,) = await due_of(pushing)
    await begin(pushing, due)
    assert (await pushing.again(push)).new.expires_at_ms == pushing.clock.now_ms() + 5_000
    assert len(await pushing.claim()) == 1


async def test_the_next_moment_is_the_first_of_all_that_comes(pushing) -> None:
    assert await pushing.work.next_moment_ms() is None
    now = pushing.clock.now_ms()
    await pushing.push([1], ttl_s=100)
    assert await pushing.work.next_moment_ms() == now + 100_000
    await pushing.push([], send_in_s=10)
    assert await pushing.work.next_moment_ms() == now + 10_000
    pushing.clock.advance(10)
    await due_of(pushing)
    assert await pushing.work.next_moment_ms() == now + 70_000


# -- a device that goes -------------------------------------------------------------------------------------------


async def test_a_deleted_device_is_failed_where_it_was_waited_for(pushing) -> None:
    waited = await pushing.push([1, 2])
    acked = await pushing.push([1, 2])
    alone = await pushing.push([1])
    await pushing.ack(acked, [1])
    now = pushing.clock.now_ms()
    await pushing.database.write(lambda connection: forget_device(connection, 1, now))
    assert (await pushing.stats(waited)).failed == 1
    assert await pushing.store.state_of(waited.push_no, 1, now) == (RecipientState.FAILED, False, "device-deleted")
    assert ((await pushing.stats(acked)).failed, (await pushing.stats(acked)).acked) == (0, 1)
    assert (await pushing.again(alone)).status is PushStatus.COMPLETED
    assert await pushing.store.drift((0, -1), 100, now) == ([], None)


# -- the end ------------------------------------------------------------------------------------------------------


async def test_what_a_worker_tells_behind_the_end_of_time_still_counts(pushing) -> None:
    push = await pushing.push([1, 2], ttl_s=5)
    (claim,) = await pushing.claim()
    pushing.clock.advance(5)
    assert await pushing.work.close(pushing.clock.now_ms(), 10) == 1
    assert not (await pushing.written(claim, [1], online=1)).is_held
    done = await pushing.again(push)
    assert (done.status, done.stats.written, done.stats.online_at_send) == (PushStatus.COMPLETED, 1, 1)


async def test_a_bounded_number_is_closed_at_a_time(pushing) -> None:
    for _ in range(5):
        await pushing.push([1], ttl_s=5)
    pushing.clock.advance(5)
    assert [await pushing.work.close(pushing.clock.now_ms(), 3) for _ in range(3)] == [3, 2, 0]


async def test_a_half_finished_cancelling_is_found_after_a_restart(push_maker) -> None:
    clock = ManualClock()
    async with push_maker(clock) as made:
        push = await made.push([1, 2])
        await made.store.cancel(push.push_no, clock.now_ms())
    clock.advance(7_200)
    async with push_maker(clock) as made:
        assert await made.work.half_canceled(10) == [push.push_no]
        await made.store.finish_cancel(push.push_no, [], clock.now_ms())
        assert await made.work.half_canceled(10) == []
