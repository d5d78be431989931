"""One to one: who is meant, what is committed, and what the caller is told."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from push_fakes import Nodes
from push_house import PushHouse, push_house
from push_sets import MemorySets
from pyroaring import BitMap

from longwire.accounts.refusals import RefusalCode
from longwire.app.services import HandlerServices
from longwire.application import Context, SendRefused
from longwire.errors import StoreUnavailable
from longwire.ids import new_message_id
from longwire.limits import Limits
from longwire.push.messages import MAX_BATCH, Messages, Sent, Wanted
from longwire.push_model import Members
from longwire.reasons import Status
from longwire.testing import ManualClock

SMALL = 3


@pytest.fixture
async def house(tmp_path: Path, clock: ManualClock, nodes: Nodes) -> AsyncIterator[PushHouse]:
    async with push_house(tmp_path, clock, nodes, Limits(small_group=SMALL)) as house:
        yield house


def wanted(to: str, payload: bytes = b"hi", **more: object) -> Wanted:
    return Wanted(to, "chat", payload, new_message_id(), **more)  # type: ignore[arg-type]


async def send(house: PushHouse, to: str, **more: object) -> Sent:
    return await house.messages.send(to, "chat", b"hi", message_id=new_message_id(), **more)  # type: ignore[arg-type]


async def group_of(house: PushHouse, group_id: str, devices: list[int], *users: str) -> None:
    now_ms = house.clock.now_ms()
    await house.sets.add_group(group_id, "", now_ms)
    await house.sets.change_members(group_id, Members(tuple(devices), users), Members(), now_ms)


async def test_a_device_gets_it_and_the_caller_learns_whether_it_is_there(house, nodes, clock) -> None:
    (number, _) = await house.register("d-1", "d-2")
    await nodes.add("n1", number)
    sent = await send(house, "device:d-1", trace=b"t" * 24, collapse_key="k")
    assert (sent.status, sent.delivered_to, sent.queued_for, sent.is_acked) == (Status.OK, ("d-1",), (), None)
    assert sent.refusal is None
    (envelope, wait_s) = nodes.sent[0]
    assert (envelope.sender_no, envelope.sender, envelope.to, envelope.receivers) == (0, "", "", (number,))
    assert (envelope.message_id, envelope.collapse_key, envelope.trace) == (sent.message_id, "k", b"t" * 24)
    assert (envelope.sent_at_ms, envelope.expires_at_ms) == (clock.now_ms(), clock.now_ms() + 86_400_000)
    assert wait_s == 0
    sent = await send(house, "device:d-2", ttl_s=0)
    assert (sent.delivered_to, sent.queued_for) == ((), ("d-2",))
    assert nodes.sent[1][0].expires_at_ms == clock.now_ms()


async def test_a_user_and_a_small_group_get_it_on_every_device(house, nodes) -> None:
    first = await house.register("a-1", "a-2", user="ann")
    (other,) = await house.register("b-1")
    await nodes.add("n1", first[1], other)
    sent = await send(house, "user:ann")
    assert (sent.delivered_to, sent.queued_for) == (("a-2",), ("a-1",))
    await group_of(house, "team", [other], "ann")
    sent = await send(house, "group:team")
    assert (sent.delivered_to, sent.queued_for) == (("a-2", "b-1"), ("a-1",))
    assert [envelope.to for envelope, _ in nodes.sent] == ["user:ann", "group:team"]


async def test_a_large_group_gets_a_push_and_a_repeat_of_it_is_known(house, nodes) -> None:
    numbers = await house.register(*(f"d-{n}" for n in range(SMALL + 1)))
    await nodes.add("n1", *numbers)
    await group_of(house, "all", numbers)
    message = wanted("group:all", ttl_s=60)
    assert await house.messages.status(message) is Status.OK
    assert await house.messages.status(message) is Status.DUPLICATE
    assert nodes.sent == []
    (view,), _ = await house.pushes.page(0, 10, None)
    assert view.push.new.audience.sent_to_group == "all"
    async with house.worker():
        view = await house.dispatched(view)
    (write,) = nodes.writes
    assert (write.order.message.to, write.order.message.message_id) == ("group:all", message.message_id)
    assert write.order.receivers == BitMap(numbers)


async def test_waiting_says_whether_every_receiver_acknowledged(house, nodes) -> None:
    numbers = await house.register("a-1", "a-2", user="ann")
    await nodes.add("n1", *numbers)
    nodes.acking = set(numbers)
    assert (await send(house, "user:ann", wait_ack_s=0.5)).is_acked is True
    assert nodes.sent[0][1] == 0.5
    nodes.acking = {numbers[0]}
    assert (await send(house, "user:ann", wait_ack_s=0.5)).is_acked is False


async def test_a_repeat_is_told_as_accepted(house, nodes) -> None:
    await house.register("d-1")
    message_id = new_message_id()
    for status in (Status.OK, Status.DUPLICATE):
        sent = await house.messages.send("device:d-1", "chat", b"", message_id=message_id)
        assert (sent.message_id, sent.status, sent.refusal) == (message_id, status, None)


@pytest.mark.parametrize(
    ("message", "status", "code"),
    [
        (wanted("device:x"), Status.UNKNOWN_TARGET, RefusalCode.NOT_FOUND),
        (wanted("user:x"), Status.UNKNOWN_TARGET, RefusalCode.NOT_FOUND),
        (wanted("group:x"), Status.UNKNOWN_TARGET, RefusalCode.NOT_FOUND),
        (wanted("topic:x"), Status.UNSUPPORTED, RefusalCode.INVALID_PARAMETER),
        (wanted("x"), Status.BAD_REQUEST, RefusalCode.INVALID_PARAMETER),
        (wanted("device:a b"), Status.BAD_REQUEST, RefusalCode.INVALID_PARAMETER),
        (wanted("device:d-1", bytes(61_441)), Status.TOO_LARGE, RefusalCode.PAYLOAD_TOO_LARGE),
        (wanted("device:d-1", ttl_s=864_001), Status.BAD_REQUEST, RefusalCode.INVALID_PARAMETER),
        (wanted("device:d-1", ttl_s=-2), Status.BAD_REQUEST, RefusalCode.INVALID_PARAMETER),
        (wanted("device:d-1", collapse_key="k" * 256), Status.BAD_REQUEST, RefusalCode.INVALID_PARAMETER),
        (Wanted("device:d-1", "", b"", bytes(16)), Status.BAD_REQUEST, RefusalCode.INVALID_PARAMETER),
        (Wanted("device:d-1", "chat", b"", b"short"), Status.BAD_REQUEST, RefusalCode.INVALID_PARAMETER),
    ],
)
async def test_what_cannot_be_sent_is_a_status_and_a_refusal(house, nodes, message, status, code) -> None:
    await house.register("d-1")
    (sent,) = await house.messages.send_many([message])
    assert (sent.status, sent.refusal and sent.refusal.code) == (status, code)
    assert sent.detail
    assert nodes.sent == []


@pytest.mark.parametrize(
    ("status", "code"),
    [(Status.OFFLINE, RefusalCode.DEVICE_OFFLINE), (Status.OVERLOADED, RefusalCode.OVERLOADED)],
)
async def test_what_the_link_refuses_is_told(house, nodes, status, code) -> None:
    await house.register("d-1")
    nodes.outcome = status
    refusal = (await send(house, "device:d-1")).refusal
    assert refusal is not None
    assert refusal.code is code
    assert (refusal.retry_after_s is not None) == (code is RefusalCode.OVERLOADED)


async def test_a_store_that_does_not_take_it_is_raised_for_one_and_told_in_a_batch(house, nodes) -> None:
    await house.register("d-1")
    nodes.outcome = Status.NOT_DURABLE
    with pytest.raises(StoreUnavailable):
        await send(house, "device:d-1")
    (sent,) = await house.messages.send_many([wanted("device:d-1")])
    assert sent.status is Status.NOT_DURABLE
    assert sent.refusal is not None
    assert await house.messages.status(wanted("device:d-1")) is Status.NOT_DURABLE


async def test_a_batch_gives_each_message_its_own_outcome(house, nodes) -> None:
    numbers = await house.register("d-1", "d-2", user="ann")
    await nodes.add("n1", numbers[0])
    batch = [wanted("device:d-1"), wanted("device:x"), wanted("user:ann"), wanted("bad"), wanted("device:d-2")]
    found = await house.messages.send_many([*batch, batch[0]])
    assert [sent.message_id for sent in found] == [message.message_id for message in [*batch, batch[0]]]
    assert [sent.status for sent in found] == [
        Status.OK,
        Status.UNKNOWN_TARGET,
        Status.OK,
        Status.BAD_REQUEST,
        Status.OK,
        Status.DUPLICATE,
    ]
    assert [sent.delivered_to for sent in found] == [("d-1",), (), ("d-1",), (), (), ()]
    assert [sent.queued_for for sent in found] == [(), (), ("d-2",), (), ("d-2",), ()]
    assert await house.messages.send_many([]) == []
    with pytest.raises(ValueError, match="501 messages in one batch; at most 500"):
        await house.messages.send_many([batch[0]] * (MAX_BATCH + 1))


async def test_handlers_send_to_devices_users_and_groups_and_look_devices_up(house, nodes) -> None:
    numbers = await house.register("d-1", "d-2", user="ann")
    await group_of(house, "team", numbers)
    services = HandlerServices(house.accounts, house.messages)
    context = Context(kind="k", device_id="d-1", device_no=1, sent_at_ms=1, services=services)
    for to in ("device:d-1", "user:ann", "group:team"):
        assert await context.push(to, "chat", "hi") is Status.OK
    with pytest.raises(SendRefused):
        await context.push("group:nobody", "chat", "hi")
    assert [envelope.receivers for envelope, _ in nodes.sent] == [(1,), (1, 2), (1, 2)]
    assert (await context.device()).user == "ann"


async def test_a_batch_looks_its_names_up_in_one_read_and_is_committed_in_one_turn(nodes, clock) -> None:
    sets = MemorySets(devices={f"d-{n}": n for n in range(1, 401)}, users={"ann": BitMap([1, 2])})
    messages = Messages(None, sets, None, nodes, clock, Limits())  # type: ignore[arg-type]
    batch = [wanted(f"device:d-{1 + n % 400}") for n in range(MAX_BATCH)]
    found = await messages.send_many(batch)
    assert {sent.status for sent in found} == {Status.OK}
    assert len(sets.reads) == 1
    assert [envelope.message_id for envelope, _ in nodes.sent] == [message.message_id for message in batch]


async def test_callers_who_ask_at_once_share_their_reads(nodes, clock) -> None:
    sets = MemorySets(devices={"d-1": 1, "d-2": 2})
    messages = Messages(None, sets, None, nodes, clock, Limits())  # type: ignore[arg-type]
    found = await asyncio.gather(*(messages.status(wanted(f"device:d-{1 + n % 3}")) for n in range(50)))
    assert found.count(Status.UNKNOWN_TARGET) == 16
    assert sets.reads == [("devices", ("d-1", "d-2", "d-3"))]


async def test_a_read_that_fails_is_told_to_each_who_asked_and_the_next_goes_on(nodes, clock) -> None:
    sets = MemorySets(devices={"d-1": 1})
    messages = Messages(None, sets, None, nodes, clock, Limits())  # type: ignore[arg-type]
    numbers_of, is_away = sets.numbers_of, True

    async def away(names):
        if is_away:
            raise StoreUnavailable("away")
        return await numbers_of(names)

    messages._numbers._read = away
    for outcome in await asyncio.gather(
        *(messages.status(wanted("device:d-1")) for _ in range(3)), return_exceptions=True
    ):
        assert isinstance(outcome, StoreUnavailable)
    (sent,) = await messages.send_many([wanted("device:d-1")])
    assert sent.status is Status.NOT_DURABLE
    is_away = False
    assert await messages.status(wanted("device:d-1")) is Status.OK


async def test_a_caller_who_gives_up_takes_nobody_with_him(nodes, clock) -> None:
    sets = MemorySets(devices={"d-1": 1})
    messages = Messages(None, sets, None, nodes, clock, Limits())  # type: ignore[arg-type]
    first, second = (asyncio.create_task(messages.status(wanted("device:d-1"))) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second is Status.OK
