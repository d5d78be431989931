"""CONNECT: who is let in, who is not and why, and what may be sent behind it (PROTOCOL §2)."""

import asyncio
from contextlib import suppress

import pytest
from raw_peer import NATIVE

from longwire.adapters.sql.accounts import SqlAccounts
from longwire.errors import StoreUnavailable
from longwire.ids import new_message_id
from longwire.reasons import CloseCode
from longwire.wire import native
from longwire.wire.packets import Connect, Connected, Ping, Pong, Send, Sent


class SlowAccounts(SqlAccounts):
    """Answers about tokens when it is let go on."""

    def __init__(self, database) -> None:
        super().__init__(database)
        self.asked = 0
        self.go_on = asyncio.Event()
        self.before_answer = lambda: None

    async def check_tokens(self, token_hashes, now_ms):
        self.asked += len(token_hashes)
        found = await super().check_tokens(token_hashes, now_ms)
        await self.go_on.wait()
        self.before_answer()
        return found


class AwayAccounts(SqlAccounts):
    is_away = False

    async def check_tokens(self, token_hashes, now_ms):
        if self.is_away:
            raise StoreUnavailable("away")
        return await super().check_tokens(token_hashes, now_ms)


class BrokenAccounts(SqlAccounts):
    async def check_tokens(self, token_hashes, now_ms):
        raise RuntimeError("a bug")


async def slow_house(houses, **limits):
    house = houses(**limits)
    slow = SlowAccounts(house.database)
    house.with_engines(accounts=slow)
    await house.start()
    return house, slow


async def test_connected_tells_the_terms_of_the_session(house, flavour) -> None:
    await house.register("d-1")
    peer = await house.peer(flavour)
    peer.send(Connect("t-d-1", "d-1", 60, "ios", "1.2"), 77)
    frame = await peer.next()
    packet = frame.packet
    assert isinstance(packet, Connected)
    assert frame.correlation == 77
    assert packet.session_id
    assert (packet.heartbeat_s, packet.node_id, packet.missed) == (60, "n1~0001", 0)
    assert packet.server_time_ms == house.clock.now_ms()
    assert packet.max_body_bytes == house.limits.max_body_bytes
    assert packet.token_expires_in_s == 86_400
    assert len(house.node.hub) == 1


async def test_each_session_has_an_id_of_its_own(house) -> None:
    await house.register("d-1", "d-2")
    seen = {(await (await house.peer()).connect(device)).session_id for device in ("d-1", "d-2", "d-1")}
    assert len(seen) == 3


async def test_a_first_frame_that_is_not_connect_closes_with_protocol_error(house, flavour) -> None:
    peer = await house.peer(flavour)
    peer.send(Ping(), 1)
    close = await peer.ended()
    assert close.code == CloseCode.PROTOCOL_ERROR
    assert close.may_reconnect
    assert close.retry_after_ms >= 60_000


async def test_a_second_connect_closes_with_protocol_error(house, flavour) -> None:
    peer = await house.device("d-1", flavour)
    peer.send(Connect("t-d-1", "d-1"), 2)
    assert (await peer.ended()).code == CloseCode.PROTOCOL_ERROR
    await house.until(lambda: len(house.node.hub) == 0)


async def test_a_second_connect_behind_the_first_closes_once_the_first_is_in(house) -> None:
    await house.register("d-1")
    peer = await house.peer()
    connect = peer.encode(Connect("t-d-1", "d-1"), 1)
    peer.raw(connect + connect)
    await peer.get(Connected)
    assert (await peer.ended()).code == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize(("token", "device"), [("nonsense", "d-1"), ("", "d-1"), ("t-d-2", "d-1"), ("t-d-1", "d-9")])
async def test_an_unknown_token_and_another_devices_are_bad_credentials(house, flavour, token, device) -> None:
    await house.register("d-1", "d-2")
    peer = await house.peer(flavour)
    peer.send(Connect(token, device), 1)
    close = await peer.ended()
    assert close.code == CloseCode.BAD_CREDENTIALS
    assert not close.may_reconnect
    assert close.retry_after_ms == 0
    assert len(house.node.hub) == 0


