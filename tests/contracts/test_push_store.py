"""What every PushStore does, whatever engine it stands on; random lives are in test_push_machine.py."""

import asyncio
import json

import pytest
from msgspec.structs import replace
from push_stores import DAY_S, SEGMENT, receipts
from pyroaring import BitMap

from longwire.adapters.sql.push_segments import forget_device
from longwire.errors import StoreUnavailable
from longwire.ids import new_message_id
from longwire.ports.accounts import NewDevice
from longwire.ports.pushes import AnsweredBefore, StateConflict, TooManyPushes
from longwire.push_model import Audience, KeptAnswer, PushStatus, RecipientState, TagExpression
from longwire.testing import ManualClock


def answer(made, key: str = "k-1", body: bytes = b"{}") -> KeptAnswer:
    return KeptAnswer("key:k1", key, b"f" * 32, 202, body, made.clock.now_ms())


async def count(made, table: str) -> int:
    return await made.database.read(lambda c: c.exec_driver_sql(f"SELECT COUNT(*) FROM {table}").scalar_one())


# -- making -------------------------------------------------------------------------------------------------------


async def test_a_push_is_found_as_it_was_made(pushing) -> None:
    audience = Audience(tags=TagExpression(any=("a", "b"), none=("c",)))
    new = replace(
        pushing.new(key="k", rate=50), audience=audience, unresolved=12, unresolved_sample=("x", "y"), retry_of=7
    )
    made, is_new = await pushing.store.create(new, BitMap([1, 2, SEGMENT]))
    assert is_new
    assert made.new == new
    assert (made.status, made.stats.targeted, made.stats.pending) == (PushStatus.ACCEPTED, 3, 3)
    assert await pushing.again(made) == made
    assert await pushing.store.find(new_message_id(), 0) is None


async def test_rows_grow_with_segments_and_not_with_devices(pushing) -> None:
    await pushing.push(range(1, 3 * SEGMENT))
    assert await count(pushing, "push_segments") == 3


async def test_a_push_to_nobody_is_completed_at_once(pushing) -> None:
    push = await pushing.push([])
    assert (push.status, push.stats.targeted, push.ended_at_ms) == (
        PushStatus.COMPLETED,
        0,
        pushing.clock.now_ms(),
    )
    assert await pushing.claim() == []


async def test_fifty_equal_calls_at_once_make_one_push(pushing) -> None:
    async def post(number: int) -> object:
        new = pushing.new()
        try:
            push, _ = await pushing.store.create(new, BitMap([1, 2]), answer(pushing, body=str(number).encode()))
        except AnsweredBefore as before:
            return before.kept.body
        return push

    outcomes = await asyncio.gather(*(post(number) for number in range(50)))
    made = [outcome for outcome in outcomes if not isinstance(outcome, bytes)]
    assert len(made) == 1
    assert outcomes.count(b"0") == 49
    assert await count(pushing, "pushes") == 1
    assert await count(pushing, "push_segments") == 1


async def test_an_idempotency_key_counts_for_a_day(pushing) -> None:
    await pushing.store.create(pushing.new(), BitMap([1]), answer(pushing))
    pushing.clock.advance(DAY_S - 1)
    with pytest.raises(AnsweredBefore):
        await pushing.store.create(pushing.new(), BitMap([1]), answer(pushing))
    pushing.clock.advance(1)
    _, is_new = await pushing.store.create(pushing.new(), BitMap([1]), answer(pushing))
    assert is_new
    assert await count(pushing, "pushes") == 2


async def test_a_message_id_that_its_sender_used_before_gives_the_push_of_then(pushing) -> None:
    new = replace(pushing.new(), sender_no=9)
    first, _ = await pushing.store.create(new, BitMap([1]))
    again, is_new = await pushing.store.create(replace(new, push_id=new_message_id()), BitMap([2]))
    assert (again.push_no, is_new) == (first.push_no, False)
    other, is_new = await pushing.store.create(replace(new, push_id=new_message_id(), sender_no=10), BitMap([2]))
    assert is_new
    assert other.push_no != first.push_no


async def test_more_pushes_than_may_be_live_are_refused_until_one_has_ended(pushing) -> None:
    for _ in range(2):
        made = await asyncio.gather(*(pushing.push([1]) for _ in range(100)))
    with pytest.raises(TooManyPushes):
        await pushing.push([1])
    await pushing.store.cancel(made[0].push_no, pushing.clock.now_ms())
    await pushing.push([1])


