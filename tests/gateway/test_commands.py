"""REQUEST to a device and its REPLY: in time, late, never, from the wrong one; with the service that asks it."""

import asyncio
import time

import pytest
from house import House
from raw_peer import Peer

from longwire.accounts.refusals import RefusalCode, Refused
from longwire.gateway.commands import Commands as NodeCommands
from longwire.operations_model import Command, CommandStatus
from longwire.ports.link import Called
from longwire.push.commands import CommandMode, Commands
from longwire.reasons import CloseCode, Status
from longwire.wire.packets import Reply, Request

SYNC, ASYNC = CommandMode.SYNC, CommandMode.ASYNC
_TEN_MINUTES_S = 600


@pytest.fixture
def service(house: House) -> Commands:
    return Commands(house.accounts, house.node, house.commands, house.clock, house.limits)


async def asked(peer: Peer) -> tuple[int, Request]:
    """The next frame, which is to be a REQUEST: its correlation id and itself."""
    frame = await peer.next()
    assert isinstance(frame.packet, Request), frame
    return frame.correlation, frame.packet


async def kept(house: House, service: Commands, command_id: bytes, is_so: object) -> Command:
    """The command once the store has it as the test expects."""
    assert callable(is_so)
    async with asyncio.timeout(20):
        while not is_so(command := await service.find(command_id)):
            await asyncio.sleep(0.001)
    return command


async def refusal(call: object) -> Refused:
    with pytest.raises(Refused) as caught:
        await call  # type: ignore[misc]
    return caught.value


def no_of_waiting(house: House) -> int:
    commands: NodeCommands = house.node._commands
    return sum(len(entries) for entries in commands._open.values())


async def test_a_device_is_asked_and_its_reply_is_the_answer(house, service, flavour) -> None:
    peer = await house.device("d-1", flavour)
    running = asyncio.create_task(service.run("d-1", "lights.off", b'{"room":1}', 5_000, SYNC))
    correlation, request = await asked(peer)
    assert (request.method, request.payload, request.timeout_ms) == ("lights.off", b'{"room":1}', 5_000)
    assert correlation > 0
    peer.send(Reply(0, b'{"ok":true}'), correlation)
    command = await running
    assert (command.status, command.reply, command.is_late) == (CommandStatus.REPLIED, b'{"ok":true}', False)
    assert await service.find(command.command_id) == command
    assert no_of_waiting(house) == 0
    assert house.node.counters.commands == 1


async def test_a_device_that_says_no_is_an_answer_too(house, service, flavour) -> None:
    peer = await house.device("d-1", flavour)
    running = asyncio.create_task(service.run("d-1", "x", b"", 5_000, SYNC))
    correlation, _ = await asked(peer)
    peer.send(Reply(int(Status.UNSUPPORTED), b"", "no such method"), correlation)
    command = await running
    assert (command.status, command.reply_status, command.detail) == (CommandStatus.FAILED, 15, "no such method")


async def test_a_status_that_nobody_knows_is_a_failure(house, service) -> None:
    peer = await house.device("d-1")
    running = asyncio.create_task(service.run("d-1", "x", b"", 5_000, SYNC))
    correlation, _ = await asked(peer)
    peer.send(Reply(4_711, b"?"), correlation)
    command = await running
    assert (command.status, command.reply_status) == (CommandStatus.FAILED, int(Status.HANDLER_FAILED))
    assert "4711" in command.detail


async def test_an_offline_device_is_told_within_fifty_milliseconds_and_nothing_is_kept(house, service) -> None:
    await house.register("d-1")
    for mode in (SYNC, ASYNC):
        began = time.monotonic()
        assert (await refusal(service.run("d-1", "x", b"", 5_000, mode))).code is RefusalCode.DEVICE_OFFLINE
        assert time.monotonic() - began < 0.05
    assert await house.count("commands") == 0
    assert (await refusal(service.run("d-2", "x", b"", 5_000, SYNC))).code is RefusalCode.NOT_FOUND
    assert await house.node.call(house.no_of("d-1"), b"c" * 16, "x", b"", 1) == Called(Status.OFFLINE)


