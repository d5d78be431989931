"""SEND to group: members only, never back to the sender; small groups, large ones, and without a receipt."""

import asyncio

import pytest

from longwire.ids import new_message_id
from longwire.model import APPLICATION_NO, Envelope
from longwire.push_model import Members
from longwire.reasons import Status
from longwire.wire.packets import Send


async def members(house, flavour: str, *names: str, users: tuple[str, ...] = ()):
    await house.group("g", *names, users=users)
    return [await house.device(name, flavour) for name in names]


async def test_a_small_group_gets_inbox_rows(house, flavour) -> None:
    a, b, c = await members(house, flavour, "a", "b", "c")
    await house.group("h", "away")
    await house.sets.change_members("g", *_adding(house, "away"), house.clock.now_ms())
    house.clock.advance(2)
    assert (await a.tell("group:g", b'"hi"')).status == 0
    for peer in (b, c):
        frame = await peer.push()
        assert (frame.packet.sender, frame.packet.to, frame.packet.payload) == ("device:a", "group:g", b'"hi"')
        assert frame.correlation % 2 == 0
        peer.ack(frame.correlation)
        await peer.ping()
    await house.settled()
    assert len(await house.inbox("away")) == 1
    assert await house.count("pushes") == 0
    await house.hears_nothing(a)


def _adding(house, name: str):
    return Members((house.no_of(name),)), Members()


async def test_a_repeat_is_a_duplicate(house) -> None:
    a, b = await members(house, "native", "a", "b")
    message_id = new_message_id()
    assert (await a.tell("group:g", message_id=message_id)).status == 0
    assert (await a.tell("group:g", message_id=message_id)).status == 1
    await b.push()
    await house.hears_nothing(b)


async def test_a_large_group_is_stored_once_and_acknowledged_by_bits(houses, flavour) -> None:
    house = await houses(small_group=2).start()
    a, b, c = await members(house, flavour, "a", "b", "c")
    await house.register("away")
    await house.sets.change_members("g", *_adding(house, "away"), house.clock.now_ms())
    message_id = new_message_id()
    assert (await a.tell("group:g", b'"hi"', message_id=message_id, collapse_key="k")).status == 0
    assert (await a.tell("group:g", b'"hi"', message_id=message_id)).status == 1
    assert await house.count("pushes") == 1
    assert await house.count("inbox") == 0
    await house.dispatch()
    for peer in (b, c):
        frame = await peer.push()
        assert frame.packet.message_id == message_id
        assert (frame.packet.sender, frame.packet.to, frame.packet.collapse_key) == ("device:a", "group:g", "k")
        assert frame.correlation % 2 == 1
    away = await house.device("away", flavour)
    assert (await away.push()).packet.message_id == message_id
    await house.hears_nothing(a)


async def test_without_a_receipt_it_goes_to_those_online_and_is_not_stored(house, flavour) -> None:
    a, b, c = await members(house, flavour, "a", "b", "c")
    for n in range(5):
        a.relay("group:g", b"%d" % n)
    for peer in (b, c):
        frames = await peer.pushes(5)
        assert [frame.packet.payload for frame in frames] == [b"%d" % n for n in range(5)]
        assert not any(frame.wants_receipt for frame in frames)
    await house.hears_nothing(a)
    assert await house.count("messages") == 0


async def test_a_user_is_a_member_with_every_device(house) -> None:
    await house.register("u-1", "u-2", user="eve")
    await house.register("a")
    await house.group("g", "a", users=("eve",))
    a, one, two = [await house.device(name) for name in ("a", "u-1", "u-2")]
    assert (await one.tell("group:g")).status == 0
    await a.push()
    await two.push()
    await house.hears_nothing(one)


@pytest.mark.parametrize("receipt", [True, False])
async def test_who_is_not_a_member_may_not_write(house, flavour, receipt) -> None:
    (a,) = await members(house, flavour, "a")
    stranger = await house.device("x", flavour)
    if receipt:
        assert (await stranger.tell("group:g")).status == 11
    else:
        stranger.relay("group:g")
        await house.hears_nothing(stranger)
    await house.hears_nothing(a)
    assert house.node.counters.refused[Status.NOT_PERMITTED.label] == 1


async def test_membership_is_believed_for_a_second(house) -> None:
    a, _b = await members(house, "native", "a", "b")
    assert (await a.tell("group:g")).status == 0
    add, none = _adding(house, "a")
    await house.sets.change_members("g", none, add, house.clock.now_ms())
    house.clock.advance(1.1)
    assert (await a.tell("group:g")).status == 11
    await house.sets.delete_group("g")
    house.clock.advance(1.1)
    assert (await a.tell("group:g")).status == 10


async def test_order_holds_while_the_group_is_looked_up(house) -> None:
    a, b = await members(house, "native", "a", "b")
    for n in range(50):
        if n % 7 == 0:
            house.clock.advance(1.5)
        a.send(Send(new_message_id(), "group:g" if n % 2 else "device:b", "chat", b"%d" % n), n, receipt=True)
    frames = await b.pushes(50)
    assert [frame.packet.payload for frame in frames] == [b"%d" % n for n in range(50)]


async def test_a_time_to_live_of_0_reaches_who_is_online(houses) -> None:
    house = await houses(small_group=1).start()
    a, b, _ = await members(house, "native", "a", "b", "c")
    await house.group("small", "a", "b")
    assert (await a.tell("group:small", ttl_s=0)).status == 0
    assert not (await b.push()).wants_receipt
    assert (await a.tell("group:g", ttl_s=0)).status == 0
    await house.dispatch()
    assert (await b.push()).wants_receipt
    late = await house.device("d")
    await house.hears_nothing(late)


async def test_a_message_of_the_application_can_wait_for_its_acknowledgements(house) -> None:
    await house.register("away")
    peer = await house.device("d-1")
    numbers = (house.no_of("d-1"), house.no_of("away"))

    def envelope(receivers):
        now_ms = house.clock.now_ms()
        return Envelope(APPLICATION_NO, "", new_message_id(), "", "chat", b"1", "", now_ms, now_ms + 60_000, receivers)

    sending = asyncio.ensure_future(house.node.send(envelope(numbers[:1]), wait_ack_s=10))
    peer.ack((await peer.push()).correlation)
    sent = await sending
    assert (sent.status, sent.delivered_to, sent.queued_for, sent.acked_by) == (0, numbers[:1], (), numbers[:1])
    sending = asyncio.ensure_future(house.node.send(envelope(numbers), wait_ack_s=0.2))
    peer.ack((await peer.push()).correlation)
    sent = await sending
    assert (sent.delivered_to, sent.queued_for, sent.acked_by) == (numbers[:1], numbers[1:], numbers[:1])
    assert not house.node._delivery._awaited
    sent = await house.node.send(envelope(numbers[1:]))
    assert (sent.delivered_to, sent.queued_for, sent.acked_by) == ((), numbers[1:], ())