async def test_a_stopped_store_says_so(pushing) -> None:
    await pushing.database.stop()
    with pytest.raises(StoreUnavailable):
        await pushing.push([1])
    with pytest.raises(StoreUnavailable):
        await pushing.store.find(b"x" * 16, 0)


async def test_a_caller_that_is_cancelled_leaves_a_push_that_is_whole(pushing) -> None:
    """Its devices are hinted at and workers are rung for, though nobody awaits the call any more."""
    await pushing.waiting.who_may_wait([1])
    await pushing.waiting.rebuild()
    calling = asyncio.ensure_future(pushing.push([1]))
    await asyncio.sleep(0)
    calling.cancel()
    await asyncio.wait_for(pushing.work.wait(20), 20)
    assert await pushing.waiting.who_may_wait([1]) == {1}
    assert len(await pushing.claim()) == 1


# -- reading ------------------------------------------------------------------------------------------------------


async def test_pages_run_from_the_newest_to_the_oldest_without_notices_and_pushes_of_devices(pushing) -> None:
    made = [await pushing.push([1]) for _ in range(5)]
    await pushing.store.create(replace(pushing.new(), sender_no=4), BitMap([1]))
    await pushing.store.withdraw(made[0].push_no, [], pushing.notice(made[0]), pushing.clock.now_ms())
    now = pushing.clock.now_ms()
    first = await pushing.store.page(0, 3, None, now)
    assert [push.push_no for push in first] == [push.push_no for push in reversed(made[2:])]
    second = await pushing.store.page(first[-1].push_no, 3, None, now)
    assert [push.push_no for push in second] == [made[1].push_no, made[0].push_no]


async def test_pages_of_one_status_hold_what_find_shows(pushing) -> None:
    """Also where a status is not stored as it is shown."""
    accepted = await pushing.push([1])
    paused = await pushing.push([2])
    await pushing.store.set_paused(paused.push_no, True)
    sending = await pushing.push([3], priority=0)
    await pushing.claim(1)
    scheduled = await pushing.push([], send_in_s=60)
    completed = await pushing.push([])
    expected = {
        PushStatus.ACCEPTED: accepted,
        PushStatus.PAUSED: paused,
        PushStatus.SENDING: sending,
        PushStatus.SCHEDULED: scheduled,
        PushStatus.COMPLETED: completed,
    }
    for status in PushStatus:
        page = await pushing.store.page(0, 10, status, pushing.clock.now_ms())
        assert [push.push_no for push in page] == ([expected[status].push_no] if status in expected else [])
        assert all(push.status is status for push in page)


async def test_latencies_of_all_segments_are_told_as_percentiles(pushing) -> None:
    push = await pushing.push([1, 2, SEGMENT, SEGMENT + 1])
    await pushing.tell(receipts(push, [1, 2], latency_ms=10), receipts(push, [SEGMENT], latency_ms=1_000))
    p50, p95, p99 = (await pushing.again(push)).latency_ms
    assert p50 == pytest.approx(10, rel=0.1)
    assert p95 == p99 == pytest.approx(1_000, rel=0.1)


async def test_the_state_of_one_device(pushing) -> None:
    push = await pushing.push([1, 2, 3])
    await pushing.send(push, [1, 2])
    await pushing.ack(push, [1])
    now = pushing.clock.now_ms()
    state_of = pushing.store.state_of
    assert await state_of(push.push_no, 1, now) == (RecipientState.ACKED, True, "")
    assert await state_of(push.push_no, 2, now) == (RecipientState.PENDING, True, "")
    assert await state_of(push.push_no, 3, now) == (RecipientState.PENDING, False, "")
    assert await state_of(push.push_no, 3, push.new.expires_at_ms) == (RecipientState.EXPIRED, False, "")
    assert await state_of(push.push_no, 4, now) is None
    assert await state_of(push.push_no, SEGMENT, now) is None


async def test_devices_of_an_unknown_push_are_not_known(pushing) -> None:
    assert await pushing.store.in_state(99, RecipientState.ACKED, 0) is None
    assert await pushing.store.state_of(99, 1, 0) is None


# -- acknowledgements ---------------------------------------------------------------------------------------------


