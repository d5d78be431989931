"""A session's life: takeover, heartbeats, tokens that end and are renewed, and every way it is closed."""

import asyncio

import pytest
from raw_peer import BINARY, JSON, NATIVE

from longwire.accounts.tokens import hash_of
from longwire.adapters.sql.accounts import SqlAccounts
from longwire.adapters.sql.messages import SqlMessageStore
from longwire.errors import StoreUnavailable
from longwire.gateway import renewal
from longwire.ids import new_message_id
from longwire.ports.accounts import NewDevice
from longwire.reasons import CloseCode
from longwire.wire.packets import (
    Close,
    Connect,
    Connected,
    Ping,
    Pong,
    Push,
    Renew,
    Renewed,
    Send,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
)
from longwire.wire.websocket import Opcode
from longwire.wire.websocket import encode as websocket_frame

TRACE = bytes(range(1, 25))


class BrokenMessages(SqlMessageStore):
    """Has a bug in one of its plain calls."""

    def commit(self, envelope, done) -> None:
        raise RuntimeError("a bug")


class AwayAccounts(SqlAccounts):
    is_away = True
    tried = 0

    async def add_token(self, device_no, token_hash, expires_at_ms) -> None:
        self.tried += 1
        if self.is_away:
            raise StoreUnavailable("away")
        await super().add_token(device_no, token_hash, expires_at_ms)


# Takeover


async def test_a_newer_session_takes_over_and_the_older_is_told_not_to_come_back(house, flavour) -> None:
    older = await house.device("d-1", flavour)
    newer = await house.device("d-1")
    close = await older.ended()
    assert close.code == CloseCode.TAKEN_OVER
    assert not close.may_reconnect
    await newer.ping()
    assert len(house.node.hub) == 1


async def test_however_the_older_ends_it_never_unbinds_the_newer(house) -> None:
    older = await house.device("d-1")
    newer = await house.device("d-1")
    await older.drop()
    await house.until(lambda: len(house.node.device_port.open) == 1)
    await house.settled()
    assert len(house.node.hub) == 1
    (route,) = await house.routes.find([house.no_of("d-1")])
    assert route is not None
    sender = await house.device("d-2")
    assert (await sender.tell("device:d-1")).status == 0
    await newer.push()


async def test_what_the_older_still_says_is_not_heard(house) -> None:
    older = await house.device("d-1")
    await house.device("d-1")
    receiver = await house.device("d-2")
    older.relay("device:d-2")
    older.send(Connect("t-d-1", "d-1"), 9)
    await house.hears_nothing(receiver)
    assert len(house.node.hub) == 2


async def test_a_hundred_takeovers_leave_one_session_and_one_route(house) -> None:
    peers = [await house.device("d-1") for _ in range(100)]
    await house.until(lambda: house.node.counters.closes["taken_over"] == 99)
    for peer in peers[:-1]:
        await peer.drop()
    await house.until(lambda: len(house.node.device_port.open) == 1)
    await house.settled()
    assert len(house.node.hub) == 1
    assert (await house.routes.find([house.no_of("d-1")]))[0] is not None
    await peers[-1].ping()


async def test_the_end_of_the_last_session_ends_the_route(house) -> None:
    peer = await house.device("d-1")
    await peer.drop()
    await house.until(lambda: len(house.node.hub) == 0)
    await house.settled()
    assert await house.routes.find([house.no_of("d-1")]) == [None]


async def test_a_device_made_anew_under_its_old_id_is_not_unbound_by_the_old_ones_end(house) -> None:
    older = await house.device("d-1")
    old_no = house.no_of("d-1")
    await house.accounts.delete_device(old_no, house.clock.now_ms())
    await house.register("d-1")
    newer = await house.device("d-1")
    await house.node.close_session(old_no, CloseCode.DISABLED, "device deleted")
    assert (await older.ended()).code == CloseCode.DISABLED
    assert house.node.hub.find_by_id("d-1") is house.node.hub.find(house.no_of("d-1")) is not None
    sender = await house.device("d-2")
    sender.relay("device:d-1")
    await newer.push()


