"""What a device keeps on disk, and what is left of it after kill -9."""

import asyncio
import signal
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from pathlib import Path

import pytest
from client_fake_node import FakeNode
from client_manual_time import ManualTimers, settle, until

from longwire.client import Device, DeviceClosed, SendTimeout, SetAside, State, StateError
from longwire.client.state_file import StateFile
from longwire.client.storage import MEMORY_OF_MESSAGES
from longwire.wire.packets import Close, Push, Send

MakeDevice = Callable[..., Device]
PROGRAM = Path(__file__).with_name("client_crash_program.py")


async def run(*arguments: object) -> Process:
    return await asyncio.create_subprocess_exec(sys.executable, PROGRAM, *map(str, arguments), stdout=PIPE)


async def test_a_sender_killed_in_the_middle_sends_each_message_once_when_it_is_back(
    node: FakeNode, tmp_path: Path
) -> None:
    state = tmp_path / "d-1.db"

    def on_send(link: object, frame: object, send: Send) -> object:
        sent = node.backend.accept("d-1", send)
        return sent if len(node.backend.accepted) % 2 else None  # half of the answers are lost

    node.on_send = on_send
    first = await run(node.address, state, "send", 200)
    await until(lambda: len(node.backend.accepted) >= 100, 15)
    first.send_signal(signal.SIGKILL)
    assert await first.wait() == -signal.SIGKILL
    accepted_before = len(node.backend.accepted)
    node.on_send = lambda link, frame, send: node.backend.accept("d-1", send)
    second = await run(node.address, state, "drain")
    out, _ = await second.communicate()
    assert out == b"done\n"
    # Every message that the node had seen was in the outbox first, and so were those behind it.
    assert node.backend.payloads() == [str(i).encode() for i in range(len(node.backend.accepted))]
    assert len(node.backend.accepted) >= accepted_before >= 100
    repeats = [send for send in node.link.of(Send) if int(send.payload) < accepted_before]
    assert repeats


async def test_a_receiver_killed_before_its_ack_counted_does_not_get_the_message_again(
    node: FakeNode, tmp_path: Path
) -> None:
    node.forgets_acks = True
    node.backend.inboxes["d-1"] = [
        Push(number.to_bytes(16), "chat", "device:d-2", str(number).encode(), 1) for number in range(5)
    ]
    state = tmp_path / "d-1.db"
    first = await run(node.address, state, "receive")
    await until(lambda: node.links and len(node.link.acked) == 5, 15)
    first.kill()
    out, _ = await first.communicate()
    assert out.split() == b"got 0 got 1 got 2 got 3 got 4".split()
    node.backend.inboxes["d-1"].append(Push(b"n" * 16, "chat", "device:d-2", b"new", 1))
    second = await run(node.address, state, "receive")
    await until(lambda: len(node.links) == 2 and len(node.link.acked) == 6, 15)
    second.kill()
    out, _ = await second.communicate()
    assert out.split() == [b"got", b"new"]


async def test_the_ack_goes_out_after_the_memory_is_on_disk(
    node: FakeNode, make_device: MakeDevice, tmp_path: Path
) -> None:
    path = tmp_path / "d-1.db"
    node.backend.inboxes["d-1"] = [Push(b"i" * 16, "chat", "", b"", 1)]
    device = make_device(state=path)
    device.on()(lambda message: None)
    acked_at_commit: list[int] = []
    commit = device._storage._transact

    def transact(statements: list, kept: dict) -> None:
        acked_at_commit.append(len(node.link.acked))
        commit(statements, kept)

    device._storage._transact = transact
    async with device:
        await until(lambda: node.link.acked)
    assert acked_at_commit[0] == 0


async def test_a_message_is_on_disk_before_it_is_on_the_wire(
    node: FakeNode, make_device: MakeDevice, tmp_path: Path
) -> None:
    async with make_device(state=tmp_path / "d-1.db") as device:
        storage = device._storage
        commit = storage._transact
        begun, let_go = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow(*arguments: object) -> None:
            loop.call_soon_threadsafe(begun.set)
            asyncio.run_coroutine_threadsafe(let_go.wait(), loop).result()
            commit(*arguments)

        storage._transact = slow
        sends = [asyncio.ensure_future(device.send("", str(i))) for i in range(3)]
        await begun.wait()
        await settle()
        assert node.link.of(Send) == []
        storage._transact = commit
        let_go.set()
        await asyncio.gather(*sends)