async def test_a_push_that_everybody_acknowledged_is_completed(pushing) -> None:
    push = await pushing.push([1, SEGMENT])
    await pushing.send(push, [1, SEGMENT])
    assert (await pushing.again(push)).status is PushStatus.DISPATCHED
    await pushing.ack(push, [1])
    await pushing.ack(push, [SEGMENT])
    done = await pushing.again(push)
    assert (done.status, done.stats.acked, done.stats.online_at_send, done.dispatched) == (
        PushStatus.COMPLETED,
        2,
        2,
        2,
    )
    assert done.ended_at_ms == pushing.clock.now_ms()


async def test_acknowledgements_that_outrun_the_worker_do_not_cost_its_numbers(pushing) -> None:
    push = await pushing.push([1])
    (claim,) = await pushing.claim()
    await pushing.ack(push, [1])
    assert (await pushing.again(push)).status is PushStatus.SENDING
    await pushing.written(claim, [1], online=1)
    done = await pushing.again(push)
    assert (done.status, done.stats.online_at_send, done.stats.written) == (PushStatus.COMPLETED, 1, 1)


async def test_an_acknowledgement_counts_once_and_so_does_its_latency(pushing) -> None:
    push = await pushing.push([1, 2])
    for _ in range(3):
        await pushing.tell(receipts(push, [1]))
    assert (await pushing.stats(push)).acked == 1
    blobs = await pushing.database.read(
        lambda c: c.exec_driver_sql("SELECT latency FROM push_segments").scalars().all()
    )
    assert sum(blobs[0]) == 1


async def test_who_was_never_sent_it_cannot_acknowledge_it(pushing) -> None:
    push = await pushing.push([1])
    await pushing.ack(push, [5])
    await pushing.ack(push, [SEGMENT])
    assert await pushing.again(push) == push


async def test_a_late_acknowledgement_wins_over_every_other_end(pushing) -> None:
    expired = await pushing.push([1], ttl_s=10)
    canceled = await pushing.push([1])
    withdrawn = await pushing.push([1])
    now = pushing.clock.now_ms()
    await pushing.store.cancel(canceled.push_no, now)
    await pushing.store.finish_cancel(canceled.push_no, [], now)
    await pushing.store.withdraw(withdrawn.push_no, [], pushing.notice(withdrawn), now)
    pushing.clock.advance(10)
    await pushing.work.close(pushing.clock.now_ms(), 10)
    for push in (expired, canceled, withdrawn):
        assert (await pushing.stats(push)).acked == 0
        await pushing.ack(push, [1])
        assert (await pushing.stats(push)).acked == 1


# -- time to live -------------------------------------------------------------------------------------------------


async def test_at_its_end_what_is_pending_has_expired_before_anything_is_swept(pushing) -> None:
    push = await pushing.push([1, 2], ttl_s=5)
    await pushing.ack(push, [1])
    pushing.clock.advance(4.999)
    assert (await pushing.stats(push)).pending == 1
    pushing.clock.advance(0.001)
    stats = await pushing.stats(push)
    assert (stats.pending, stats.expired) == (0, 1)
    expired = await pushing.store.in_state(push.push_no, RecipientState.EXPIRED, pushing.clock.now_ms())
    assert set(expired) == {2}
    assert await pushing.work.close(pushing.clock.now_ms(), 10) == 1
    done = await pushing.again(push)
    assert (done.status, done.stats) == (PushStatus.COMPLETED, stats)
    assert await pushing.work.close(pushing.clock.now_ms(), 10) == 0


async def test_without_a_time_to_live_only_those_who_were_written_to_are_waited_for(pushing) -> None:
    push = await pushing.push([1, 2, 3], ttl_s=0)
    (claim,) = await pushing.claim()
    assert claim.is_online_only
    await pushing.written(claim, [1, 2], online=2)
    assert (await pushing.stats(push)).expired == 1
    await pushing.ack(push, [1])
    pushing.clock.advance(5)
    stats = await pushing.stats(push)
    assert (stats.acked, stats.expired) == (1, 2)


# -- collapse -----------------------------------------------------------------------------------------------------


async def test_a_later_push_takes_the_place_of_an_older_one_for_common_devices(pushing) -> None:
    older = await pushing.push([1, 2, 3, SEGMENT], key="weather")
    other = await pushing.push([1, 2, 3], key="traffic")
    await pushing.ack(older, [1])
    await pushing.push([1, 2, SEGMENT], key="weather")
    stats = await pushing.stats(older)
    assert (stats.acked, stats.collapsed, stats.pending) == (1, 2, 1)
    assert (await pushing.stats(other)).collapsed == 0


