"""The ordered stop: devices are told, whoever does not close is cut off, what was taken is on disk."""

import asyncio
import contextlib
import sqlite3

import pytest
from raw_peer import NATIVE, Peer

from longwire.adapters.sql.accounts import SqlAccounts
from longwire.ids import new_message_id
from longwire.reasons import CloseCode
from longwire.wire.packets import Connect, Request, Send

STOP_GUARD_S = 15.0


class SlowAccounts(SqlAccounts):
    def __init__(self, database) -> None:
        super().__init__(database)
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()

    async def check_tokens(self, token_hashes, now_ms):
        self.asked.set()
        await self.go_on.wait()
        return await super().check_tokens(token_hashes, now_ms)


async def stop_node(house) -> None:
    async with asyncio.timeout(STOP_GUARD_S):
        await house.node.stop()


async def test_every_device_is_told_to_come_back_at_a_moment_of_its_own(house, flavour) -> None:
    peers = [await house.device(f"d-{n}", flavour) for n in range(8)]
    closes = asyncio.gather(*(peer.ended() for peer in peers))
    await stop_node(house)
    told = await closes
    assert {close.code for close in told} == {CloseCode.DRAINING}
    assert all(close.may_reconnect for close in told)
    waits = {close.retry_after_ms for close in told}
    assert len(waits) > 1
    assert all(0 < wait <= 100 + house.limits.retry_jitter_ms for wait in waits)
    assert len(house.node.hub) == 0
    assert house.registry.nodes() == []
    assert await house.routes.find([house.no_of("d-0")]) == [None]


async def test_a_stop_that_gives_no_time_is_not_undone_either(house) -> None:
    peer = await house.device("d-1")
    house.node.begin_drain(60.0)
    stopping = asyncio.ensure_future(stop_node(house))
    assert (await peer.ended()).code == CloseCode.DRAINING
    house.node.end_drain()
    assert house.node.info().is_draining
    await stopping


async def test_peers_that_do_not_close_do_not_hold_the_stop(house, flavour) -> None:
    peers = [await house.device(f"d-{n}", flavour) for n in range(3)]
    for peer in peers:
        peer.writer.transport.pause_reading()
    await stop_node(house)
    await house.until(lambda: not house.node.device_port.open)


async def test_who_has_not_said_who_it_is_is_not_waited_for(house, flavour) -> None:
    said_nothing = await house.peer()
    half_way = await house.peer(flavour)
    half_way.raw(half_way.encode(Connect("t", "d"), 1)[:-1])
    await house.until(lambda: len(house.node.device_port.open) == 2 and house.node.device_port.bytes_in > 10)
    told = asyncio.ensure_future(half_way.ended())
    await stop_node(house)
    assert (await told).code == CloseCode.DRAINING
    with pytest.raises(EOFError):
        await said_nothing.next()


async def test_a_device_that_is_being_checked_is_told_and_gets_no_session(houses) -> None:
    house = houses()
    slow = SlowAccounts(house.database)
    house.with_engines(accounts=slow)
    await house.start()
    await house.register("d-1")
    peer = await house.peer()
    peer.send(Connect("t-d-1", "d-1"), 1)
    await slow.asked.wait()
    stopping = asyncio.ensure_future(stop_node(house))
    assert (await peer.ended()).code == CloseCode.DRAINING
    slow.go_on.set()
    await stopping
    assert len(house.node.hub) == 0
    assert await house.routes.find([house.no_of("d-1")]) == [None]


async def test_nobody_gets_in_any_more(house) -> None:
    staying = await house.device("d-1")
    staying.writer.transport.pause_reading()
    stopping = asyncio.ensure_future(stop_node(house))
    await house.until(lambda: house.node._admission.is_draining)
    await asyncio.sleep(0)
    with contextlib.suppress(ConnectionError, EOFError):
        peer = await Peer.open(house.node.port_number, NATIVE)
        peer.send(Connect("t-d-1", "d-1"), 1)
        frame = await peer.next()
        assert frame.packet.code in (CloseCode.DRAINING, CloseCode.OVERLOADED)
    await stopping


async def test_what_was_taken_before_the_stop_is_on_disk_after_it(houses, tmp_path, app) -> None:
    house = await houses(sends_per_s=100_000, send_burst=100_000).start()
    await house.register("d-2")
    sender = await house.device("d-1")
    await sender.tell("device:d-2")
    sender.raw(
        b"".join(
            sender.encode(Send(new_message_id(), "device:d-2", "k", b"%d" % n), n, receipt=True) for n in range(500)
        )
    )
    await house.until(lambda: house.node.counters.sends == 501)
    await stop_node(house)
    await house.database.stop()
    with contextlib.closing(sqlite3.connect(tmp_path / "longwire.db")) as connection:
        assert connection.execute("SELECT COUNT(*) FROM inbox").fetchone() == (501,)


async def test_running_handlers_may_end_and_those_that_do_not_are_cancelled(houses, app, monkeypatch) -> None:
    monkeypatch.setattr("longwire.gateway.node._TASKS_END_WITHIN_S", 0.05)
    cancelled = []

    @app.on_connect
    async def came(session) -> None:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            cancelled.append(session.device_id)
            raise

    house = await houses().start()
    await house.device("d-1")
    await stop_node(house)
    assert cancelled == ["d-1"]


async def test_a_handler_that_will_not_be_cancelled_does_not_hold_the_stop(houses, app, monkeypatch, caplog) -> None:
    monkeypatch.setattr("longwire.gateway.node._TASKS_END_WITHIN_S", 0.05)
    monkeypatch.setattr("longwire.gateway.tasks._CANCELLED_WITHIN_S", 0.05, raising=False)
    go_on = asyncio.Event()

    @app.request("stubborn")
    async def stubborn(payload: bytes) -> None:
        while not go_on.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait_for(asyncio.shield(go_on.wait()), 30)

    house = await houses().start()
    peer = await house.device("d-1")
    peer.send(Request("stubborn", b""), 1)
    await peer.ping()
    await stop_node(house)
    go_on.set()
    await asyncio.gather(*house.node._tasks._running, return_exceptions=True)
    assert "would not end" in caplog.text