async def test_sends_that_come_together_share_a_commit(node: FakeNode, make_device: MakeDevice, tmp_path: Path) -> None:
    async with make_device(state=tmp_path / "d-1.db") as device:
        commits = 0
        commit = device._storage._transact

        def count(*arguments: object) -> None:
            nonlocal commits
            commits += 1
            commit(*arguments)

        device._storage._transact = count
        await asyncio.gather(*(device.send("", str(i)) for i in range(500)))
        assert commits <= 3
    assert node.backend.payloads() == [str(i).encode() for i in range(500)]


async def test_order_holds_between_messages_that_are_kept_and_those_that_are_not(
    node: FakeNode, make_device: MakeDevice, tmp_path: Path
) -> None:
    async with make_device(state=tmp_path / "d-1.db") as device:
        await asyncio.gather(*(device.send("", str(i), ttl_s=0 if i % 2 else 60) for i in range(20)))
    assert node.backend.payloads() == [str(i).encode() for i in range(20)]


async def test_a_closed_device_leaves_its_outbox_to_the_next(
    node: FakeNode, make_device: MakeDevice, tmp_path: Path
) -> None:
    path = tmp_path / "d-1.db"
    node.is_mute = True
    outcomes: list[object] = []
    async with make_device(state=path) as device:
        sends = [asyncio.ensure_future(device.send("", str(i), "k", collapse_key="c")) for i in range(3)]
        await until(lambda: len(node.link.of(Send)) == 3)
    for send in sends:
        with pytest.raises(DeviceClosed):
            await send
    node.is_mute = False
    async with make_device(state=path, on_sent=lambda *outcome: outcomes.append(outcome)) as device:
        await device.drained()
        later = await device.send("", b"later")
        assert later.message_id not in [outcome[0] for outcome in outcomes]
    assert node.backend.payloads() == [b"0", b"1", b"2", b"later"]
    assert len(outcomes) == 3
    async with make_device(state=path) as device:
        assert device.unsent == 0


async def test_what_waited_longer_than_its_ttl_while_the_process_was_down_is_not_sent(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers, tmp_path: Path
) -> None:
    path = tmp_path / "d-1.db"
    node.is_mute = True
    async with make_device(state=path) as device:
        sends = [asyncio.ensure_future(device.send("", str(ttl_s), ttl_s=ttl_s)) for ttl_s in (10, 100, -1)]
        await until(lambda: len(node.link.of(Send)) == 3)
    await asyncio.gather(*sends, return_exceptions=True)
    await clock.advance(50)
    node.is_mute = False
    async with make_device(state=path) as device:
        await device.drained()
    assert node.backend.payloads() == [b"100", b"-1"]
    assert [send.ttl_s for send in node.link.of(Send)] == [50, -1]


async def test_what_was_set_aside_stays_so_over_a_restart(
    node: FakeNode, make_device: MakeDevice, tmp_path: Path
) -> None:
    path = tmp_path / "d-1.db"
    node.on_send = lambda link, frame, send: Close(4009, "bad", True, 60_000)
    async with make_device(state=path) as device:
        with pytest.raises(SetAside):
            await device.send("", b"bad")
    node.on_send = lambda link, frame, send: node.backend.accept("d-1", send)
    async with make_device(state=path) as device:
        (aside,) = device.set_aside_messages()
        assert (aside.payload, aside.why) == (b"bad", "4009 bad")
        assert node.backend.accepted == []
        device.retry(aside.message_id)
        await device.drained()
    async with make_device(state=path) as device:
        assert device.set_aside_messages() == []
    assert node.backend.payloads() == [b"bad"]