# Heartbeats


async def test_silence_for_one_and_a_half_intervals_is_a_heartbeat_timeout(house, flavour) -> None:
    peer = await house.device("d-1", flavour, heartbeat_s=10)
    await house.pass_time(14.5)
    assert len(house.node.hub) == 1
    await house.pass_time(1)
    close = await peer.ended()
    assert close.code == CloseCode.HEARTBEAT_TIMEOUT
    assert close.may_reconnect
    assert len(house.node.hub) == 0


async def test_any_bytes_count_as_life(house) -> None:
    peer = await house.device("d-1", heartbeat_s=10)
    frame = peer.encode(Ping(), 5)
    for at in range(len(frame)):
        before = house.node.device_port.bytes_in
        peer.raw(frame[at : at + 1])
        await house.until(lambda before=before: house.node.device_port.bytes_in == before + 1)
        await house.pass_time(14)
    await peer.get(Pong, 5)


async def test_pings_keep_a_session_for_hours(house, flavour) -> None:
    peer = await house.device("d-1", flavour, heartbeat_s=900)
    for _ in range(8):
        await house.pass_time(1_300)
        await peer.ping()
    await house.pass_time(1_351)
    assert (await peer.ended()).code == CloseCode.HEARTBEAT_TIMEOUT


async def test_a_process_that_slept_calls_nobody_silent_before_it_has_read(house) -> None:
    peer = await house.device("d-1", heartbeat_s=10)
    house.clock.advance(600)
    house.turn_wheel()
    await peer.ping()


async def test_ping_is_answered_with_its_correlation_and_trace(house, flavour) -> None:
    peer = await house.device("d-1", flavour)
    for correlation in (0, 7, 0xFFFF_FFFF):
        peer.send(Ping(), correlation, trace=TRACE)
        frame = await peer.next()
        assert isinstance(frame.packet, Pong)
        assert (frame.correlation, frame.trace) == (correlation, TRACE)


async def test_the_nodes_ping_is_answered_and_the_pong_is_taken(house, flavour) -> None:
    peer = await house.device("d-1", flavour)
    session = house.node.hub.find_by_id("d-1")
    session.connection.send(Ping(), 3)
    await peer.get(Ping, 3)
    peer.send(Pong(), 3)
    await peer.ping()


# Tokens


async def test_a_session_ends_with_its_token(house, flavour) -> None:
    await house.register("d-1", ttl_s=30)
    peer = await house.device("d-1", flavour, heartbeat_s=900)
    await house.pass_time(29)
    await peer.ping()
    await house.pass_time(1.5)
    close = await peer.ended()
    assert close.code == CloseCode.TOKEN_EXPIRED
    assert close.may_reconnect


async def test_renew_gives_a_new_token_and_the_session_goes_on_under_it(house, flavour) -> None:
    await house.register("d-1", ttl_s=30)
    peer = await house.device("d-1", flavour, heartbeat_s=900)
    peer.send(Renew(), 5)
    renewed = await peer.answer(5)
    assert isinstance(renewed, Renewed)
    assert renewed.token
    assert renewed.expires_in_s == 86_400
    await house.pass_time(60)
    await peer.ping()
    again = await house.peer(flavour)
    await again.connect("d-1", renewed.token)
    assert (await peer.ended()).code == CloseCode.TAKEN_OVER


async def test_the_old_token_stays_valid_until_its_own_end(house) -> None:
    peer = await house.device("d-1")
    peer.send(Renew(), 5)
    assert isinstance(await peer.answer(5), Renewed)
    await (await house.peer()).connect("d-1")


async def test_renew_with_a_token_puts_the_session_under_that_one(house, flavour) -> None:
    await house.register("d-1", ttl_s=30)
    later = NewDevice("d-1", hash_of("other"), house.clock.now_ms() + 50_000, None)
    await house.accounts.register([later], house.clock.now_ms())
    peer = await house.device("d-1", flavour, heartbeat_s=900)
    peer.send(Renew("other"), 5)
    renewed = await peer.answer(5)
    assert (renewed.token, renewed.expires_in_s) == ("other", 50)
    await house.pass_time(49)
    await peer.ping()
    await house.pass_time(1.5)
    assert (await peer.ended()).code == CloseCode.TOKEN_EXPIRED