async def test_a_payload_that_is_too_large_is_refused_with_the_limit(house, service) -> None:
    await house.device("d-1")
    limit = house.limits.max_payload_bytes
    error = await refusal(service.run("d-1", "x", bytes(limit + 1), 5_000, SYNC))
    assert (error.code, error.more) == (RefusalCode.PAYLOAD_TOO_LARGE, {"limit": limit, "actual": limit + 1})


async def test_a_reply_that_comes_too_late_is_kept_and_marked(house, service, flavour) -> None:
    peer = await house.device("d-1", flavour)
    error = await refusal(service.run("d-1", "slow", b"", 10, SYNC))
    assert error.code is RefusalCode.COMMAND_TIMEOUT
    command_id = bytes.fromhex(str(error.more["command_id"]).removeprefix("cmd_"))
    assert (await service.find(command_id)).status is CommandStatus.TIMED_OUT
    correlation, _ = await asked(peer)
    house.clock.advance(_TEN_MINUTES_S - 1)
    peer.send(Reply(0, b'"at last"'), correlation)
    command = await kept(house, service, command_id, lambda c: c.is_late)
    assert (command.status, command.reply) == (CommandStatus.REPLIED, b'"at last"')
    assert command.replied_at_ms == house.clock.now_ms()
    assert house.node.counters.late_replies == 1
    peer.send(Reply(0, b'"again"'), correlation)
    await peer.ping()
    await house.settled()
    assert (await service.find(command_id)).reply == b'"at last"'
    assert house.node.counters.stray_replies == 1


async def test_after_ten_minutes_a_reply_is_one_that_nobody_asked_for(house, service) -> None:
    peer = await house.device("d-1")
    await refusal(service.run("d-1", "slow", b"", 10, SYNC))
    correlation, _ = await asked(peer)
    house.clock.advance(_TEN_MINUTES_S + 1)
    peer.send(Reply(0, b"1"), correlation)
    await peer.ping()
    assert (house.node.counters.stray_replies, house.node.counters.late_replies) == (1, 0)


async def test_only_the_session_that_was_asked_can_answer(house, service) -> None:
    first, second = await house.device("d-1"), await house.device("d-2")
    running = asyncio.create_task(service.run("d-1", "x", b"", 5_000, SYNC))
    correlation, _ = await asked(first)
    second.send(Reply(0, b'"mine"'), correlation)
    await second.ping()
    assert house.node.counters.stray_replies == 1
    assert not running.done()
    first.send(Reply(0, b'"yours"'), correlation)
    assert (await running).reply == b'"yours"'


async def test_a_device_that_goes_away_leaves_the_outcome_unknown_at_once(house, service) -> None:
    peer = await house.device("d-1")
    running = asyncio.create_task(service.run("d-1", "x", b"", 60_000, SYNC))
    await asked(peer)
    await peer.drop()
    error = await refusal(running)
    assert error.code is RefusalCode.COMMAND_TIMEOUT
    assert "went away" in str(error)
    assert no_of_waiting(house) == 0


async def test_a_session_that_is_taken_over_does_not_answer_for_the_next(house, service) -> None:
    old = await house.device("d-1")
    running = asyncio.create_task(service.run("d-1", "x", b"", 60_000, SYNC))
    correlation, _ = await asked(old)
    new = await house.device("d-1")
    assert (await old.ended()).code == CloseCode.TAKEN_OVER
    assert (await refusal(running)).code is RefusalCode.COMMAND_TIMEOUT
    new.send(Reply(0, b"1"), correlation)
    await new.ping()
    assert house.node.counters.stray_replies == 1