async def test_the_file_remembers_the_last_4096_messages(tmp_path: Path, clock: ManualTimers) -> None:
    storage = StateFile(tmp_path / "d-1.db", clock)
    await storage.open("d-1")
    for number in range(6_000):
        storage.remember(number.to_bytes(16), lambda error: None)
    await storage.close()
    again = StateFile(tmp_path / "d-1.db", clock)
    kept = await again.open("d-1")
    assert kept.handled == [number.to_bytes(16) for number in range(6_000 - MEMORY_OF_MESSAGES, 6_000)]
    await again.close()
    with sqlite3.connect(tmp_path / "d-1.db") as database:
        (rows,) = database.execute("SELECT count(*) FROM handled").fetchone()
    database.close()
    assert rows < MEMORY_OF_MESSAGES + 1_000


async def test_answered_messages_leave_the_file_within_a_second(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers, tmp_path: Path
) -> None:
    async with make_device(state=tmp_path / "d-1.db") as device:
        await device.send("", b"x")
        storage = device._storage
        await until(lambda: storage._commit is None)
        assert storage._pending  # lazily, along with the next commit
        await clock.advance(1.1)
        await until(lambda: not storage._pending and storage._commit is None)


async def test_two_processes_cannot_be_the_same_device_by_accident(make_device: MakeDevice, tmp_path: Path) -> None:
    path = tmp_path / "d-1.db"
    async with make_device(state=path):
        with pytest.raises(StateError, match="another process"):
            async with make_device(state=path):
                pass
    with pytest.raises(StateError, match="belongs to device d-1"):
        async with make_device("d-2", state=path):
            pass


@pytest.mark.parametrize("content", [b"this is no database, and longer than a header needs to be" * 20])
async def test_a_file_that_is_no_state_is_refused_by_name(
    make_device: MakeDevice, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "d-1.db"
    path.write_bytes(content)
    with pytest.raises(StateError, match=r"d-1\.db"):
        async with make_device(state=path):
            pass
    with pytest.raises(StateError):
        async with make_device(state=tmp_path / "missing" / "d-1.db"):
            pass
    assert path.read_bytes() == content


async def test_a_full_disk_fails_the_send_and_the_device_goes_on(
    node: FakeNode, make_device: MakeDevice, tmp_path: Path
) -> None:
    async with make_device(state=tmp_path / "d-1.db") as device:
        database = device._storage._database
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StateError, match="full"):
            await device.send("", b"x" * 50_000)
        assert device.unsent == 0
        database.execute("PRAGMA max_page_count = 1000000")
        await device.send("", b"x" * 50_000)
        assert device.state is State.CONNECTED
    assert len(node.backend.accepted) == 1


async def test_the_outbox_takes_messages_while_the_node_is_away_and_a_timeout_leaves_them(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers, tmp_path: Path
) -> None:
    path = tmp_path / "d-1.db"
    await node.stop()
    async with make_device(state=path) as device:
        send = asyncio.ensure_future(device.send("", b"x", timeout_s=0.01))
        await settle()
        await clock.advance(0.02)
        with pytest.raises(SendTimeout):
            await send
    await node.listen()
    async with make_device(state=path) as device:
        await device.drained()
    assert node.backend.payloads() == [b"x"]


async def test_a_message_is_given_and_acknowledged_although_its_name_does_not_fit_on_the_disk(
    node: FakeNode, make_device: MakeDevice, tmp_path: Path
) -> None:
    errors: list[Exception] = []
    got: list[str] = []
    async with make_device(state=tmp_path / "d-1.db", on_error=errors.append) as device:
        device.on()(lambda message: got.append(message.text()))
        await until(lambda: device._storage._commit is None)
        commit = device._storage._transact

        def full(*_: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        device._storage._transact = full
        node.forgets_acks = True
        node.backend.push("d-1", Push(b"i" * 16, "chat", "", b"x", 1))
        await until(lambda: len(node.link.acked) == 1)
        node.link.deliver(Push(b"i" * 16, "chat", "", b"x", 1))
        await until(lambda: len(node.link.acked) == 2)
        device._storage._transact = commit
    assert got == ["x"]
    assert isinstance(errors[0], StateError)