async def test_an_expired_token_is_told_as_expired(house, flavour) -> None:
    await house.register("d-1", ttl_s=10)
    await house.pass_time(10)
    peer = await house.peer(flavour)
    peer.send(Connect("t-d-1", "d-1"), 1)
    close = await peer.ended()
    assert close.code == CloseCode.TOKEN_EXPIRED
    assert close.may_reconnect


@pytest.mark.parametrize("how", ["revoked", "disabled"])
async def test_a_revoked_token_and_a_disabled_device_are_told_as_disabled(house, flavour, how) -> None:
    await house.register("d-1")
    if how == "revoked":
        await house.accounts.revoke_tokens(house.no_of("d-1"), house.clock.now_ms())
    else:
        await house.accounts.set_disabled(house.no_of("d-1"), True)
    peer = await house.peer(flavour)
    peer.send(Connect("t-d-1", "d-1"), 1)
    close = await peer.ended()
    assert close.code == CloseCode.DISABLED
    assert not close.may_reconnect


async def test_what_comes_behind_connect_is_handled_in_order(house, flavour) -> None:
    await house.register("d-1", "d-2")
    peer = await house.peer(flavour)
    data = peer.encode(Connect("t-d-1", "d-1"), 1)
    for n in range(20):
        data += peer.encode(Send(new_message_id(), "device:d-2", "chat", b"%d" % n), 100 + n, receipt=True)
        data += peer.encode(Ping(), 200 + n)
    peer.raw(data)
    await peer.get(Connected, 1)
    frames = [await peer.next() for _ in range(40)]
    assert [f.correlation for f in frames if isinstance(f.packet, Pong)] == [200 + n for n in range(20)]
    assert [f.correlation for f in frames if isinstance(f.packet, Sent)] == [100 + n for n in range(20)]
    receiver = await house.device("d-2")
    assert [f.packet.payload for f in await receiver.pushes(20)] == [b"%d" % n for n in range(20)]


async def test_65536_bytes_behind_connect_are_held_and_more_is_not_lost(houses) -> None:
    house, slow = await slow_house(houses, sends_per_s=1_000_000, send_burst=1_000_000)
    await house.register("d-1")
    peer = await house.peer()
    count = 40_000  # 12 bytes each: far more than the socket's own buffers leave for the node alone
    peer.raw(peer.encode(Connect("t-d-1", "d-1"), 1) + b"".join(peer.encode(Ping(), n) for n in range(count)))
    await house.until(lambda: slow.asked == 1)
    slow.go_on.set()
    await peer.get(Connected)
    assert [(await peer.next()).correlation for _ in range(count)] == list(range(count))


async def test_what_is_held_behind_connect_is_bounded_in_bytes(houses) -> None:
    house, slow = await slow_house(houses)
    await house.register("d-1", "d-2")
    peer = await house.peer()
    send = peer.encode(Send(new_message_id(), "device:d-2", "chat", b"x" * 60_000))
    peer.raw(peer.encode(Connect("t-d-1", "d-1"), 1) + send * 400)
    await house.until(lambda: slow.asked == 1)
    (connection,) = house.node.device_port.open
    taken = -1
    while taken != house.node.device_port.bytes_in:  # until the node reads no more
        taken = house.node.device_port.bytes_in
        for _ in range(50):
            await asyncio.sleep(0.001)
    assert 65_536 <= taken <= 2_000_000
    assert house.node.device_port.unauthenticated_bytes <= taken
    slow.go_on.set()
    await peer.get(Connected)
    await peer.ping()
    assert house.node.device_port.unauthenticated_bytes == 0
    assert connection.held is None


async def test_a_connection_that_waits_for_the_store_is_not_timed_out(houses) -> None:
    house, slow = await slow_house(houses)
    await house.register("d-1")
    peer = await house.peer()
    peer.send(Connect("t-d-1", "d-1"), 1)
    await house.until(lambda: slow.asked == 1)
    await house.pass_time(60)
    slow.go_on.set()
    await peer.get(Connected)


