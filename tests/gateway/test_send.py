"""SEND: every status, what is remembered, where it goes, and in which order (PROTOCOL §2, §3)."""

import asyncio

import pytest
from raw_peer import JSON, NATIVE, Peer

from longwire.adapters.sql.accounts import SqlAccounts
from longwire.adapters.sql.messages import SqlMessageStore
from longwire.application import Reject, SendRefused
from longwire.errors import StoreUnavailable
from longwire.ids import new_message_id
from longwire.model import Committed, Envelope
from longwire.reasons import CloseCode, Status
from longwire.wire.packets import Push, Request, Send, Sent

TRACE = bytes(range(1, 25))
UNUSED_ID = bytes(16)


class HeldMessages(SqlMessageStore):
    """Holds commits back until it is let go on, and says no where it is told to."""

    def __init__(self, database, clock, max_inbox) -> None:
        super().__init__(database, clock, max_inbox)
        self.is_held = False
        self.is_full = False
        self.held: list[tuple[Envelope, object]] = []

    def commit(self, envelope, done) -> None:
        if self.is_full:
            done(envelope, Committed(Status.NOT_DURABLE))
        elif self.is_held:
            self.held.append((envelope, done))
        else:
            super().commit(envelope, done)

    def go_on(self) -> None:
        self.is_held = False
        for envelope, done in self.held:
            super().commit(envelope, done)
        self.held.clear()


class SlowAccounts(SqlAccounts):
    """Finds devices and users when it is let go on."""

    def __init__(self, database) -> None:
        super().__init__(database)
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.is_away = False

    async def find_devices(self, device_ids):
        await self.go_on.wait()
        if self.is_away:
            raise StoreUnavailable("away")
        return await super().find_devices(device_ids)

    async def devices_of_users(self, users):
        await self.go_on.wait()
        if self.is_away:
            raise StoreUnavailable("away")
        return await super().devices_of_users(users)


async def held_house(houses, **limits):
    house = houses(**limits)
    house.messages = HeldMessages(house.database, house.clock, house.limits.max_inbox)
    slow = SlowAccounts(house.database)
    house.with_engines(messages=house.messages, accounts=slow)
    await house.start()
    return house, slow


# Durable


async def test_a_message_with_a_receipt_is_confirmed_and_comes_whole(house, flavour) -> None:
    receiver = await house.device("d-2", flavour)
    sender = await house.device("d-1", flavour)
    message_id = new_message_id()
    sent = await sender.tell("device:d-2", b'{"x":1}', message_id=message_id, collapse_key="k", trace=TRACE)
    assert (sent.status, sent.detail, sent.retry_after_ms) == (0, "", 0)
    frame = await receiver.push()
    assert frame.wants_receipt
    assert frame.correlation != 0
    assert frame.trace[:16] == TRACE[:16]
    assert frame.trace[16:] != TRACE[16:], "the caller's span is replaced"
    assert frame.packet == Push(message_id, "chat", "device:d-1", b'{"x":1}', house.clock.now_ms(), "k", "")


async def test_any_bytes_travel_between_flavours(house) -> None:
    receivers = [await house.device(f"r-{kind}", kind) for kind in ("native", "binary", "json")]
    senders = [await house.device(f"s-{kind}", kind) for kind in ("native", "binary", "json")]
    for sender in senders:
        for payload in (b"", b"\0\xff\xfe", b'{"a":[1,2]}', b"plain", "é".encode()):
            for receiver, name in zip(receivers, ("native", "binary", "json"), strict=True):
                assert (await sender.tell(f"device:r-{name}", payload)).status == 0
                assert (await receiver.push()).packet.payload == payload


async def test_a_message_to_a_device_that_is_away_waits_for_it(house, flavour) -> None:
    await house.register("d-2")
    sender = await house.device("d-1", flavour)
    assert (await sender.tell("device:d-2")).status == 0
    receiver = await house.device("d-2", flavour)
    assert (await receiver.push()).packet.sender == "device:d-1"


