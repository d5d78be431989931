"""The listening socket: its port, TLS on it, and a process that runs out of descriptors."""

import asyncio
import ssl
import subprocess
import sys

import pytest
from raw_peer import Peer

from longwire.limits import Limits
from longwire.net.listener import Listener, tls_context
from longwire.reasons import CloseCode
from longwire.wire.packets import Pong, Push


async def test_the_port_that_was_bound_is_told(shore) -> None:
    second = await shore.listen()
    assert second.port not in (0, shore.listeners[0].port)
    await shore.proved()


async def test_a_port_that_is_taken_is_an_os_error(shore) -> None:
    with pytest.raises(OSError, match="address already in use"):
        await Listener.open(shore.port, "127.0.0.1", shore.listeners[0].port)


async def test_a_port_may_be_shared_by_all_who_say_so(shore) -> None:
    first = await Listener.open(shore.port, "127.0.0.1", 0, reuse_port=True)
    second = await Listener.open(shore.port, "127.0.0.1", first.port, reuse_port=True)
    assert second.port == first.port
    with pytest.raises(OSError, match="address already in use"):
        await Listener.open(shore.port, "127.0.0.1", first.port)
    for listener in (first, second):
        listener.stop_accepting()


async def test_stopping_leaves_what_was_accepted(shore) -> None:
    peer, connection = await shore.proved()
    shore.listeners[0].stop_accepting()
    with pytest.raises(OSError, match=r".*"):
        await Peer.open(shore.listeners[0].port)
    connection.send(Pong(), 3)
    await peer.get(Pong, 3)


async def test_tls_carries_every_flavour_and_its_closes(shore, certificate, flavour) -> None:
    await shore.listen(tls_context(*certificate))
    client = ssl.create_default_context(cafile=certificate[0])
    peer, connection = await shore.proved(flavour, tls=client)
    assert connection.is_tls
    assert connection.peer_address == "127.0.0.1"
    large = Push(bytes(16), "k", "", b'"' + b"x" * 60_000 + b'"', 1)
    for n in range(1, 20):
        connection.send(large, n)
    assert [f.correlation for f in await peer.pushes(19)] == list(range(1, 20))
    connection.close(CloseCode.KICKED, "out")
    assert (await peer.ended()).code == CloseCode.KICKED
    await shore.until(lambda: not shore.port.open)


async def test_a_tls_peer_that_never_reads_is_bounded_too(certificate, shore) -> None:
    shore.port.limits = Limits(high_water_bytes=20_000, max_unsent_bytes=200_000)
    await shore.listen(tls_context(*certificate))
    peer, connection = await shore.proved(tls=ssl.create_default_context(cafile=certificate[0]))
    peer.writer.transport.pause_reading()
    written = 0
    while not connection.is_closing:
        connection.send(Push(bytes(16), "k", "", b"x" * 10_000, 0), 1)
        written += 10_000
        assert written < 100_000_000
        await asyncio.sleep(0)
    assert shore.owner.closes == [CloseCode.SLOW_CONSUMER]
    shore.pass_time(1)
    await shore.until(lambda: not shore.port.open)


async def test_a_tls_peer_that_does_not_close_is_aborted_within_a_second(certificate, shore) -> None:
    await shore.listen(tls_context(*certificate))
    peer, connection = await shore.proved(tls=ssl.create_default_context(cafile=certificate[0]))
    peer.writer.transport.pause_reading()
    connection.close(CloseCode.DRAINING)
    shore.pass_time(1)
    await shore.until(lambda: not shore.port.open)


async def test_what_is_no_tls_gets_nowhere_on_the_tls_port_and_harms_nobody(certificate, shore) -> None:
    listener = await shore.listen(tls_context(*certificate))
    for data in (b"\xa7" * 100, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 50):
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(data)
        try:
            answer = await asyncio.wait_for(reader.read(-1), 20)
        except ConnectionError:
            answer = b""
        assert b"\xa7" not in answer
        writer.transport.abort()
    assert shore.owner.received_frames == []
    await shore.proved(tls=ssl.create_default_context(cafile=certificate[0]))


async def test_old_tls_is_refused(certificate) -> None:
    assert tls_context(*certificate).minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("missing", [0, 1])
async def test_a_certificate_or_key_that_is_not_there_is_an_os_error(certificate, missing) -> None:
    paths = list(certificate)
    paths[missing] += ".not"
    with pytest.raises(OSError, match=r".*"):
        tls_context(*paths)


_OUT_OF_DESCRIPTORS = """
import asyncio, resource
import uvloop
from longwire.limits import Limits
from longwire.net.connection import DevicePort
from longwire.net.listener import Listener
from longwire.net.wheel import Wheel
from longwire.wire import native
from longwire.wire.packets import Ping, Pong

class Owner:
    def received(self, connection, frame): connection.send(Pong(), frame.correlation)
    def closed(self, connection, code): pass
    def drained(self, connection): pass
    def due(self, connection): return 0

async def main():
    loop = asyncio.get_running_loop()
    port = DevicePort(Owner(), Wheel(loop.time), Limits())
    listener = await Listener.open(port, "127.0.0.1", 0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    print(listener.port, flush=True)
    await asyncio.sleep(60)

uvloop.run(main())
"""


async def test_a_process_out_of_descriptors_turns_connections_away_and_takes_later_ones() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _OUT_OF_DESCRIPTORS, stdout=subprocess.PIPE)
    try:
        port = int(await asyncio.wait_for(process.stdout.readline(), 20))
        for _ in range(2):
            peers = [await Peer.open(port) for _ in range(150)]
            alive, refused = [], 0
            for peer in peers:
                try:
                    await peer.ping()
                    alive.append(peer)
                except (EOFError, ConnectionError):
                    refused += 1
            assert refused >= 80
            assert len(alive) >= 10
            for peer in alive:
                await peer.ping()  # those that are in stay in
            for peer in peers:
                await peer.drop()
            # The room that became free is used again.
            async with asyncio.timeout(20):
                while True:
                    try:
                        fresh = await Peer.open(port)
                        await fresh.ping()
                        break
                    except (EOFError, ConnectionError):
                        await asyncio.sleep(0.01)
            await fresh.drop()
    finally:
        process.kill()
        await process.communicate()