@pytest.mark.parametrize("token", ["nonsense", "t-d-2", "expired"])
async def test_renew_with_a_bad_token_closes_with_bad_credentials(house, flavour, token) -> None:
    await house.register("d-2")
    peer = await house.device("d-1", flavour)
    ended = NewDevice("d-1", hash_of("expired"), house.clock.now_ms(), None)
    await house.accounts.register([ended], house.clock.now_ms())
    peer.send(Renew(token), 5)
    close = await peer.ended()
    assert close.code == CloseCode.BAD_CREDENTIALS
    assert not close.may_reconnect


async def away_store(houses, monkeypatch):
    """A node whose store gives no tokens, and is tried again within milliseconds."""
    monkeypatch.setattr(renewal, "_RETRY_FIRST_S", 0.002)
    house = houses()
    accounts = AwayAccounts(house.database)
    house.with_engines(accounts=accounts)
    house.tokens = type(house.tokens)(accounts, house.clock)
    return await house.start(), accounts


async def test_renew_while_the_store_is_away_leaves_the_session_and_is_answered_when_it_is_back(
    houses, monkeypatch
) -> None:
    house, accounts = await away_store(houses, monkeypatch)
    peer = await house.device("d-1")
    peer.send(Renew(), 5)
    await house.until(lambda: accounts.tried >= 3)
    await peer.ping()
    accounts.is_away = False
    assert (await peer.get(Renewed, 5)).token


async def test_a_renew_that_waits_for_the_store_ends_with_its_session(houses, monkeypatch) -> None:
    house, accounts = await away_store(houses, monkeypatch)
    await house.register("d-1", ttl_s=30)
    peer = await house.device("d-1", heartbeat_s=900)
    peer.send(Renew(), 5)
    await house.until(lambda: accounts.tried >= 1)
    await house.pass_time(31)
    assert (await peer.ended()).code == CloseCode.TOKEN_EXPIRED
    await house.settled()


async def test_a_flood_of_renews_is_bounded(houses) -> None:
    house = await houses(max_requests_per_session=4).start()
    peer = await house.device("d-1")
    peer.raw(peer.encode(Renew(), 5) * 200)
    close = await peer.ended()
    assert close.code == CloseCode.OVERLOADED
    await house.settled()
    assert await house.count("tokens") <= 6


# Closes


@pytest.mark.parametrize(
    "code", [CloseCode.KICKED, CloseCode.DISABLED, CloseCode.BANNED, CloseCode.DRAINING, CloseCode.NOT_PERMITTED]
)
async def test_a_session_is_closed_on_request_with_its_code(house, flavour, code) -> None:
    peer = await house.device("d-1", flavour)
    assert await house.node.close_session(house.no_of("d-1"), code, "because")
    close = await peer.ended()
    assert (close.code, close.reason, close.may_reconnect) == (code, "because", code < 4100)
    assert (close.retry_after_ms > 0) is (code < 4100)
    assert house.node.counters.closes[code.label] == 1
    assert not await house.node.close_session(house.no_of("d-1"), code, "because")


async def test_a_handlers_bug_closes_its_connection_alone_as_internal_error(houses, flavour, caplog) -> None:
    house = houses()
    broken = BrokenMessages(house.database, house.clock, 10)
    house.with_engines(messages=broken)
    house.messages = broken
    await house.start()
    other = await house.device("d-2")
    peer = await house.device("d-1", flavour)
    peer.send(Send(new_message_id(), "device:d-2", "chat", b"1"), 1, receipt=True)
    close = await peer.ended()
    assert close.code == CloseCode.INTERNAL_ERROR
    assert "a bug" not in close.reason
    assert "a bug" in caplog.text
    await other.ping()