async def test_the_same_message_again_is_a_duplicate_and_comes_once(house, flavour) -> None:
    receiver = await house.device("d-2", flavour)
    sender = await house.device("d-1", flavour)
    message_id = new_message_id()
    statuses = [(await sender.tell("device:d-2", message_id=message_id)).status for _ in range(3)]
    assert statuses == [0, 1, 1]
    await receiver.push()
    await house.hears_nothing(receiver)


async def test_a_duplicate_is_known_over_connections_and_after_the_ack(house) -> None:
    receiver = await house.device("d-2")
    message_id = new_message_id()
    assert (await (await house.device("d-1")).tell("device:d-2", message_id=message_id)).status == 0
    receiver.ack((await receiver.push()).correlation)
    await house.until(lambda: house.node.counters.acks == 1)
    await house.settled()
    assert await house.inbox("d-2") == []
    await house.pass_time(30)
    for _ in range(2):
        sender = await house.device("d-1")
        assert (await sender.tell("device:d-2", message_id=message_id)).status == 1
    await house.hears_nothing(receiver)


async def test_two_senders_may_use_the_same_id(house) -> None:
    receiver = await house.device("d-3")
    for name in ("d-1", "d-2"):
        assert (await (await house.device(name)).tell("device:d-3", message_id=UNUSED_ID)).status == 0
        assert (await receiver.push()).packet.sender == f"device:{name}"


async def test_a_repeat_while_the_first_is_being_committed_waits_for_its_outcome(houses) -> None:
    house, _ = await held_house(houses)
    receiver = await house.device("d-2")
    sender = await house.device("d-1")
    message_id = new_message_id()
    house.messages.is_held = True
    packet = Send(message_id, "device:d-2", "chat", b"1")
    sender.send(packet, 1, receipt=True)
    sender.send(packet, 2, receipt=True)
    await house.until(lambda: len(house.messages.held) == 2)
    again = await house.device("d-1")
    again.send(packet, 3, receipt=True)
    await house.until(lambda: len(house.messages.held) == 3)
    await again.ping()
    assert not again.frames
    house.messages.go_on()
    assert (await again.get(Sent, 3)).status == 1
    await receiver.push()
    await house.hears_nothing(receiver, again)


async def test_a_refused_message_is_not_remembered(houses) -> None:
    house, _ = await held_house(houses)
    receiver = await house.device("d-2")
    sender = await house.device("d-1")
    message_id = new_message_id()
    house.messages.is_full = True
    sent = await sender.tell("device:d-2", message_id=message_id)
    assert sent.status == Status.NOT_DURABLE
    assert sent.retry_after_ms > 0
    await house.hears_nothing(receiver)
    house.messages.is_full = False
    assert (await sender.tell("device:d-2", message_id=message_id)).status == 0
    await receiver.push()


async def test_too_much_that_waits_for_the_store_is_overloaded(houses) -> None:
    house, _ = await held_house(houses, max_commit_queue_bytes=10_000)
    await house.register("d-2")
    sender = await house.device("d-1")
    for correlation in range(3):
        packet = Send(new_message_id(), "device:d-2", "chat", b"x" * 9_700)
        sender.send(packet, correlation, receipt=True)
        sender.send(Send(new_message_id(), "", "k", b"x" * 9_700), 100 + correlation, receipt=True)
    answers = {}
    for _ in range(6):
        frame = await sender.next()
        answers[frame.correlation] = frame.packet
    statuses = [answers[n].status for n in sorted(answers)]
    assert statuses.count(0) >= 1
    assert statuses.count(14) >= 1
    assert all(a.retry_after_ms > 0 for a in answers.values() if a.status == 14)
    assert (await sender.tell("device:d-2")).status == 0


@pytest.mark.parametrize("target", ["device:nobody", "user:nobody"])
async def test_a_target_that_is_not_registered_is_unknown(house, flavour, target) -> None:
    sender = await house.device("d-1", flavour)
    for _ in range(2):
        assert (await sender.tell(target)).status == Status.UNKNOWN_TARGET
    sender.relay(target)
    await house.hears_nothing(sender)


