"""A push's life on the real store: what becomes of it, and what operators may ask."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from push_fakes import HANG_GUARD_S, Nodes
from push_house import PushHouse, no_answer, push_house
from pyroaring import BitMap

from longwire.accounts.refusals import RefusalCode, Refused
from longwire.accounts.uploads import Uploads
from longwire.errors import StoreUnavailable
from longwire.histogram import Histogram
from longwire.ids import prefixed
from longwire.limits import Limits
from longwire.ports.pushes import AnsweredBefore
from longwire.push.pushes import PushOrder, PushView, view_of
from longwire.push_model import (
    Audience,
    KeptAnswer,
    PushStatus,
    RecipientState,
    SegmentReceipts,
    SetChange,
    SetKind,
    TagExpression,
)
from longwire.testing import ManualClock

VIP = Audience(tags=TagExpression(any=("vip",)))


@pytest.fixture
async def house(tmp_path: Path, clock: ManualClock, nodes: Nodes) -> AsyncIterator[PushHouse]:
    async with push_house(tmp_path, clock, nodes) as house:
        yield house


async def status_of(house: PushHouse, view: PushView) -> PushStatus:
    return (await house.look(view)).push.status


async def in_state(house: PushHouse, view: PushView, state: RecipientState) -> list[str | None]:
    found, _ = await house.pushes.recipients(view.push.new.push_id, state, 0, 1_000)
    return [device.device_id for device in found]


# From one end to the other


async def test_a_push_to_all_reaches_who_is_online_and_ends_when_all_have_acknowledged(house, nodes) -> None:
    numbers = await house.register(*(f"d-{n}" for n in range(10)))
    await nodes.add("n1", *numbers[:6])
    view = await house.push()
    assert view.push.status in (PushStatus.ACCEPTED, PushStatus.SENDING)
    assert view.push.stats.targeted == 10
    async with house.worker():
        view = await house.dispatched(view)
        assert view.push.status is PushStatus.DISPATCHED
        assert (view.push.stats.written, view.push.stats.online_at_send, view.push.stats.pending) == (6, 6, 10)
        assert (view.progress.percent, view.progress.eta_s) == (100.0, None)
        await house.ack(view, *numbers[:9], 4_711)
        assert await in_state(house, view, RecipientState.PENDING) == ["d-9"]
        await house.ack(view, numbers[9])
    view = await house.look(view)
    assert view.push.status is PushStatus.COMPLETED
    assert view.is_ended
    assert view.push.stats.acked == 10
    (write,) = nodes.writes
    assert (write.order.message.kind, write.order.message.payload) == ("news", b"hello")
    assert write.order.message.message_id == view.push.new.push_id


async def test_a_tag_expression_that_matches_nobody_is_completed_at_once(house) -> None:
    await house.register("d-1", tags=("vip",))
    told = []

    def answer(push, resolved) -> None:
        told.append((push.status, resolved.devices))

    order = PushOrder(Audience(tags=TagExpression(all=("vip", "nobody"))), "news", b"")
    view = await house.pushes.create(order, answer)
    assert (view.push.status, view.push.stats.targeted, view.progress.percent) == (PushStatus.COMPLETED, 0, 100.0)
    assert told == [(PushStatus.COMPLETED, BitMap())]


async def test_a_tag_that_was_just_given_counts(house) -> None:
    numbers = await house.register("d-1", "d-2")
    assert (await house.push(VIP)).push.stats.targeted == 0
    await house.sets.change([SetChange(numbers[1], SetKind.TAG, add=("vip",))], house.clock.now_ms())
    assert (await house.push(VIP)).push.stats.targeted == 1


async def test_a_hundred_thousand_uploaded_ids_of_which_ten_do_not_exist(house) -> None:
    await house.register_many("d-", range(99_990))

    async def body() -> AsyncIterator[bytes]:
        for at in range(0, 100_000, 1_000):
            yield "".join(f"d-{n}\n" for n in range(at, at + 1_000)).encode()

    upload = await Uploads(house.sets, house.clock, house.limits).take(body())
    assert (upload.devices, upload.unresolved.count) == (99_990, 10)
    assert sorted(upload.unresolved.sample) == [f"d-{n}" for n in range(99_990, 100_000)]
    audience = Audience(upload=upload.upload_id)
    view = await house.push(audience)
    assert (view.push.stats.targeted, view.push.new.unresolved) == (99_990, 0)
    async with house.worker():
        view = await house.dispatched(view)
    assert view.push.stats.pending == 99_990
    await house.accounts.delete_device(1, house.clock.now_ms())
    validation = await house.pushes.validate(PushOrder(audience, "news", b""))
    assert (validation.targeted, validation.unresolved) == (99_989, 1)
    found = await house.look(view)
    assert (found.push.stats.failed, found.push.stats.pending) == (1, 99_989)


# Time to live


@pytest.mark.parametrize(("after_s", "is_written"), [(4, True), (6, False)])
async def test_a_ttl_of_5_s_is_kept_by_a_worker_that_comes_late(house, nodes, clock, after_s, is_written) -> None:
    numbers = await house.register("d-1", "d-2")
    await nodes.add("n1", *numbers)
    view = await house.push(ttl_s=5)
    clock.advance(after_s)
    async with house.worker():
        if is_written:
            view = await house.dispatched(view)
        await house.schedule.look()
    view = await house.look(view)
    assert nodes.written == (BitMap(numbers) if is_written else BitMap())
    assert (view.push.stats.pending, view.push.stats.expired) == ((2, 0) if is_written else (0, 2))
    assert view.push.status is (PushStatus.DISPATCHED if is_written else PushStatus.COMPLETED)
    clock.advance(5)
    assert (await house.look(view)).push.stats.expired == 2
    await house.schedule.look()
    assert await status_of(house, view) is PushStatus.COMPLETED


async def test_a_ttl_of_0_is_for_who_is_online_now(house, nodes, clock) -> None:
    numbers = await house.register("d-1", "d-2", "d-3")
    await nodes.add("n1", *numbers[:2])
    view = await house.push(ttl_s=0)
    async with house.worker():
        view = await house.dispatched(view)
    assert (view.push.stats.written, view.push.stats.expired, view.push.stats.pending) == (2, 1, 2)
    await house.ack(view, numbers[0])
    clock.advance(6)
    await house.schedule.look()
    view = await house.look(view)
    assert (view.push.status, view.push.stats.acked, view.push.stats.expired) == (PushStatus.COMPLETED, 1, 2)


async def test_a_paced_ttl_of_0_has_the_time_that_its_pace_needs(house, nodes, clock) -> None:
    numbers = await house.register(*(f"d-{n}" for n in range(100)))
    await nodes.add("n1", *numbers)
    view = await house.push(ttl_s=0, rate_per_s=10)
    async with house.worker():
        await house.pass_time(12, 0.25)
        view = await house.dispatched(view)
    assert view.push.stats.written == 100


# Cancel, withdraw, pause


async def test_cancelled_at_half_nobody_is_written_to_any_more(house, nodes, clock) -> None:
    numbers = await house.register(*(f"d-{n}" for n in range(200)))
    await nodes.add("n1", *numbers)
    view = await house.push(rate_per_s=100)
    async with house.worker():
        await house.pass_time(0.9)
        await house.ack(view, *numbers[:10])
        view = await house.pushes.cancel(view.push.new.push_id)
        assert view.push.status is PushStatus.CANCELED
        written = len(nodes.written)
        assert 50 <= written <= 130
        await house.pass_time(5, 0.25)
        assert len(nodes.written) == written
        view = await house.look(view)
    assert (view.push.stats.acked, view.push.stats.pending, view.push.stats.canceled) == (
        10,
        written - 10,
        200 - written,
    )
    await house.ack(view, numbers[10])
    assert (await house.pushes.cancel(view.push.new.push_id)).push.stats.acked == 11
    clock.advance(90_000)
    assert (await house.look(view)).push.stats.expired == written - 11


async def test_what_nodes_had_gathered_counts_when_a_push_is_cancelled(house, nodes) -> None:
    numbers = await house.register("d-1", "d-2", "d-3")
    view = await house.push()
    push_no = (await house.pushes.find(view.push.new.push_id)).push.push_no
    nodes.noted = [SegmentReceipts(push_no, 0, BitMap(numbers[:1]), BitMap(numbers[1:2]), Histogram())]
    await house.pushes.cancel(view.push.new.push_id)
    assert await in_state(house, view, RecipientState.ACKED) == ["d-1"]
    assert await in_state(house, view, RecipientState.PENDING) == ["d-2"]
    assert await in_state(house, view, RecipientState.CANCELED) == ["d-3"]


async def test_what_has_ended_cannot_be_cancelled_paused_or_paced(house, nodes) -> None:
    await house.register("d-1")
    view = await house.push(VIP)
    assert view.push.status is PushStatus.COMPLETED
    push_id = view.push.new.push_id
    calls = (
        house.pushes.cancel(push_id),
        house.pushes.pause(push_id),
        house.pushes.resume(push_id),
        house.pushes.set_rate(push_id, 5),
    )
    for call in calls:
        with pytest.raises(Refused) as refused:
            await call
        assert refused.value.code is RefusalCode.STATE_CONFLICT
        assert refused.value.more == {"status": "completed"}


async def test_a_cancel_whose_process_died_is_finished_by_the_schedule(house, nodes, clock) -> None:
    numbers = await house.register("d-1", "d-2")
    await nodes.add("n1", numbers[0])
    view = await house.push()
    async with house.worker():
        view = await house.dispatched(view)
    await house.store.cancel(view.push.push_no, clock.now_ms())
    assert (await house.look(view)).push.stats.canceled == 0
    await house.schedule.look()
    view = await house.look(view)
    assert (view.push.status, view.push.stats.canceled, view.push.stats.pending) == (PushStatus.CANCELED, 1, 1)
    assert nodes.ended == {view.push.push_no}


async def test_a_cancel_that_is_under_way_is_left_to_its_caller(house, nodes, clock) -> None:
    await house.register("d-1")
    await house.schedule.look()
    view = await house.push()
    push_no = (await house.look(view)).push.push_no
    await house.store.cancel(push_no, clock.now_ms())
    clock.advance(5)
    await house.schedule.look()
    assert nodes.ended == set()
    clock.advance(5)
    await house.schedule.look()
    assert nodes.ended == {push_no}


async def test_who_has_a_withdrawn_push_is_told(house, nodes) -> None:
    numbers = await house.register("d-1", "d-2", "d-3")
    await nodes.add("n1", *numbers[:2])
    view = await house.push()
    async with house.worker():
        view = await house.dispatched(view)
        await house.ack(view, numbers[0])
        await house.accounts.find_devices(["d-1"])
        view = await house.pushes.withdraw(view.push.new.push_id)
        assert (view.push.status, view.push.stats.acked, view.push.stats.withdrawn) == (PushStatus.WITHDRAWN, 1, 2)

        async def told() -> bool:
            return len(nodes.writes) == 2

        await house.until(told)
    notice = nodes.writes[1].order
    assert notice.receivers == BitMap(numbers[:2])
    assert notice.message.kind == "longwire.withdrawn"
    push_id = view.push.new.push_id.hex()
    text = "-".join((push_id[:8], push_id[8:12], push_id[12:16], push_id[16:20], push_id[20:]))
    assert notice.message.payload == b'{"message_id":"%s"}' % text.encode()
    assert notice.ttl_left_ms == 86_400_000
    again = await house.pushes.withdraw(view.push.new.push_id)
    assert again.push.status is PushStatus.WITHDRAWN
    pushes, _ = await house.pushes.page(0, 10, None)
    assert [one.push.push_no for one in pushes] == [view.push.push_no]


async def test_a_paused_push_waits_and_goes_on_where_it_was(house, nodes) -> None:
    numbers = await house.register(*(f"d-{n}" for n in range(100)))
    await nodes.add("n1", *numbers)
    view = await house.push(rate_per_s=40)
    push_id = view.push.new.push_id
    async with house.worker():
        await house.pass_time(1)
        for _ in range(2):
            assert (await house.pushes.pause(push_id)).push.status is PushStatus.PAUSED
        await house.pass_time(0.5)
        written = len(nodes.written)
        assert written < 80
        await house.pass_time(5, 0.25)
        assert len(nodes.written) == written
        for _ in range(2):
            assert (await house.pushes.resume(push_id)).push.status in (PushStatus.SENDING, PushStatus.ACCEPTED)
        assert nodes.caught_up == BitMap(numbers)
        assert (await house.pushes.set_rate(push_id, None)).push.rate_per_s is None

        async def all_written() -> bool:
            await house.pass_time(0.05)
            return len(nodes.written) == 100

        await house.until(all_written)
    assert sum(len(write.order.receivers) for write in nodes.writes) == 100


async def test_a_worker_that_crashes_at_half_is_followed_by_another(house, nodes, clock) -> None:
    numbers = await house.register(*(f"d-{n}" for n in range(100)))
    await nodes.add("n1", *numbers)
    view = await house.push(rate_per_s=40)
    async with house.worker():
        await house.pass_time(1)
    assert 20 <= len(nodes.written) <= 60
    clock.advance(31)
    await house.pushes.set_rate(view.push.new.push_id, None)
    async with house.worker():
        view = await house.dispatched(view)
    assert view.push.stats.written == 100
    assert sum(len(write.order.receivers) for write in nodes.writes) <= 110


# Schedules


async def test_a_scheduled_push_fires_once_also_across_a_restart(tmp_path, clock, nodes) -> None:
    async with push_house(tmp_path, clock, nodes) as house:
        numbers = await house.register("d-1", "d-2")
        await nodes.add("n1", *numbers)
        view = await house.push(VIP, send_at_ms=clock.now_ms() + 60_000)
        assert (view.push.status, view.push.stats.targeted) == (PushStatus.SCHEDULED, 0)
        await house.sets.change([SetChange(numbers[0], SetKind.TAG, add=("vip",))], clock.now_ms())
        clock.advance(59)
        await house.schedule.look()
        assert await status_of(house, view) is PushStatus.SCHEDULED
        clock.advance(2)
        # A process that takes it and dies.
        (due,) = await house.store.due(clock.now_ms(), 60_000, 10)
        assert await status_of(house, view) is PushStatus.RESOLVING
    async with push_house(tmp_path, clock, nodes) as house:
        await house.schedule.look()
        assert await status_of(house, view) is PushStatus.RESOLVING
        clock.advance(60)
        await asyncio.gather(*(house.schedule.look() for _ in range(5)))
        assert not await house.store.begin(due, BitMap(numbers), 0, (), clock.now_ms())
        async with house.worker():
            view = await house.dispatched(view)
        assert (view.push.stats.targeted, view.push.stats.written) == (1, 1)
    async with push_house(tmp_path, clock, nodes) as house:
        clock.advance(60)
        await house.schedule.look()
        assert (await house.look(view)).push.status is PushStatus.DISPATCHED
    assert [list(write.order.receivers) for write in nodes.writes] == [[numbers[0]]]


async def test_a_schedule_runs_in_time_by_itself(house, nodes, clock) -> None:
    numbers = await house.register("d-1")
    await nodes.add("n1", *numbers)
    view = await house.push(send_at_ms=clock.now_ms() + 2_000, ttl_s=5)
    running = asyncio.create_task(house.schedule.run())
    async with house.worker():
        await house.pass_time(1.9)
        assert nodes.writes == []
        await house.pass_time(0.6)
        view = await house.dispatched(view)
        assert view.push.stats.written == 1
        await house.pass_time(5)
    assert await status_of(house, view) is PushStatus.COMPLETED
    running.cancel()


async def test_a_scheduled_push_may_be_cancelled_before(house, nodes, clock) -> None:
    await house.register("d-1")
    view = await house.push(send_at_ms=clock.now_ms() + 1_000)
    assert (await house.pushes.cancel(view.push.new.push_id)).push.status is PushStatus.CANCELED
    clock.advance(2)
    await house.schedule.look()
    assert await status_of(house, view) is PushStatus.CANCELED


async def test_a_scheduled_push_without_a_target_fails_and_says_why(house, clock) -> None:
    await house.register("d-1")
    gone = await house.push(Audience(upload="gone"), send_at_ms=clock.now_ms() + 1_000)
    nobody = await house.push(Audience(devices=("x",)), send_at_ms=clock.now_ms() + 1_000)
    clock.advance(2)
    await house.schedule.look()
    for view, reason in ((gone, "not-found"), (nobody, "no-target")):
        push = (await house.look(view)).push
        assert push.status is PushStatus.FAILED
        assert push.failure.startswith(f"{reason}: ")
    with pytest.raises(Refused) as refused:
        await house.pushes.withdraw(gone.push.new.push_id)
    assert refused.value.code is RefusalCode.STATE_CONFLICT


# Collapse, retry


async def test_a_later_push_of_the_same_collapse_key_takes_the_place_of_what_is_pending(house, nodes) -> None:
    numbers = await house.register("d-1", "d-2", "d-3")
    old = await house.push(collapse_key="score")
    await house.ack(old, numbers[0])
    new = await house.push(Audience(devices=("d-1", "d-2")), collapse_key="score")
    other = await house.push(collapse_key="weather")
    old = await house.look(old)
    assert (old.push.stats.acked, old.push.stats.collapsed, old.push.stats.pending) == (1, 1, 1)
    assert await in_state(house, old, RecipientState.COLLAPSED) == ["d-2"]
    assert (await house.look(new)).push.stats.pending == 2
    assert (await house.look(other)).push.stats.pending == 3


async def test_a_retry_goes_to_those_who_missed_it(house, nodes, clock) -> None:
    numbers = await house.register("d-1", "d-2", "d-3", "d-4")
    view = await house.push(ttl_s=60)
    await house.ack(view, numbers[0])
    push_id = view.push.new.push_id
    with pytest.raises(Refused) as refused:
        await house.pushes.retry(push_id, frozenset({RecipientState.EXPIRED}), no_answer)
    assert refused.value.code is RefusalCode.STATE_CONFLICT
    await house.accounts.delete_device(numbers[3], clock.now_ms())
    clock.advance(61)
    await house.schedule.look()
    again = await house.pushes.retry(push_id, frozenset({RecipientState.EXPIRED, RecipientState.FAILED}), no_answer)
    assert again.push.stats.targeted == 2
    assert await in_state(house, again, RecipientState.PENDING) == ["d-2", "d-3"]
    assert again.push.new.audience.retry_of == prefixed("psh", push_id)
    assert again.push.new.push_id != push_id
    assert (again.push.new.message.payload, again.push.new.ttl_s) == (b"hello", 60)
    with pytest.raises(Refused) as refused:
        await house.pushes.retry(push_id, frozenset({RecipientState.FAILED}), no_answer)
    assert refused.value.code is RefusalCode.NO_TARGET
    for states in (frozenset(), frozenset({RecipientState.ACKED})):
        with pytest.raises(Refused) as refused:
            await house.pushes.retry(push_id, states, no_answer)
        assert refused.value.code is RefusalCode.INVALID_PARAMETER


# What is told


async def test_the_answer_that_is_kept_is_the_push_before_its_commit(house) -> None:
    await house.register("d-1", "d-2")
    made = []

    def answer(push, resolved) -> KeptAnswer:
        made.append(view_of(push, house.clock.now_ms()))
        assert (len(resolved.devices), resolved.unresolved, resolved.sample) == (1, 1, ("x",))
        return KeptAnswer("key", "k-1", bytes(32), 202, b"{}", house.clock.now_ms())

    order = PushOrder(Audience(devices=("d-1", "x")), "news", b"hello", rate_per_s=5, caller="key")
    view = await house.pushes.create(order, answer)
    assert made[0].push.new == view.push.new
    assert made[0].progress == view.progress
    assert made[0].push.stats == view.push.stats
    assert (view.push.new.unresolved, view.push.new.unresolved_sample, view.push.new.caller) == (1, ("x",), "key")
    with pytest.raises(AnsweredBefore) as before:
        await house.pushes.create(order, answer)
    assert before.value.kept.body == b"{}"
    pushes, _ = await house.pushes.page(0, 10, None)
    assert len(pushes) == 1


async def test_a_page_is_newest_first_and_says_where_to_go_on(house) -> None:
    await house.register("d-1")
    views = [await house.push() for _ in range(5)]
    first, after = await house.pushes.page(0, 3, None)
    assert [view.push.new.push_id for view in first] == [view.push.new.push_id for view in reversed(views[2:])]
    assert after is not None
    second, end = await house.pushes.page(after, 3, None)
    assert [view.push.new.push_id for view in second] == [view.push.new.push_id for view in reversed(views[:2])]
    assert end is None
    assert await house.pushes.page(0, 3, PushStatus.COMPLETED) == ([], None)


async def test_recipients_come_in_pages_and_deleted_ones_without_a_name(house, clock) -> None:
    numbers = await house.register(*(f"d-{n}" for n in range(5)))
    view = await house.push()
    await house.accounts.delete_device(numbers[2], clock.now_ms())
    push_id = view.push.new.push_id
    first, after = await house.pushes.recipients(push_id, RecipientState.PENDING, 0, 2)
    assert ([one.device_id for one in first], after) == (["d-0", "d-1"], numbers[1])
    second, end = await house.pushes.recipients(push_id, RecipientState.PENDING, after, 2)
    assert ([one.device_id for one in second], end) == (["d-3", "d-4"], None)
    assert await in_state(house, view, RecipientState.FAILED) == [None]


async def test_a_verdict_says_what_became_of_a_device(house, nodes, clock) -> None:
    numbers = await house.register("acked", "written", "away")
    view = await house.push(Audience(devices=("acked", "written", "away")), ttl_s=60)
    await house.register("stranger")
    await nodes.add("n1", *numbers[:2])
    async with house.worker():
        await house.dispatched(view)
    await house.ack(view, numbers[0])
    push_id = view.push.new.push_id

    async def verdict(device_id: str) -> str:
        detail = await house.pushes.recipient(push_id, device_id)
        assert [step.at_ms for step in detail.timeline] == sorted(step.at_ms for step in detail.timeline)
        return detail.verdict

    assert await verdict("acked") == "The device has it and acknowledged it."
    assert "has not acknowledged it yet" in await verdict("written")
    assert "is offline; it gets the push when it connects" in await verdict("away")
    assert "not in the audience" in await verdict("stranger")
    detail = await house.pushes.recipient(push_id, "stranger")
    assert (detail.in_audience, detail.state) == (False, None)
    clock.advance(61)
    await house.schedule.look()
    assert (
        await verdict("written")
        == "It was written to the device, which did not acknowledge it before its time to live was over."
    )
    assert await verdict("away") == "It was never written before its time to live was over."
    detail = await house.pushes.recipient(push_id, "away")
    assert [step.what for step in detail.timeline] == ["created", "started", "expires", "completed"]
    for unknown in (house.pushes.recipient(push_id, "nobody"), house.pushes.recipient(bytes(16), "acked")):
        with pytest.raises(Refused) as refused:
            await unknown
        assert refused.value.code is RefusalCode.NOT_FOUND


async def test_a_validation_counts_and_warns_and_keeps_nothing(house, nodes, clock) -> None:
    numbers = await house.register(*(f"d-{n}" for n in range(5)))
    await nodes.add("n1", *numbers[:2])
    await nodes.add("n2", numbers[2])
    await nodes.registry.leave("n2")
    found = await house.pushes.validate(PushOrder(Audience(devices=("d-0", "d-1", "d-2", "x")), "news", b"hello"))
    assert (found.targeted, found.online, found.payload_bytes) == (3, 2, 5)
    assert (found.unresolved, found.unresolved_sample, len(found.warnings)) == (1, ("x",), 1)
    slow = PushOrder(Audience(everyone=True), "news", b"", ttl_s=1, rate_per_s=1)
    assert (await house.pushes.validate(slow)).warnings == ("at 1 a second, 2 devices take longer than ttl_s 1",)
    nobody = PushOrder(Audience(devices=("d-4",)), "news", b"", ttl_s=0)
    assert (await house.pushes.validate(nobody)).warnings == ("ttl_s is 0 and nobody of the audience is online",)
    assert "the audience is empty" in (await house.pushes.validate(PushOrder(VIP, "news", b""))).warnings
    assert await house.pushes.page(0, 10, None) == ([], None)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"payload": bytes(4_097)}, RefusalCode.PAYLOAD_TOO_LARGE),
        ({"ttl_s": -1}, RefusalCode.TTL_OUT_OF_RANGE),
        ({"ttl_s": 864_001}, RefusalCode.TTL_OUT_OF_RANGE),
        ({"kind": ""}, RefusalCode.INVALID_PARAMETER),
        ({"kind": "k" * 65}, RefusalCode.INVALID_PARAMETER),
        ({"kind": "longwire.withdrawn"}, RefusalCode.INVALID_PARAMETER),
        ({"collapse_key": "k" * 256}, RefusalCode.INVALID_PARAMETER),
        ({"rate_per_s": 0}, RefusalCode.INVALID_PARAMETER),
        ({"rate_per_s": 1_000_001}, RefusalCode.INVALID_PARAMETER),
        ({"send_at_ms": -1_001}, RefusalCode.SCHEDULE_IN_PAST),
        ({"send_at_ms": 30 * 86_400_000 + 1}, RefusalCode.INVALID_PARAMETER),
        ({"audience": Audience()}, RefusalCode.INVALID_PARAMETER),
        ({"audience": Audience(), "send_at_ms": 1_000}, RefusalCode.INVALID_PARAMETER),
        ({"audience": Audience(devices=("x",))}, RefusalCode.NO_TARGET),
        ({"audience": Audience(upload="x")}, RefusalCode.NOT_FOUND),
    ],
)
async def test_what_cannot_be_is_refused_before_anything_is_kept(house, options, code) -> None:
    await house.register("d-1")
    wanted: dict[str, object] = {"audience": Audience(everyone=True), "kind": "news", "payload": b"", **options}
    if "send_at_ms" in options:
        wanted["send_at_ms"] = house.clock.now_ms() + options["send_at_ms"]
    with pytest.raises(Refused) as refused:
        await house.pushes.create(PushOrder(**wanted), no_answer)  # type: ignore[arg-type]
    assert refused.value.code is code
    assert await house.pushes.page(0, 10, None) == ([], None)


async def test_the_first_push_above_the_bound_of_live_ones_is_refused_as_overload(tmp_path, clock, nodes) -> None:
    async with push_house(tmp_path, clock, nodes, Limits(max_live_pushes=2)) as house:
        await house.register("d-1")
        for _ in range(2):
            await house.push()
        with pytest.raises(Refused) as refused:
            await house.push()
        assert refused.value.code is RefusalCode.OVERLOADED


async def test_an_unknown_push_is_not_found(house) -> None:
    for call in (house.pushes.find, house.pushes.cancel, house.pushes.withdraw, house.pushes.pause):
        with pytest.raises(Refused) as refused:
            await call(bytes(16))
        assert refused.value.code is RefusalCode.NOT_FOUND


async def test_a_notice_of_withdrawal_waits_for_no_device_that_is_gone(house, nodes) -> None:
    numbers = await house.register("d-1", "d-2", "d-3")
    await nodes.add("n1", *numbers)
    view = await house.push()
    async with house.worker():
        view = await house.dispatched(view)
        await house.ack(view, numbers[0])
        await house.accounts.delete_device(numbers[0], house.clock.now_ms())
        await house.pushes.withdraw(view.push.new.push_id)

        async def told() -> bool:
            return len(nodes.writes) == 2

        await house.until(told)
        assert nodes.writes[1].order.receivers == BitMap(numbers[1:])
        # One that is deleted later fails there as everywhere; the one that remains is what it waits for.
        await house.accounts.delete_device(numbers[1], house.clock.now_ms())
        notice = nodes.writes[1].order.push_no
        found = await house.store.in_state(notice, RecipientState.PENDING, house.clock.now_ms())
        assert found == BitMap(numbers[2:])


async def test_those_for_whom_it_failed_are_sent_it_again(house, nodes) -> None:
    numbers = await house.register("d-1", "d-2", "d-3")
    await nodes.add("n1", *numbers)
    nodes.faults["n1"] = StoreUnavailable("no route to host")
    async with house.worker():
        view = await house.push()
        async with asyncio.timeout(HANG_GUARD_S):
            while (view := await house.look(view)).push.status is not PushStatus.COMPLETED:
                await house.pass_time(60, 10.0)
        assert await in_state(house, view, RecipientState.FAILED) == ["d-1", "d-2", "d-3"]
        told, _ = await house.pushes.recipients(view.push.new.push_id, RecipientState.FAILED, 0, 10)
        assert {recipient.reason for recipient in told} == {"link-failed"}
        del nodes.faults["n1"]
        states = frozenset({RecipientState.FAILED})
        again = await house.pushes.retry(view.push.new.push_id, states, no_answer)
        again = await house.dispatched(again)
    assert (again.push.stats.targeted, again.push.stats.written) == (3, 3)
    assert nodes.written == BitMap(numbers)