async def test_a_bug_while_a_send_waits_closes_its_connection_and_drops_no_answer_in_silence(houses, caplog) -> None:
    house = houses()
    broken = BrokenMessages(house.database, house.clock, 10)
    house.with_engines(messages=broken)
    house.messages = broken
    await house.start()
    await house.register("d-2")
    peer = await house.device("d-1")
    for correlation in range(5):  # the target is not known to this node yet: these wait for one another
        peer.send(Send(new_message_id(), "device:d-2", "chat", b"1"), correlation, receipt=True)
    assert (await peer.ended()).code == CloseCode.INTERNAL_ERROR
    assert "a bug" in caplog.text


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (bytes.fromhex("a8100300 00000000 00000000"), CloseCode.PROTOCOL_ERROR),
        (bytes.fromhex("a7200300 00000000 00000000"), CloseCode.UNSUPPORTED),
        (bytes.fromhex("a7100301 00000000 00000000"), CloseCode.UNSUPPORTED),
        (bytes.fromhex("a7110300 00000000 00000000"), CloseCode.UNSUPPORTED),
        (bytes.fromhex("a7180300 00000000 00000000"), CloseCode.UNSUPPORTED),
        (bytes.fromhex("a710ff00 00000000 00000000"), CloseCode.PROTOCOL_ERROR),
        (bytes.fromhex("a7100200 00000000 00000000"), CloseCode.PROTOCOL_ERROR),
        (bytes.fromhex("a7101000 00010001 00000000"), CloseCode.TOO_LARGE),
        (bytes.fromhex("a7101000 ffffffff 00000000"), CloseCode.TOO_LARGE),
        (bytes.fromhex("a7101000 00000001 00000000 c1"), CloseCode.PROTOCOL_ERROR),
    ],
)
@pytest.mark.parametrize("carried", [NATIVE, BINARY])
async def test_a_fault_in_a_frame_closes_with_its_code_and_a_minutes_wait(house, carried, header, code) -> None:
    peer = await house.device("d-1", carried)
    peer.raw(header if carried == NATIVE else websocket_frame(Opcode.BINARY, header, b"abcd"))
    close = await peer.ended()
    assert close.code == code
    assert close.may_reconnect
    assert close.retry_after_ms >= 60_000
    await (await house.device("d-1", carried)).ping()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"{", CloseCode.PROTOCOL_ERROR),
        (b'{"cmd":"NONE"}', CloseCode.PROTOCOL_ERROR),
        (b'{"cmd":"SENT","id":1,"status":0}', CloseCode.PROTOCOL_ERROR),
        (b'{"cmd":"SEND","id":1}', CloseCode.PROTOCOL_ERROR),
    ],
)
async def test_a_fault_in_json_closes_with_protocol_error(house, text, code) -> None:
    peer = await house.device("d-1", JSON)
    peer.raw(websocket_frame(Opcode.TEXT, text, b"abcd"))
    assert (await peer.ended()).code == code


async def test_frames_before_a_fault_are_handled(house) -> None:
    peer = await house.device("d-1")
    peer.raw(peer.encode(Ping(), 1) + peer.encode(Ping(), 2) + b"\0" * 12)
    await peer.get(Pong, 1)
    await peer.get(Pong, 2)
    assert (await peer.ended()).code == CloseCode.PROTOCOL_ERROR


async def test_a_device_that_says_close_is_let_go(house, flavour) -> None:
    peer = await house.device("d-1", flavour)
    peer.send(Close(4000, "bye", True, 0))
    with pytest.raises(EOFError):
        await peer.next()
    assert len(house.node.hub) == 0
    assert house.node.counters.closes["peer"] == 1
    if flavour != NATIVE:
        assert peer.websocket_close is not None