async def test_a_store_that_cannot_be_asked_for_a_target_is_not_durable(houses) -> None:
    house, slow = await held_house(houses)
    await house.register("d-2")
    sender = await house.device("d-1")
    slow.is_away = True
    for target in ("device:d-2", "user:u"):
        sent = await sender.tell(target)
        assert sent.status == Status.NOT_DURABLE
        assert sent.retry_after_ms > 0


@pytest.mark.parametrize(
    ("to", "status"),
    [
        ("group:g", 10),
        ("group:a b", 16),
        ("topic:t", 15),
        ("group:", 16),
        ("topic:", 16),
        ("device:", 16),
        ("device:a b", 16),
        ("device:" + "x" * 65, 16),
        ("user:", 16),
        ("user:" + "é", 16),
        ("nonsense", 16),
        ("nobody:x", 16),
        (":", 16),
        ("DEVICE:d-1", 16),
    ],
)
@pytest.mark.parametrize("receipt", [True, False])
async def test_where_it_cannot_go_is_told(house, flavour, to, status, receipt) -> None:
    sender = await house.device("d-1", flavour)
    if receipt:
        assert (await sender.tell(to)).status == status
    else:
        sender.relay(to)
        await house.hears_nothing(sender)
    assert house.node.counters.refused[Status(status).label] == 1


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"message_id": b"x" * 15}, 16),
        ({"message_id": b""}, 16),
        ({"kind": ""}, 16),
        ({"kind": "k" * 65}, 16),
        ({"ttl_s": -2}, 16),
        ({"ttl_s": 864_001}, 16),
        ({"ttl_s": 1 << 40}, 16),
        ({"collapse_key": "k" * 256}, 16),
        ({"collapse_key": "k\0"}, 16),
        ({"kind": "k\0"}, 16),
        ({"payload": b"1" * 61_441}, 12),
    ],
)
async def test_what_is_impossible_about_a_send_is_told_and_closes_nothing(house, changed, status) -> None:
    sender = await house.device("d-1")
    fields = {"message_id": new_message_id(), "to": "device:d-1", "kind": "k", "payload": b""} | changed
    sender.send(Send(**fields), 5, receipt=True)
    sent = await sender.get(Sent, 5)
    assert sent.status == status
    if status == 12:
        assert "61441" in sent.detail
        assert "61440" in sent.detail
    sender.send(Send(**fields), 5)
    await sender.ping()
    assert not sender.frames


async def test_the_largest_of_everything_is_taken(house) -> None:
    name = "x" * 64
    sender = await house.device(name)
    sent = await sender.tell(
        f"device:{name}", b"p" * 61_440, kind="é" * 64, ttl_s=864_000, collapse_key="ü" * 255, trace=TRACE
    )
    assert sent.status == 0
    assert (await sender.push()).packet.payload == b"p" * 61_440


async def test_a_message_id_in_json_that_is_no_uuid_is_a_bad_request(house) -> None:
    from longwire.wire.websocket import Opcode, encode

    sender = await house.device("d-1", JSON)
    text = b'{"cmd":"SEND","id":5,"receipt":true,"message_id":"x","to":"","kind":"k","payload":1}'
    sender.raw(encode(Opcode.TEXT, text, b"abcd"))
    assert (await sender.get(Sent, 5)).status == 16


async def test_a_correlation_id_of_0_is_answered_too(house, flavour) -> None:
    sender = await house.device("d-1", flavour)
    sender.send(Send(new_message_id(), "device:d-1", "k", b"1"), 0, receipt=True)
    frames = [await sender.next(), await sender.next()]
    assert sorted(type(f.packet).__name__ for f in frames) == ["Push", "Sent"]
    assert [f.correlation for f in frames if isinstance(f.packet, Sent)] == [0]


# Without a receipt, and for now only