async def test_a_push_that_is_collapsed_for_all_who_waited_is_completed(pushing) -> None:
    older = await pushing.push([1, 2], key="weather")
    await pushing.push([1, 2], key="weather")
    assert (await pushing.again(older)).status is PushStatus.COMPLETED
    assert [claim.push_no for claim in await pushing.claim()] == [older.push_no + 1]


async def test_pushes_of_other_senders_do_not_collapse(pushing) -> None:
    older = await pushing.push([1], key="weather")
    await pushing.store.create(replace(pushing.new(key="weather"), sender_no=5), BitMap([1]))
    assert (await pushing.stats(older)).collapsed == 0


# -- steering -----------------------------------------------------------------------------------------------------


async def test_a_paused_push_gives_no_claims_until_it_goes_on(pushing) -> None:
    push = await pushing.push([1])
    assert await pushing.store.set_paused(push.push_no, True)
    assert await pushing.store.set_paused(push.push_no, True)
    assert (await pushing.again(push)).status is PushStatus.PAUSED
    assert await pushing.claim() == []
    assert await pushing.store.set_paused(push.push_no, False)
    assert len(await pushing.claim()) == 1


async def test_a_push_whose_last_segment_ends_in_a_pause_is_dispatched_after_it(pushing) -> None:
    push = await pushing.push([1])
    (claim,) = await pushing.claim()
    await pushing.store.set_paused(push.push_no, True)
    assert not (await pushing.written(claim, [])).is_held
    assert (await pushing.again(push)).status is PushStatus.PAUSED
    await pushing.store.set_paused(push.push_no, False)
    assert (await pushing.again(push)).status is PushStatus.DISPATCHED
    assert not await pushing.store.set_paused(push.push_no, True)


async def test_the_rate_changes_while_a_push_is_sent_and_not_after(pushing) -> None:
    push = await pushing.push([1, 2], rate=10)
    (claim,) = await pushing.claim()
    assert await pushing.store.set_rate(push.push_no, 20)
    assert (await pushing.written(claim, [1], is_done=False, cursor=1)).rate_per_s == 20
    await pushing.written(claim, [2])
    assert not await pushing.store.set_rate(push.push_no, 30)
    assert (await pushing.again(push)).rate_per_s == 20


async def test_cancel_ends_who_was_not_written_to_and_waits_for_the_others(pushing) -> None:
    push = await pushing.push([1, 2, 3, 4])
    (claim,) = await pushing.claim()
    await pushing.written(claim, [1, 2], is_done=False, cursor=2)
    now = pushing.clock.now_ms()
    assert await pushing.store.cancel(push.push_no, now)
    assert await pushing.work.half_canceled(10) == [push.push_no]
    await pushing.store.finish_cancel(push.push_no, [receipts(push, [1], written=[3])], now)
    assert await pushing.work.half_canceled(10) == []
    stats = await pushing.stats(push)
    assert (stats.acked, stats.canceled, stats.pending) == (1, 1, 2)
    assert not (await pushing.written(claim, [4])).is_held
    assert (await pushing.stats(push)).canceled == 1
    pushing.clock.advance(3_600)
    assert (await pushing.stats(push)).expired == 2


async def test_cancelling_again_changes_nothing_and_what_has_ended_cannot_be_cancelled(pushing) -> None:
    push = await pushing.push([1, 2])
    now = pushing.clock.now_ms()
    for _ in range(2):
        assert await pushing.store.cancel(push.push_no, now)
        await pushing.store.finish_cancel(push.push_no, [], now)
    assert (await pushing.stats(push)).canceled == 2
    completed = await pushing.push([])
    over = await pushing.push([1], ttl_s=5)
    pushing.clock.advance(5)
    for ended in (completed, over):
        assert not await pushing.store.cancel(ended.push_no, pushing.clock.now_ms())
        assert (await pushing.again(ended)).status is PushStatus.COMPLETED


async def test_a_scheduled_push_that_is_cancelled_never_begins(pushing) -> None:
    push = await pushing.push([], send_in_s=10)
    now = pushing.clock.now_ms()
    assert await pushing.store.cancel(push.push_no, now)
    await pushing.store.finish_cancel(push.push_no, [], now)
    pushing.clock.advance(10)
    assert await pushing.work.due(pushing.clock.now_ms(), 60_000, 10) == []