async def test_an_asynchronous_command_is_told_at_once_and_found_later(house, service) -> None:
    peer = await house.device("d-1")
    command = await service.run("d-1", "x", b"1", 5_000, ASYNC)
    assert (command.status, command.reply) == (CommandStatus.SENT, b"")
    correlation, _ = await asked(peer)
    assert (await service.find(command.command_id)).status is CommandStatus.SENT
    peer.send(Reply(0, b"2"), correlation)
    found = await kept(house, service, command.command_id, lambda c: c.status is not CommandStatus.SENT)
    assert (found.status, found.reply, found.payload) == (CommandStatus.REPLIED, b"2", b"1")


async def test_requests_over_the_bound_of_a_session_are_overloaded(houses, app) -> None:
    house = await houses(max_requests_per_session=3).start()
    service = Commands(house.accounts, house.node, house.commands, house.clock, house.limits)
    peer = await house.device("d-1")
    running = [await service.run("d-1", "x", b"", 60_000, ASYNC) for _ in range(3)]
    first, _ = await asked(peer)
    for _ in range(2):
        await asked(peer)
    error = await refusal(service.run("d-1", "x", b"", 60_000, SYNC))
    assert (error.code, error.retry_after_s) == (RefusalCode.OVERLOADED, 1.0)
    peer.send(Reply(0, b""), first)
    await kept(house, service, running[0].command_id, lambda c: c.status is CommandStatus.REPLIED)
    await service.run("d-1", "x", b"", 60_000, ASYNC)
    await asked(peer)
    await service.stop()


async def test_devices_that_never_reply_take_bounded_memory(houses, app) -> None:
    house = await houses(max_requests_per_session=4).start()
    peer = await house.device("d-1")
    for n in range(20):
        called = await house.node.call(house.no_of("d-1"), n.to_bytes(16, "big"), "x", b"", 1)
        assert called.status is Status.TIMEOUT
    assert no_of_waiting(house) <= 4
    await peer.drop()
    await house.until(lambda: no_of_waiting(house) == 0)


async def test_the_same_command_asks_the_device_once(house, service) -> None:
    peer = await house.device("d-1")
    one = b"c" * 16
    running = asyncio.create_task(service.run("d-1", "x", b"", 5_000, SYNC, command_id=one))
    correlation, _ = await asked(peer)
    repeat = await refusal(service.run("d-1", "x", b"", 5_000, SYNC, command_id=one))
    assert repeat.code is RefusalCode.IDEMPOTENCY_IN_PROGRESS
    assert (await service.run("d-1", "x", b"", 5_000, ASYNC, command_id=one)).status is CommandStatus.SENT
    peer.send(Reply(0, b"7"), correlation)
    await running
    await peer.drop()
    await house.until(lambda: len(house.node.hub) == 0)
    assert (await service.run("d-1", "x", b"", 5_000, SYNC, command_id=one)).reply == b"7"
    assert house.node.counters.commands == 1


async def test_a_command_whose_process_died_is_past_its_time(house, service) -> None:
    await house.device("d-1")
    await house.commands.add(Command(b"c" * 16, 1, "d-1", "x", b"", house.clock.now_ms(), 5_000))
    assert (await service.find(b"c" * 16)).status is CommandStatus.SENT
    house.clock.advance(11)
    assert (await service.find(b"c" * 16)).status is CommandStatus.TIMED_OUT
    error = await refusal(service.run("d-1", "x", b"", 5_000, SYNC, command_id=b"c" * 16))
    assert error.code is RefusalCode.COMMAND_TIMEOUT
    assert (await refusal(service.find(b"d" * 16))).code is RefusalCode.NOT_FOUND


async def test_correlation_ids_go_on_from_the_start_at_the_end(house, service) -> None:
    peer = await house.device("d-1")
    house.node._commands._last_correlation = 0xFFFF_FFFE
    for expected in (0xFFFF_FFFF, 1, 2):
        await service.run("d-1", "x", b"", 60_000, ASYNC)
        correlation, _ = await asked(peer)
        assert correlation == expected
    await service.stop()