async def test_without_a_receipt_it_goes_to_who_is_online_and_nothing_is_answered(house, flavour) -> None:
    receiver = await house.device("d-2", flavour)
    sender = await house.device("d-1", flavour)
    message_id = new_message_id()
    for _ in range(2):  # not checked for duplicates
        sender.send(Send(message_id, "device:d-2", "chat", b"1", -1, "k"), 9, trace=TRACE)
        frame = await receiver.push()
        assert not frame.wants_receipt
        assert frame.trace[:16] == TRACE[:16]
        assert frame.packet == Push(message_id, "chat", "device:d-1", b"1", house.clock.now_ms(), "k", "")
    await house.hears_nothing(sender)
    assert await house.count("messages") == 0


async def test_without_a_receipt_it_does_not_wait_for_who_is_away(house) -> None:
    await house.register("d-2")
    sender = await house.device("d-1")
    sender.relay("device:d-2")
    await house.settled()
    await house.hears_nothing(await house.device("d-2"))


async def test_without_a_receipt_nothing_of_it_is_repeated(house) -> None:
    receiver = await house.device("d-2")
    sender = await house.device("d-1")
    sender.relay("device:d-2")
    frame = await receiver.push()
    await house.pass_time(31)
    receiver.ack(frame.correlation)  # wrong of it, and harmless
    await house.hears_nothing(receiver)
    assert house.node.counters.stray_acks == 1


async def test_a_ttl_of_0_reaches_who_is_online_once_and_is_never_stored(house, flavour) -> None:
    receiver = await house.device("d-2", flavour)
    sender = await house.device("d-1", flavour)
    message_id = new_message_id()
    assert (await sender.tell("device:d-2", message_id=message_id, ttl_s=0)).status == 0
    assert not (await receiver.push()).wants_receipt
    assert (await sender.tell("device:d-2", message_id=message_id, ttl_s=0)).status == 1
    assert (await (await house.device("d-1")).tell("device:d-2", message_id=message_id, ttl_s=0)).status == 1
    await house.hears_nothing(receiver)
    assert await house.count("messages") == 0


async def test_a_ttl_of_0_to_who_is_away_is_offline_and_not_remembered(house, flavour) -> None:
    await house.register("d-2")
    sender = await house.device("d-1", flavour)
    message_id = new_message_id()
    assert (await sender.tell("device:d-2", message_id=message_id, ttl_s=0)).status == Status.OFFLINE
    receiver = await house.device("d-2")
    assert (await sender.tell("device:d-2", message_id=message_id, ttl_s=0)).status == 0
    await receiver.push()


# A user's devices


async def test_a_users_message_reaches_all_devices_but_the_senders(house, flavour) -> None:
    await house.register("a-1", "a-2", "a-3", user="ann")
    one, two = await house.device("a-1", flavour), await house.device("a-2", flavour)
    assert (await one.tell("user:ann")).status == 0
    frame = await two.push()
    assert (frame.packet.sender, frame.packet.to) == ("device:a-1", "user:ann")
    three = await house.device("a-3", flavour)
    assert (await three.push()).packet.to == "user:ann"
    await house.hears_nothing(one)
    one.relay("user:ann", b"2")
    assert (await two.push()).packet.to == "user:ann"
    assert (await three.push()).packet.to == "user:ann"
    assert (await one.tell("user:ann", ttl_s=0)).status == 0
    await two.push()
    await house.hears_nothing(one)


async def test_a_message_to_a_user_whose_only_device_sends_it_is_accepted_and_goes_nowhere(house) -> None:
    await house.register("a-1", user="ann")
    one = await house.device("a-1")
    assert (await one.tell("user:ann")).status == 0
    await house.hears_nothing(one)


async def test_each_device_of_a_user_acknowledges_for_itself(house) -> None:
    await house.register("a-1", "a-2", user="ann")
    one, two = await house.device("a-1"), await house.device("a-2")
    sender = await house.device("d-1")
    assert (await sender.tell("user:ann")).status == 0
    one.ack((await one.push()).correlation)
    await two.push()
    await house.until(lambda: house.node.counters.acks == 1)
    await house.settled()
    assert await house.inbox("a-1") == []
    assert len(await house.inbox("a-2")) == 1


# Order


