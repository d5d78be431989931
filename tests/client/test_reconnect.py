"""How a device loses its node and finds one again."""

import asyncio
import contextlib
from collections.abc import Callable
from random import Random

import pytest
from client_fake_node import Backend, FakeNode
from client_manual_time import ManualTimers, settle, until

from longwire.client import Device, DeviceClosed, DeviceStopped, State
from longwire.reasons import CloseCode
from longwire.wire import native
from longwire.wire.packets import Close, Connected, Ping, Send, Sent

MakeDevice = Callable[..., Device]


class Highest(Random):
    def uniform(self, a: float, b: float) -> float:
        return b


async def test_a_lost_connection_is_made_again_within_the_first_second(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers, transport: str
) -> None:
    async with make_device(transport=transport) as device:
        node.link.drop()
        await until(lambda: device.state is State.WAITING)
        assert device.last_close is not None
        assert device.last_close.code == 0
        await clock.advance(1)
        await until(lambda: device.state is State.CONNECTED)
    assert len(node.connects) == 2


async def test_unanswered_messages_go_out_again_in_order_with_their_ids(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers, transport: str
) -> None:
    answered = 0

    def lose_sent(link: object, frame: object, send: Send) -> Sent | None:
        nonlocal answered
        answered += 1
        sent = node.backend.accept("d-1", send)
        return sent if answered % 3 == 0 or answered > 60 else None

    node.on_send = lose_sent
    async with make_device(transport=transport) as device:
        sends = [asyncio.ensure_future(device.send("", str(i))) for i in range(60)]
        await until(lambda: answered == 60)
        await until(lambda: device.unsent == 40)
        node.link.drop()
        await until(lambda: device.state is State.WAITING)
        await clock.advance(1)
        results = await asyncio.gather(*sends)
    first, second = node.links
    assert [send.payload for send in second.of(Send)] == [str(i).encode() for i in range(60) if (i + 1) % 3]
    assert {send.message_id for send in second.of(Send)} <= {send.message_id for send in first.of(Send)}
    assert [result.is_duplicate for result in results] == [bool((i + 1) % 3) for i in range(60)]
    assert node.backend.payloads() == [str(i).encode() for i in range(60)]