async def test_whoever_may_have_a_withdrawn_push_gets_the_notice(pushing) -> None:
    push = await pushing.push([1, 2, 3, SEGMENT])
    await pushing.send(push, [1, 2])
    now = pushing.clock.now_ms()
    wanted = pushing.notice(push)
    notice, has_receivers = await pushing.store.withdraw(push.push_no, [receipts(push, [1], [3])], wanted, now)
    assert has_receivers
    assert notice.new == wanted
    stats = await pushing.stats(push)
    assert (stats.acked, stats.withdrawn) == (1, 3)
    assert (await pushing.again(push)).status is PushStatus.WITHDRAWN
    (claim,) = await pushing.claim()
    assert (claim.push_no, set(claim.targets)) == (notice.push_no, {1, 2, 3})


async def test_withdrawing_again_gives_the_notice_of_then(pushing) -> None:
    push = await pushing.push([1])
    await pushing.send(push, [1])
    now = pushing.clock.now_ms()
    first, _ = await pushing.store.withdraw(push.push_no, [], pushing.notice(push), now)
    again, has_receivers = await pushing.store.withdraw(push.push_no, [], pushing.notice(push), now)
    assert (again.push_no, has_receivers) == (first.push_no, True)


async def test_a_push_that_nobody_has_is_withdrawn_without_a_word(pushing) -> None:
    push = await pushing.push([1])
    notice, has_receivers = await pushing.store.withdraw(push.push_no, [], pushing.notice(push), pushing.clock.now_ms())
    assert not has_receivers
    assert notice.status is PushStatus.COMPLETED
    assert await pushing.claim() == []


async def test_what_has_expired_stays_expired_when_the_push_is_withdrawn(pushing) -> None:
    push = await pushing.push([1, 2], ttl_s=5)
    await pushing.send(push, [1])
    pushing.clock.advance(5)
    await pushing.store.withdraw(push.push_no, [], pushing.notice(push), pushing.clock.now_ms())
    stats = await pushing.stats(push)
    assert (stats.expired, stats.withdrawn) == (2, 0)


async def test_a_push_that_failed_cannot_be_withdrawn(pushing) -> None:
    push = await pushing.push([], send_in_s=1)
    pushing.clock.advance(1)
    (due,) = await pushing.work.due(pushing.clock.now_ms(), 60_000, 10)
    await pushing.work.give_up(due, "upload is gone", pushing.clock.now_ms())
    failed = await pushing.again(push)
    assert (failed.status, failed.failure) == (PushStatus.FAILED, "upload is gone")
    with pytest.raises(StateConflict):
        await pushing.store.withdraw(push.push_no, [], pushing.notice(push), pushing.clock.now_ms())
    with pytest.raises(StateConflict):
        await pushing.store.withdraw(999, [], pushing.notice(push), pushing.clock.now_ms())


# -- what adds up -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        ("n_acked = n_acked + 1", "n_acked is 2, the bitmap says 1"),
        ("n_rest = 0", "n_rest is 0, the bitmap says 2"),
        ("rest = targeted", "rest differs from the bitmaps by 1 devices"),
        ("rest_min = 9", "rest is said to lie within 9 and 3"),
        ("is_open = 0", "is_open is False while the push is sending and 2 devices wait"),
    ],
)
async def test_a_number_that_differs_from_its_bitmap_is_found(pushing, damage, fault) -> None:
    push = await pushing.push([1, 2, 3])
    await pushing.ack(push, [1])
    now = pushing.clock.now_ms()
    assert await pushing.store.drift((0, -1), 10, now) == ([], None)
    await pushing.database.write(lambda c: c.exec_driver_sql(f"UPDATE push_segments SET {damage}").close())
    (found,), _ = await pushing.store.drift((0, -1), 10, now)
    assert found == f"psh_{push.new.push_id.hex()} segment 0: {fault}"


async def test_the_check_goes_on_where_it_stopped(pushing) -> None:
    push = await pushing.push(range(0, 5 * SEGMENT, SEGMENT))
    _, after = await pushing.store.drift((0, -1), 3, pushing.clock.now_ms())
    assert after == (push.push_no, 2)
    assert await pushing.store.drift(after, 3, pushing.clock.now_ms()) == ([], None)


# -- across a restart ---------------------------------------------------------------------------------------------