async def test_a_peer_that_never_reads_is_closed_as_a_slow_consumer(houses, flavour) -> None:
    house = await houses(sends_per_s=1_000_000, send_burst=1_000_000, max_unsent_bytes=300_000).start()
    slow = await _sleepy(house, flavour)
    sender = await house.device("d-2")
    most = 0
    while house.node.counters.closes["slow_consumer"] == 0:
        sent = await sender.tell("device:d-2", b'"' + b"x" * 50_000 + b'"', ttl_s=0)
        assert sent.status == 0
        await sender.push()
        session = house.node.hub.find_by_id("d-1")
        if session is None:
            break
        for n in range(4):  # answers that nobody reads
            session.connection.send(Push(new_message_id(), "k", "", b'"' + b"y" * 50_000 + b'"', 0), n)
        most = max(most, session.connection._transport.get_write_buffer_size() if session.connection else 0)
    assert most <= 300_000 + 4 * 60_000
    assert house.node.counters.closes["slow_consumer"] == 1
    assert house.node.hub.find_by_id("d-1") is None
    await house.pass_time(1)
    await house.until(lambda: len(house.node.device_port.open) == 1)
    await slow.drop()


async def _sleepy(house, flavour):
    """A device that has connected and reads nothing from then on."""
    peer = await house.device("d-1", flavour)
    peer.writer.transport.pause_reading()
    return peer


async def test_at_most_once_messages_to_a_clogged_connection_are_dropped_and_counted(houses) -> None:
    house = await houses(sends_per_s=1_000_000, send_burst=1_000_000).start()
    slow = await _sleepy(house, NATIVE)
    sender = await house.device("d-2")
    session = house.node.hub.find_by_id("d-1")
    while not session.connection.is_clogged:
        sender.relay("device:d-1", b"x" * 50_000)
        await sender.ping()
    before = house.node.counters.pushes
    sender.relay("device:d-1", b"dropped")
    await sender.ping()
    assert house.node.counters.dropped == 1
    assert house.node.counters.pushes == before
    assert (await sender.tell("device:d-1", ttl_s=0)).status == 14
    slow.writer.transport.resume_reading()
    payloads = {(await slow.push()).packet.payload for _ in range(before)}
    assert payloads == {b"x" * 50_000}
    await house.until(lambda: not session.connection.is_clogged)
    assert (await sender.tell("device:d-1", ttl_s=0)).status == 0


# Topics are to come


@pytest.mark.parametrize("topics", [[], ["a/b"], ["a", "b", "c"]])
async def test_topics_are_answered_unsupported_one_by_one(house, flavour, topics) -> None:
    peer = await house.device("d-1", flavour)
    peer.send(Subscribe(topics), 4)
    assert (await peer.get(Subscribed, 4)).statuses == [15] * len(topics)
    peer.send(Unsubscribe(topics), 5)
    assert (await peer.get(Unsubscribed, 5)).statuses == [15] * len(topics)


# Hooks


async def test_hooks_are_told_of_each_session_and_how_it_ended(houses, app) -> None:
    told: list[tuple[str, object]] = []

    @app.on_connect
    async def came(session) -> None:
        told.append(("came", session.device_id))

    @app.on_disconnect
    async def went(session, code) -> None:
        told.append((session.session_id, code))

    house = await houses().start()
    await house.register("d-1", user="ann")
    first = await house.peer()
    connected = await first.connect("d-1")
    second = await house.peer()
    await second.connect("d-1")
    await house.settled()
    assert sorted(map(str, told)) == sorted(
        map(str, [("came", "d-1"), ("came", "d-1"), (connected.session_id, CloseCode.TAKEN_OVER)])
    )
    told.clear()
    await second.drop()
    await house.until(lambda: len(house.node.hub) == 0)
    await house.settled()
    assert [code for _, code in told] == [None]


async def test_a_hook_that_fails_changes_nothing(houses, app, caplog) -> None:
    @app.on_connect
    async def came(session) -> None:
        raise RuntimeError("a bug")

    house = await houses().start()
    peer = await house.device("d-1")
    await house.settled()
    await peer.ping()
    assert "a bug" in caplog.text


async def test_many_connects_at_once_all_get_in(house) -> None:
    names = [f"d-{n}" for n in range(600)]
    await house.register(*names)
    peers = await asyncio.gather(*(house.peer() for _ in names))
    for peer, name in zip(peers, names, strict=True):
        peer.send(Connect(f"t-{name}", name), 1)
    for peer in peers:
        await peer.get(Connected, 1)
    assert len(house.node.hub) == 600