async def test_one_senders_messages_come_in_order_whatever_they_wait_for(houses) -> None:
    house, slow = await held_house(houses)
    await house.register("a-2", user="ann")
    receiver = await house.device("a-2")
    sender = await house.device("d-1")
    slow.go_on.clear()
    sender.send(Send(new_message_id(), "user:ann", "k", b"0"), 0, receipt=True)
    for n in range(1, 20):
        sender.send(Send(new_message_id(), "device:a-2", "k", b"%d" % n), n, receipt=True)
    await sender.ping()
    assert not sender.frames
    slow.go_on.set()
    assert [(await sender.next()).correlation for _ in range(20)] == list(range(20))
    assert [f.packet.payload for f in await receiver.pushes(20)] == [b"%d" % n for n in range(20)]


async def test_a_relay_does_not_overtake_one_that_still_asks_who_the_user_is(houses) -> None:
    house, slow = await held_house(houses)
    await house.register("a-2", user="ann")
    receiver = await house.device("a-2")
    sender = await house.device("d-1")
    slow.go_on.clear()
    sender.relay("user:ann", b"1")
    await sender.ping()
    sender.relay("device:a-2", b"2")
    await sender.ping()
    slow.go_on.set()
    assert [f.packet.payload for f in await receiver.pushes(2)] == [b"1", b"2"]


async def test_thousands_of_messages_in_one_go_come_each_once_and_in_order(houses) -> None:
    house = await houses(sends_per_s=1_000_000, send_burst=1_000_000, max_inbox=10_000).start()
    receiver = await house.device("d-2")
    senders = [await house.device(f"s-{n}") for n in range(4)]
    count = 1_500

    async def send_all(sender: Peer) -> list[int]:
        for start in range(0, count, 50):
            data = b""
            for n in range(start, start + 50):
                packet = Send(new_message_id(), "device:d-2", "chat", b"%d" % n)
                data += sender.encode(packet, n, receipt=True)
            sender.raw(data)
            await asyncio.sleep(0)
        statuses = []
        for n in range(count):
            frame = await sender.next()
            assert frame.correlation == n
            statuses.append(frame.packet.status)
        return statuses

    async def receive_all() -> dict[str, list[int]]:
        got: dict[str, list[int]] = {}
        for _ in range(count * 4):
            frame = await receiver.push()
            got.setdefault(frame.packet.sender, []).append(int(frame.packet.payload))
            receiver.ack(frame.correlation)
        return got

    got, *statuses = await asyncio.gather(receive_all(), *(send_all(sender) for sender in senders))
    assert [set(one) for one in statuses] == [{0}] * 4
    assert list(got.values()) == [list(range(count))] * 4
    await house.hears_nothing(receiver)
    await house.until(lambda: house.node.counters.acks == count * 4)
    await house.settled()
    assert await house.inbox("d-2") == []


async def test_a_session_that_closes_while_its_sends_wait_leaves_nothing_behind(houses) -> None:
    house, slow = await held_house(houses)
    await house.register("d-2")
    sender = await house.device("d-1")
    slow.go_on.clear()
    for n in range(5):
        sender.send(Send(new_message_id(), "device:d-2", "k", b"x" * 100), n, receipt=True)
    await sender.ping()
    await house.node.close_session(house.no_of("d-1"), CloseCode.KICKED, "")
    slow.go_on.set()
    await sender.ended()
    await house.settled()
    assert house.node._sending._waiting_bytes == 0


async def test_sends_that_wait_are_bounded_in_number_and_bytes(houses) -> None:
    house, slow = await held_house(houses, max_commit_queue_bytes=300_000)
    await house.register("d-2")
    sender = await house.device("d-1")
    slow.go_on.clear()
    for n in range(11):
        sender.send(Send(new_message_id(), "device:d-2", "k", b"x" * 50_000), n, receipt=True)
        await sender.ping()
    refused = [await sender.next() for _ in range(3)]
    assert [frame.packet.status for frame in refused] == [14] * 3
    assert [frame.correlation for frame in refused] == [8, 9, 10]
    slow.go_on.set()
    assert [(await sender.next()).packet.status in (0, 14) for _ in range(8)] == [True] * 8
    assert (await sender.tell("device:d-2")).status == 0