async def test_a_push_and_what_was_told_of_it_outlive_the_process(push_maker) -> None:
    clock = ManualClock()
    async with push_maker(clock) as made:
        push, _ = await made.store.create(made.new(key="k"), BitMap([1, 2, SEGMENT]), answer(made))
        await made.send(push, [1, 2])
        await made.ack(push, [1])
        before = await made.again(push)
    async with push_maker(clock) as made:
        assert await made.again(push) == before
        assert await made.waiting.who_may_wait([1, 2, 3]) == {1, 2, 3}, "not yet rebuilt"
        with pytest.raises(AnsweredBefore):
            await made.store.create(made.new(), BitMap([1]), answer(made))


# -- webhooks -----------------------------------------------------------------------------------------------------


async def test_nothing_is_written_for_webhooks_that_nobody_wants(pushing) -> None:
    push = await pushing.push([1])
    await pushing.send(push, [1])
    await pushing.ack(push, [1])
    assert pushing.events == []


async def test_webhooks_are_told_who_acknowledged_a_thousand_at_a_time_and_once(pushing) -> None:
    now = pushing.clock.now_ms()
    new = [NewDevice(f"d-{n}", n.to_bytes(32, "big"), now + 1_000, None) for n in range(1, 2_503)]
    registered = await pushing.accounts.register(new, now)
    numbers = [device.device_no for device, _ in registered]
    pushing.wanted.update({"push.acked", "push.completed"})
    push = await pushing.push(numbers)
    await pushing.send(push, numbers)
    await pushing.ack(push, numbers[:2_500])
    await pushing.ack(push, numbers[:2_501])
    told = [json.loads(event.body) for event in pushing.events]
    assert {event.kind for event in pushing.events} == {"push.acked"}
    assert {body["push_id"] for body in told} == {f"psh_{push.new.push_id.hex()}"}
    assert [len(body["device_ids"]) for body in told] == [1_000, 1_000, 500, 1]
    assert {name for body in told for name in body["device_ids"]} == {f"d-{n}" for n in range(1, 2_502)}
    pushing.events.clear()
    await pushing.ack(push, numbers)
    assert [event.kind for event in pushing.events] == ["push.acked", "push.completed"]
    assert json.loads(pushing.events[1].body)["stats"]["acked"] == 2_502


async def test_webhooks_are_told_of_a_push_that_completes_by_time_or_has_no_devices(pushing) -> None:
    pushing.wanted.add("push.completed")
    await pushing.push([1], ttl_s=5)
    pushing.clock.advance(5)
    await pushing.work.close(pushing.clock.now_ms(), 10)
    await pushing.push([])
    assert [json.loads(event.body)["stats"]["expired"] for event in pushing.events] == [1, 0]


async def test_webhooks_hear_nothing_of_notices_and_of_what_devices_send(pushing) -> None:
    pushing.wanted.update({"push.acked", "push.completed"})
    sent, _ = await pushing.store.create(replace(pushing.new(), sender_no=7), BitMap([1]))
    push = await pushing.push([1])
    await pushing.send(push, [1])
    notice, _ = await pushing.store.withdraw(push.push_no, [], pushing.notice(push), pushing.clock.now_ms())
    await pushing.ack(sent, [1])
    await pushing.ack(notice, [1])
    assert pushing.events == []


async def test_who_was_written_to_before_a_cancel_overtook_the_report_was_online(pushing) -> None:
    push = await pushing.push([1, 2, 3, 4, SEGMENT])
    first, second = await pushing.claim()
    await pushing.written(first, [1], is_done=False, cursor=1, online=1)
    await pushing.written(second, [SEGMENT], online=1)
    # A part that a node refused counts for nothing: it is to be done again.
    await pushing.written(first, [2], is_done=False, cursor=1)
    assert (await pushing.stats(push)).online_at_send == 2
    await pushing.store.cancel(push.push_no, pushing.clock.now_ms())
    assert (await pushing.stats(push)).online_at_send == 3
    for _ in range(2):
        await pushing.written(first, [2, 3], is_done=False, cursor=1)
    stats = await pushing.stats(push)
    assert (stats.written, stats.online_at_send) == (4, 4)


async def test_the_reasons_of_failures_are_told_by_device(pushing) -> None:
    push = await pushing.push([1, 2, 3])
    now = pushing.clock.now_ms()
    for device_no in (1, 3):
        await pushing.database.write(lambda c, device_no=device_no: forget_device(c, device_no, now))
    reasons = await pushing.store.reasons(push.push_no, [1, 2, 3])
    assert reasons == {1: "device-deleted", 3: "device-deleted"}
    assert await pushing.store.reasons(push.push_no + 1, [1]) == {}