@pytest.mark.parametrize("begun", [b"", b"\xa7", native.encode(Connect("t-d-1", "d-1"), 1)[:-1]])
async def test_no_whole_connect_within_the_deadline_is_a_handshake_timeout(house, begun) -> None:
    peer = await house.peer()
    peer.raw(begun)
    await house.until(lambda: house.node.device_port.bytes_in == len(begun) and house.node.device_port.open)
    await house.pass_time(4.5)
    assert house.node.device_port.open
    await house.pass_time(1)
    if begun:
        close = await peer.ended()
        assert close.code == CloseCode.HANDSHAKE_TIMEOUT
        assert close.may_reconnect
        assert close.retry_after_ms > 0
    else:
        with pytest.raises(EOFError):
            await peer.next()
    await house.until(lambda: not house.node.device_port.open)


async def test_a_first_byte_does_not_buy_a_second_deadline(house) -> None:
    peer = await house.peer()
    await house.until(lambda: house.node.device_port.open)
    await house.pass_time(4)
    peer.raw(b"\xa7")
    await house.until(lambda: house.node.device_port.bytes_in == 1)
    await house.pass_time(1.5)
    assert (await peer.ended()).code == CloseCode.HANDSHAKE_TIMEOUT


async def test_dripping_bytes_do_not_put_the_deadline_off(house) -> None:
    await house.register("d-1")
    peer = await house.peer()
    data = native.encode(Connect("t-d-1", "d-1"), 1)
    for n in range(10):
        assert not house.node.counters.closes
        peer.raw(data[n : n + 1])
        await house.until(lambda n=n: house.node.device_port.bytes_in == n + 1)
        await house.pass_time(0.5)
    await house.pass_time(0.25)
    assert (await peer.ended()).code == CloseCode.HANDSHAKE_TIMEOUT


async def test_a_store_that_is_away_asks_the_device_to_come_back(houses) -> None:
    house = houses()
    accounts = AwayAccounts(house.database)
    house.with_engines(accounts=accounts)
    await house.start()
    await house.register("d-1")
    accounts.is_away = True
    peer = await house.peer()
    peer.send(Connect("t-d-1", "d-1"), 1)
    close = await peer.ended()
    assert close.code == CloseCode.OVERLOADED
    assert close.retry_after_ms > 0
    accounts.is_away = False
    await house.device("d-1")


async def test_a_bug_in_the_store_closes_its_connects_as_internal_error_and_no_more(houses, caplog) -> None:
    house = houses()
    house.with_engines(accounts=BrokenAccounts(house.database))
    await house.start()
    for _ in range(2):
        peer = await house.peer()
        peer.send(Connect("t", "d"), 1)
        assert (await peer.ended()).code == CloseCode.INTERNAL_ERROR
    assert "a bug" in caplog.text


async def test_a_peer_that_leaves_while_it_is_checked_leaves_nothing_behind(houses) -> None:
    house, slow = await slow_house(houses)
    await house.register("d-1")
    peer = await house.peer()
    peer.send(Connect("t-d-1", "d-1"), 1)
    await house.until(lambda: slow.asked == 1)
    await peer.drop()
    await house.until(lambda: not house.node.device_port.open)
    slow.go_on.set()
    await house.settled()
    assert len(house.node.hub) == 0
    assert await house.routes.find([house.no_of("d-1")]) == [None]


async def test_a_token_that_ends_while_it_is_checked_leaves_no_session_behind(houses) -> None:
    house, slow = await slow_house(houses)
    await house.register("d-1", ttl_s=10)
    slow.before_answer = lambda: house.clock.advance(11)
    peer = await house.peer()
    peer.send(Connect("t-d-1", "d-1"), 1)
    await house.until(lambda: slow.asked == 1)
    slow.go_on.set()
    assert (await peer.ended()).code == CloseCode.TOKEN_EXPIRED
    await house.settled()
    assert len(house.node.hub) == 0
    assert await house.routes.find([house.no_of("d-1")]) == [None]