# Rate


async def test_over_the_rate_sends_are_answered_13_and_nothing_closes(houses, flavour) -> None:
    house = await houses(sends_per_s=10, send_burst=5).start()
    sender = await house.device("d-1", flavour)
    statuses = [await sender.tell("device:d-1", ttl_s=0) for _ in range(7)]
    pushes = [frame for frame in sender.frames if isinstance(frame.packet, Push)]
    assert [sent.status for sent in statuses] == [0] * 5 + [13] * 2
    assert len(pushes) == 5
    assert all(0 < sent.retry_after_ms <= 101 for sent in statuses[5:])
    sender.frames.clear()
    reply = await sender.call("nothing")
    assert reply.status == 13
    for _ in range(100):
        sender.relay("device:d-1")
    await sender.ping()
    assert not sender.frames
    house.clock.advance(statuses[-1].retry_after_ms / 1000)
    assert (await sender.tell("device:d-1", ttl_s=0)).status == 0
    assert (await sender.tell("device:d-1", ttl_s=0)).status == 13


async def test_pings_and_acks_are_not_rated(houses) -> None:
    house = await houses(sends_per_s=1, send_burst=1).start()
    peer = await house.device("d-1")
    for _ in range(100):
        await peer.ping()
    peer.ack(*range(100))
    assert (await peer.tell("device:d-1", ttl_s=0)).status == 0


# To the application


async def test_a_message_to_the_application_is_in_the_log_when_it_is_confirmed(house, flavour) -> None:
    sender = await house.device("d-1", flavour)
    message_id = new_message_id()
    assert (await sender.tell("", b'{"a":1}', kind="hello", message_id=message_id, trace=TRACE)).status == 0
    (record,) = await house.uplink.read("sink", 10)
    assert (record.device_id, record.kind, record.payload) == ("d-1", "hello", b'{"a":1}')
    assert (record.device_no, record.message_id, record.trace[:16]) == (house.no_of("d-1"), message_id, TRACE[:16])
    assert (await sender.tell("", kind="hello", message_id=message_id)).status == 1
    sender.relay("", b"9")
    await house.settled()
    assert [r.payload for r in await house.uplink.read("other", 10)] == [b'{"a":1}', b"9"]


async def test_kinds_that_are_not_durable_run_in_place_and_sent_says_how_it_went(houses, app, flavour) -> None:
    ran = []

    @app.uplink("now", durable=False)
    async def now(payload: bytes, ctx) -> None:
        ran.append((ctx.device_id, ctx.message_id, ctx.user, ctx.trace_id, payload))
        if payload == b'"bad"':
            raise Reject("not this")
        if payload == b'"bug"':
            raise RuntimeError("secret")

    house = await houses().start()
    await house.register("d-1", user="ann")
    sender = await house.device("d-1", flavour)
    message_id = new_message_id()
    assert (await sender.tell("", b'"ok"', kind="now", message_id=message_id, trace=TRACE)).status == 0
    assert ran == [("d-1", message_id, "ann", TRACE[:16].hex(), b'"ok"')]
    rejected = await sender.tell("", b'"bad"', kind="now")
    assert (rejected.status, rejected.detail) == (16, "not this")
    failed = await sender.tell("", b'"bug"', kind="now")
    assert failed.status == 17
    assert "secret" not in failed.detail
    sender.send(Send(new_message_id(), "", "now", b'"bug"'), 5)
    await house.hears_nothing(sender)
    assert await house.count("uplink") == 0


async def test_a_handler_in_place_that_takes_too_long_is_a_timeout(houses, app) -> None:
    @app.uplink("slow", durable=False, timeout_s=0.01)
    async def slow(payload: bytes) -> None:
        await asyncio.sleep(60)

    house = await houses().start()
    sender = await house.device("d-1")
    assert (await sender.tell("", kind="slow")).status == Status.TIMEOUT