async def test_what_is_sent_while_away_goes_out_on_return_behind_what_was_in_flight(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    node.is_mute = True
    async with make_device() as device:
        sends = [asyncio.ensure_future(device.send("", "first"))]
        await until(lambda: node.link.of(Send))
        node.link.drop()
        await until(lambda: device.state is State.WAITING)
        sends += [asyncio.ensure_future(device.send("", f"later {i}")) for i in range(3)]
        node.is_mute = False
        await clock.advance(1)
        await asyncio.gather(*sends)
    assert node.backend.payloads() == [b"first", b"later 0", b"later 1", b"later 2"]


async def test_failures_in_a_row_back_off_with_full_jitter_up_to_two_minutes(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    node.on_connect = lambda connect: Close(4003, "full", True, 0)
    async with make_device(rng=Highest()):
        waits = []
        for attempt in range(9):
            await until(lambda seen=attempt: len(node.connects) == seen + 1)
            await settle()
            waits.append(round(clock.delays[0]))
            await clock.advance(waits[-1])
    assert waits == [1, 2, 4, 8, 16, 32, 64, 120, 120]


async def test_a_device_never_returns_before_retry_after(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    async with make_device() as device:
        node.link.close(4000, "draining", retry_after_ms=20_000)
        await until(lambda: device.state is State.WAITING)
        assert device.last_close == (4000, "draining")
        await clock.advance(19.9)
        assert len(node.connects) == 1
        await clock.advance(0.2)
        await until(lambda: device.state is State.CONNECTED)


async def test_a_device_that_finds_no_node_is_entered_and_goes_on_trying(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    await node.stop()
    async with make_device() as device:
        assert device.state is State.WAITING
        send = asyncio.ensure_future(device.send("", b"x"))
        await node.listen()
        await clock.advance(1)
        assert (await send).status == 0


async def test_a_node_that_never_answers_connect_is_given_up_after_the_timeout(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers, transport: str
) -> None:
    node.is_frozen = True
    device = make_device(transport=transport, connect_timeout_s=7)
    entering = asyncio.ensure_future(device.__aenter__())
    await until(lambda: node.connects)
    await clock.advance(7.1)
    await entering
    assert device.state is State.WAITING
    assert "7 s" in device.last_close.reason
    await until(lambda: not node.open_links)
    await device.close()


async def test_a_server_that_never_answers_the_upgrade_is_given_up_too(
    make_device: MakeDevice, clock: ManualTimers
) -> None:
    reached = asyncio.Event()
    gone = asyncio.Event()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        reached.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        gone.set()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        device = make_device(transport="websocket", address=f"127.0.0.1:{port}")
        entering = asyncio.ensure_future(device.__aenter__())
        await reached.wait()
        await clock.advance(10.1)
        await entering
        assert device.state is State.WAITING
        await asyncio.wait_for(gone.wait(), 2)
        await device.close()


async def test_a_refused_upgrade_is_retried_after_its_retry_after(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    node.upgrade_refusal = (503, 9)
    async with make_device(transport="websocket") as device:
        assert device.state is State.WAITING
        assert "503" in device.last_close.reason
        node.upgrade_refusal = None
        await clock.advance(8.9)
        assert len(node.links) == 1
        await clock.advance(0.2)
        await until(lambda: device.state is State.CONNECTED)


@pytest.mark.parametrize("code", [4100, 4101, 4102, 4103, 4105])
async def test_41xx_stops_the_device_until_it_is_told(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers, transport: str, code: int
) -> None:
    node.on_send = lambda link, frame, send: None
    async with make_device(transport=transport) as device:
        send = asyncio.ensure_future(device.send("", b"x"))
        reading = asyncio.ensure_future(device.receive())
        await until(lambda: node.link.of(Send))
        node.link.close(code, "for a reason")
        await until(lambda: device.state is State.STOPPED)
        for waiting in (send, reading):
            with pytest.raises(DeviceStopped) as caught:
                await waiting
            assert (caught.value.code, caught.value.reason) == (code, "for a reason")
        with pytest.raises(DeviceStopped):
            await device.send("", b"y")
        with pytest.raises(DeviceStopped):
            await device.request("m")
        await clock.advance(100_000 if code != 4100 else 3_600)
        assert len(node.connects) == 1
        node.on_send = lambda link, frame, send: node.backend.accept("d-1", send)
        device.reconnect()
        await until(lambda: device.state is State.CONNECTED)
        if code == 4100:
            await device.drained()
            assert node.backend.payloads() == [b"x"]  # it stayed in the outbox


async def test_a_second_device_of_the_same_name_takes_over_and_the_first_does_not_fight_back(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    async with make_device() as first, make_device() as second:
        await until(lambda: first.state is State.STOPPED)
        await clock.advance(3_600)
        assert first.last_close.code == CloseCode.TAKEN_OVER
        assert second.state is State.CONNECTED
        assert len(node.connects) == 2


async def test_a_refusal_for_good_is_raised_on_entering(node: FakeNode, make_device: MakeDevice) -> None:
    node.on_connect = lambda connect: Close(4102, "revoked", False, 0)
    device = make_device()
    with pytest.raises(DeviceStopped, match="4102"):
        async with device:
            pass
    assert device.state is State.CLOSED


async def test_a_close_code_of_a_later_version_follows_its_may_reconnect(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    async with make_device() as device:
        node.link.close(4055, "new reason", may_reconnect=True)
        await until(lambda: device.state is State.WAITING)
        await clock.advance(1)
        await until(lambda: device.state is State.CONNECTED)
        node.link.close(4056, "newer reason", may_reconnect=False)
        await until(lambda: device.state is State.STOPPED)


async def test_a_given_token_that_expires_stops_the_device_until_it_gets_another(
    node: FakeNode, make_device: MakeDevice
) -> None:
    async with make_device() as device:
        node.link.close(4001, "token expired")
        await until(lambda: device.state is State.STOPPED)
        device.reconnect(token="n3w")
        await until(lambda: device.state is State.CONNECTED)
    assert [connect.token for connect in node.connects] == ["t0k", "n3w"]


async def test_a_node_that_breaks_the_protocol_is_told_and_left(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers, transport: str
) -> None:
    async with make_device(transport=transport) as device:
        node.link.write_bytes(b"\xa7\x20garbage garbage")
        await until(lambda: device.state is State.WAITING)
        assert device.last_close.code == CloseCode.UNSUPPORTED
        await until(lambda: node.links[0].of(Close))
        await clock.advance(1)  # its fault, not ours: no minute's wait
        await until(lambda: device.state is State.CONNECTED)


# MOVE


async def test_a_move_connects_to_the_new_node_before_the_old_session_ends(
    node: FakeNode, second_node: FakeNode, make_device: MakeDevice, clock: ManualTimers, transport: str
) -> None:
    states: list[State] = []
    async with make_device(transport=transport, rng=Highest()) as device:
        device.on_state(states.append)
        old = node.link
        old.move(10_000, second_node.address)
        await settle()
        await clock.advance(9.9)
        assert not second_node.connects
        await clock.advance(0.2)
        await until(lambda: device.node_id == "n2")
        await until(lambda: old.is_lost)
        assert device.state is State.CONNECTED
        await device.send("", b"x")
        await clock.advance(29)
        assert states == []  # the CLOSE 4100 that the old connection got is nobody's business
    assert len(second_node.link.of(Send)) == 1


async def test_what_was_in_flight_when_a_device_moved_arrives_once(
    node: FakeNode, second_node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    node.on_send = lambda link, frame, send: node.backend.accept("d-1", send) and None
    async with make_device() as device:
        sends = [asyncio.ensure_future(device.send("", str(i))) for i in range(20)]
        await until(lambda: len(node.backend.accepted) == 20)
        node.link.move(0, second_node.address)
        await clock.advance(0.01)
        results = await asyncio.gather(*sends)
    assert all(result.is_duplicate for result in results)
    assert node.backend.payloads() == [str(i).encode() for i in range(20)]


async def test_a_move_to_a_node_that_is_down_keeps_the_session_and_tries_again(
    node: FakeNode, second_node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    await second_node.stop()
    async with make_device() as device:
        node.link.move(0, second_node.address)
        await clock.advance(0.5)
        assert device.state is State.CONNECTED
        await device.send("", b"still here")
        await second_node.listen()
        for _ in range(8):
            await clock.advance(1)
        await until(lambda: device.node_id == "n2")


async def test_a_drained_node_that_closes_before_the_move_is_left_as_any_other(
    node: FakeNode, second_node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    async with make_device(rng=Highest()) as device:
        node.link.move(30_000, second_node.address)
        await settle()
        node.link.close(4000, "draining", retry_after_ms=100)
        await until(lambda: device.state is State.WAITING)
        await clock.advance(2)
        await until(lambda: device.state is State.CONNECTED)
        await clock.advance(60)
        assert not second_node.connects


async def test_a_takeover_by_our_own_move_that_we_never_saw_arrive_does_not_stop_the_device(
    node: FakeNode, second_node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    second_node.is_frozen = True
    async with make_device() as device:
        old = node.link
        old.move(0, second_node.address)
        await clock.advance(0.01)
        await until(lambda: second_node.connects)
        old.close(4100, "taken over")
        await settle()
        second_node.links[0].drop()
        await until(lambda: device.state is State.WAITING)
        await clock.advance(2)
        await until(lambda: device.state is State.CONNECTED)


# Heartbeat


async def test_ping_goes_out_when_nothing_else_did_for_the_interval_that_the_node_set(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers, transport: str
) -> None:
    node.terms["heartbeat_s"] = 20
    async with make_device(transport=transport, heartbeat_s=45):
        assert node.connects[0].heartbeat_s == 45
        await clock.advance(19.9)
        assert node.link.of(Ping) == []
        for pings in range(1, 4):
            await clock.advance(20)
            await until(lambda seen=pings: len(node.link.of(Ping)) == seen)


async def test_a_device_that_sends_does_not_ping(node: FakeNode, make_device: MakeDevice, clock: ManualTimers) -> None:
    node.terms["heartbeat_s"] = 20
    async with make_device() as device:
        for _ in range(10):
            await clock.advance(15)
            await device.send("", b"x")
        assert node.link.of(Ping) == []


async def test_a_device_that_hears_nothing_pings_although_it_sends(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    node.terms["heartbeat_s"] = 20
    async with make_device() as device:
        node.is_mute = True
        for _ in range(4):
            await clock.advance(10)
            await device.send("", b"x", receipt=False)
        await clock.advance(12)
        await until(lambda: len(node.connects) == 2)
        assert len(node.links[0].of(Ping)) == 2


async def test_nothing_heard_for_one_and_a_half_intervals_after_a_ping_means_reconnect(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    node.terms["heartbeat_s"] = 20
    async with make_device() as device:
        node.is_mute = True
        await clock.advance(20 + 29.9)
        assert device.state is State.CONNECTED
        await clock.advance(0.2)
        assert device.state is State.WAITING
        assert "30 s" in device.last_close.reason
        node.is_mute = False
        await clock.advance(1)
        await until(lambda: device.state is State.CONNECTED)


async def test_a_ping_of_the_node_is_answered_with_its_correlation_id(node: FakeNode, make_device: MakeDevice) -> None:
    async with make_device():
        node.link.write(Ping(), 77)
        await until(lambda: node.link.received[-1].correlation == 77)
        assert node.link.received[-1].packet.command == native.PONG_PACKET.command


# Token


async def test_the_token_is_renewed_over_the_live_connection_before_it_expires(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    node.terms |= {"token_expires_in_s": 1_000, "heartbeat_s": 900}
    async with make_device() as device:
        await clock.advance(699)
        assert node.renewals == []
        await clock.advance(152)
        await until(lambda: device.token == "renewed-1")
        await clock.advance(851)
        await until(lambda: device.token == "renewed-2")
        node.link.drop()
        await until(lambda: device.state is State.WAITING)
        await clock.advance(1)
        await until(lambda: device.state is State.CONNECTED)
    assert node.connects[-1].token == "renewed-2"


async def test_a_renewal_that_is_not_answered_is_asked_for_again(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    node.terms |= {"token_expires_in_s": 1_000, "heartbeat_s": 900}
    async with make_device() as device:
        node.is_mute = True
        await clock.advance(852)
        node.is_mute = False
        await clock.advance(31)
        await until(lambda: device.token == "renewed-1")


# State


async def test_states_tell_each_change_and_end_with_closed(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    device = make_device()
    seen: list[State] = []

    async def watch() -> None:
        async for state in device.states():
            seen.append(state)

    watching = asyncio.ensure_future(watch())
    await settle()
    async with device:
        node.link.drop()
        await until(lambda: device.state is State.WAITING)
        await clock.advance(1)
        await device.connected()
    await watching
    assert [state.value for state in seen] == [
        "starting", "connecting", "connected", "waiting", "connecting", "connected", "closed",
    ]  # fmt: skip


async def test_missed_is_what_connected_told(node: FakeNode, make_device: MakeDevice) -> None:
    node.terms["missed"] = 7
    async with make_device() as device:
        assert device.missed == 7
        await until(lambda: node.link.of(Ping))  # a frame, so that the node does not tell it again
        assert device.session_id == "s1"


async def test_connected_waits_for_a_session_and_has_a_deadline(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    await node.stop()
    async with make_device() as device:
        waiting = asyncio.ensure_future(device.connected(timeout_s=0.001))
        await clock.advance(0.002)
        with pytest.raises(TimeoutError):
            await waiting
        waiting = asyncio.ensure_future(device.connected())
        await settle()
    with pytest.raises(DeviceClosed):
        await waiting


async def test_frames_behind_a_close_are_not_handled(node: FakeNode, make_device: MakeDevice) -> None:
    async with make_device() as device:
        frames = [
            native.encode(Close(4000, "draining", True, 60_000)),
            native.encode(Connected("s9", 60, "n9", 0, 9, 65_536, 60)),
        ]
        node.link.write_bytes(b"".join(frames))
        await until(lambda: device.state is State.WAITING)
        assert device.missed == 0


async def test_entering_that_is_cancelled_leaves_nothing_behind(node: FakeNode, make_device: MakeDevice) -> None:
    node.is_frozen = True
    device = make_device()
    entering = asyncio.ensure_future(device.__aenter__())
    await until(lambda: node.connects)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    await until(lambda: not node.open_links)
    assert device.state is State.CLOSED


async def test_an_idle_device_is_one_task_and_two_timers(
    node: FakeNode, backend: Backend, make_device: MakeDevice, clock: ManualTimers
) -> None:
    before = asyncio.all_tasks()
    async with make_device() as device:
        device.on("k")(lambda message: None)
        await device.send("", b"x")
        await settle()
        assert len(asyncio.all_tasks() - before) == 1
        assert len([delay for delay in clock.delays if delay > 1]) <= 3


async def test_a_watcher_that_raises_is_reported_and_stops_nothing(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers
) -> None:
    errors: list[Exception] = []

    def refuse(what: object) -> None:
        errors.append(KeyError(what))
        raise errors[-1]

    device = make_device(on_error=refuse)
    remove = device.on_state(refuse)
    async with device:
        assert device.state is State.CONNECTED
        assert len(errors) == 4  # twice from the watcher, and twice from on_error itself
        remove()
        node.link.drop()
        await until(lambda: device.state is State.WAITING)
        assert len(errors) == 4