async def test_two_connects_of_one_device_in_one_batch_leave_one_session(houses) -> None:
    house, slow = await slow_house(houses)
    await house.register("d-0", "d-1")
    first = await house.peer()
    first.send(Connect("t-d-0", "d-0"), 1)
    await house.until(lambda: slow.asked == 1)
    older, newer = await house.peer(), await house.peer()
    size = len(first.encode(Connect("t-d-1", "d-1"), 1))
    for at, peer in enumerate((older, newer), 2):
        peer.send(Connect("t-d-1", "d-1"), 1)
        await house.until(lambda at=at: house.node.device_port.bytes_in == at * size)
    slow.go_on.set()
    await first.get(Connected)
    assert (await older.ended()).code == CloseCode.TAKEN_OVER
    await newer.get(Connected)
    assert len(house.node.hub) == 2


async def test_unfinished_frames_of_those_who_came_in_do_not_count_as_strangers(house) -> None:
    await house.register("d-1")
    port = house.node.device_port
    for _ in range(3):
        peer = await house.peer()
        peer.raw(peer.encode(Connect("t-d-1", "d-1"), 1) + b"\xa7\x10\x10\x00\x00\x00\xff\xff" + b"\0" * 1_000)
        await peer.get(Connected)
        assert port.unauthenticated_bytes == 0
        await peer.drop()
        await house.until(lambda: not port.open)
        assert port.unauthenticated_bytes == 0


async def test_strangers_together_hold_a_bounded_number_of_bytes(houses, flavour) -> None:
    house = await houses(max_unauthenticated_bytes=20_000).start()
    codes = []
    for _ in range(4):
        peer = await house.peer(flavour)
        part = peer.encode(Connect("t" * 9_000, "d-1"), 1)[:-1]
        before = house.node.device_port.bytes_in
        peer.raw(part)
        await house.until(lambda before=before, part=part: house.node.device_port.bytes_in == before + len(part))
        if peer is house.peers[-1] and house.node.counters.closes["overloaded"]:
            codes.append((await peer.ended()).code)
    assert codes
    assert set(codes) == {CloseCode.OVERLOADED}
    for peer in house.peers:
        await peer.drop()
    await house.until(lambda: not house.node.device_port.open)
    assert house.node.device_port.unauthenticated_bytes == 0


@pytest.mark.parametrize(
    ("wanted", "granted"), [(0, 10), (-5, 10), (9, 10), (10, 10), (77, 77), (900, 900), (901, 900), (1 << 62, 900)]
)
async def test_the_heartbeat_is_clamped_to_10_to_900_seconds(house, flavour, wanted, granted) -> None:
    await house.register("d-1")
    peer = await house.peer(flavour)
    assert (await peer.connect("d-1", heartbeat_s=wanted)).heartbeat_s == granted


async def test_a_device_can_come_back_right_after_a_protocol_error(house, flavour) -> None:
    for _ in range(3):
        peer = await house.device("d-1", flavour)
        peer.raw(b"\xff" * 64 if flavour == NATIVE else peer.encode(Connect("a", "b"), 1))
        with suppress(EOFError):
            await peer.ended()
    await (await house.device("d-1", flavour)).ping()


async def test_frames_that_came_before_connected_do_not_confirm_it(houses) -> None:
    house = await houses(max_inbox=1).start()
    sender = await house.device("d-2")
    await house.register("d-1")
    for _ in range(3):
        assert (await sender.tell("device:d-1")).status == 0
    hasty = await house.peer()
    hasty.raw(hasty.encode(Connect("t-d-1", "d-1"), 1) + hasty.encode(Ping(), 2))
    assert (await hasty.get(Connected)).missed == 2
    await hasty.answer(2)
    await house.settled()
    await hasty.drop()
    again = await house.peer()
    assert (await again.connect("d-1")).missed == 2