async def test_handlers_in_place_are_bounded_for_a_session_and_for_the_node(houses, app) -> None:
    go_on = asyncio.Event()

    @app.uplink("slow", durable=False)
    async def slow(payload: bytes) -> None:
        await go_on.wait()

    @app.request("slow")
    async def slow_too(payload: bytes) -> None:
        await go_on.wait()

    house = await houses(max_requests_per_session=2, max_requests=3).start()
    one, two = await house.device("d-1"), await house.device("d-2")
    for n in range(2):
        one.send(Send(new_message_id(), "", "slow", b""), n, receipt=True)
    assert (await one.tell("", kind="slow")).status == 14
    assert (await one.call("slow")).status == 14
    two.send(Request("slow", b""), 7)
    await two.ping()
    assert (await two.tell("", kind="slow")).status == 14
    go_on.set()
    assert [(await one.next()).packet.status for _ in range(2)] == [0, 0]
    assert (await two.next()).packet.status == 0
    assert (await two.tell("", kind="slow")).status == 0


# authorize_send


async def test_the_application_may_forbid_a_send(houses, app, flavour) -> None:
    asked = []

    @app.authorize_send
    async def may(sender, to, kind) -> bool:
        asked.append((sender.device_id, sender.user, to, kind))
        return kind == "allowed"

    house = await houses().start()
    receiver = await house.device("d-2", flavour)
    await house.register("d-1", user="ann")
    sender = await house.device("d-1", flavour)
    assert (await sender.tell("device:d-2", kind="other")).status == Status.NOT_PERMITTED
    assert asked == [("d-1", "ann", "device:d-2", "other")]
    assert (await sender.tell("device:d-2", kind="allowed")).status == 0
    await receiver.push()
    sender.send(Send(new_message_id(), "device:d-2", "other", b"1"), 0)
    sender.send(Send(new_message_id(), "device:d-2", "allowed", b"1"), 0)
    assert not (await receiver.push()).wants_receipt
    await house.hears_nothing(receiver)
    before = len(asked)
    assert (await sender.tell("", kind="other")).status == 0
    assert len(asked) == before


async def test_sends_that_are_judged_keep_their_order(houses, app) -> None:
    @app.authorize_send
    async def may(sender, to, kind) -> bool:
        await asyncio.sleep(0 if kind == "fast" else 0.01)
        return True

    house = await houses().start()
    receiver = await house.device("d-2")
    sender = await house.device("d-1")
    for n in range(10):
        sender.send(Send(new_message_id(), "device:d-2", "fast" if n % 2 else "slow", b"%d" % n), n, receipt=True)
    assert [f.packet.payload for f in await receiver.pushes(10)] == [b"%d" % n for n in range(10)]


# The application's own messages


async def test_a_message_of_the_application_reaches_its_device(house, app, flavour) -> None:
    receiver = await house.device("d-1", flavour)
    assert await app.push("device:d-1", "news", {"n": 1}) is Status.OK
    frame = await receiver.push()
    assert frame.wants_receipt
    assert (frame.packet.sender, frame.packet.to, frame.packet.payload) == ("", "", b'{"n":1}')


async def test_a_message_of_the_application_for_now_only_is_never_stored(house, app) -> None:
    await house.register("d-1")
    with pytest.raises(SendRefused) as refused:
        await app.push("device:d-1", "news", "1", ttl_s=0)
    assert refused.value.status is Status.OFFLINE
    receiver = await house.device("d-1")
    await house.hears_nothing(receiver)
    assert await app.push("device:d-1", "news", "2", ttl_s=0) is Status.OK
    frame = await receiver.push()
    assert (frame.packet.payload, frame.wants_receipt) == (b"2", False)
    assert await house.count("messages") == 0


async def test_native_sends_survive_any_split(house) -> None:
    receiver = await house.device("d-2")
    sender = await house.device("d-1")
    data = b"".join(
        sender.encode(Send(new_message_id(), "device:d-2", "k", b"%d" % n), n, receipt=True) for n in range(30)
    )
    for at in range(0, len(data), 7):
        sender.raw(data[at : at + 7])
        await asyncio.sleep(0)
    assert [f.packet.payload for f in await receiver.pushes(30)] == [b"%d" % n for n in range(30)]
    assert sender.flavour == NATIVE
