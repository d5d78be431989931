"""Connections behind proxies: whose they are, who may say so, and what becomes of those that begin otherwise."""

import asyncio
import ipaddress
import logging
import ssl
import struct

import pytest
from raw_peer import Peer

from longwire.net.listener import tls_context
from longwire.net.trusted import TrustedProxies
from longwire.reasons import CloseCode
from longwire.wire import native
from longwire.wire.packets import Ping, Pong
from longwire.wire.proxy_protocol import SIGNATURE

CLIENT = "203.0.113.7"
LINE = f"PROXY TCP4 {CLIENT} 198.51.100.1 4711 7300\r\n".encode()
BINARY = SIGNATURE + struct.pack(">BBH", 0x21, 0x11, 12) + ipaddress.ip_address(CLIENT).packed + bytes(8)
LOCAL = SIGNATURE + struct.pack(">BBH", 0x20, 0, 0)
UNKNOWN = b"PROXY UNKNOWN\r\n"


@pytest.fixture(autouse=True)
async def proxied(shore):
    """Loopback is a trusted proxy here, and the shore's last listener wants its headers."""
    shore.port.trusted_proxies = TrustedProxies(["127.0.0.1"])
    await shore.listen(takes_proxy_header=True)


@pytest.fixture
def stranger(shore):
    """Loopback is nobody in particular."""
    shore.port.trusted_proxies = TrustedProxies(["10.0.0.0/8"])


async def end_of(shore, *parts: bytes) -> bytes:
    """Sends, and reads to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", shore.listeners[-1].port)
    try:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0)
        return await asyncio.wait_for(reader.read(-1), 20)
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("header", [LINE, BINARY])
async def test_a_connection_is_its_clients(shore, flavour, header) -> None:
    peer, connection = await shore.proved(flavour, first=header)
    assert connection.peer_address == CLIENT
    connection.send(Pong(), 3)
    await peer.answer(3)
    await peer.drop()
    await shore.until(lambda: not shore.port.open)
    assert not shore.port.client_addresses
    assert shore.port.proxy_refusals == 0


@pytest.mark.parametrize("header", [LINE, BINARY])
async def test_a_header_in_pieces_is_the_same(shore, header) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", shore.listeners[-1].port)
    for byte in header + native.encode(Ping(), 1):
        writer.write(bytes([byte]))
        await asyncio.sleep(0)
    await shore.until(lambda: shore.owner.connections)
    assert shore.owner.connections[0].peer_address == CLIENT
    writer.close()


@pytest.mark.parametrize("header", [LOCAL, UNKNOWN])
async def test_a_proxy_that_speaks_for_itself_has_its_own_address(shore, header) -> None:
    _, connection = await shore.proved(first=header)
    assert connection.peer_address == "127.0.0.1"
    assert not shore.port.client_addresses


async def test_admission_judges_the_client_and_not_the_proxy(shore) -> None:
    seen = []
    shore.port.admit = lambda connection, transport: seen.append(shore.port.client_address(connection, transport))
    await shore.proved(first=LINE)
    assert seen == [CLIENT]


# Who may say so


@pytest.mark.parametrize("header", [LINE, BINARY])
@pytest.mark.usefixtures("stranger")
async def test_a_header_of_a_peer_that_is_not_trusted_is_refused_in_its_own_protocol(
    shore, flavour, header, caplog
) -> None:
    if flavour == "native":
        peer = await shore.peer(first=header)
        peer.send(Ping(), 1)
        close = await peer.ended()
        assert close.code == CloseCode.PROTOCOL_ERROR
        assert "trusted_proxies" in close.reason
    else:
        answer = await end_of(shore, header, b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"127.0.0.1, which is not in trusted_proxies" in answer
    assert shore.owner.received_frames == []
    assert shore.port.proxy_refusals == 1
    assert not shore.port.client_addresses
    assert "PROXY header from 127.0.0.1, which is not in trusted_proxies" in caplog.text


@pytest.mark.usefixtures("stranger")
async def test_a_peer_that_is_not_trusted_speaks_for_itself(shore, flavour) -> None:
    _, connection = await shore.proved(flavour, headers={"X-Forwarded-For": CLIENT})
    assert connection.peer_address == "127.0.0.1"
    assert shore.port.proxy_refusals == 0


async def test_a_trusted_peer_without_a_header_is_refused(shore, caplog) -> None:
    peer = await shore.peer()
    peer.send(Ping(), 1)
    close = await peer.ended()
    assert close.code == CloseCode.PROTOCOL_ERROR
    assert close.reason == "no PROXY header from 127.0.0.1, which is in trusted_proxies"
    assert shore.owner.received_frames == []
    assert close.reason in caplog.text


async def test_refusals_are_counted_each_and_logged_at_a_pace(shore, caplog) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(5):
        assert await end_of(shore, b"PROXY nonsense\r\n") == b""
    assert shore.port.proxy_refusals == 5
    assert caplog.text.count("refused") == 1
    shore.pass_time(10)
    await end_of(shore, b"PROXY nonsense\r\n")
    assert "6 of them so far" in caplog.text


@pytest.mark.parametrize(
    "data", [b"PROXY TCP4 1.2.3.4\r\n", b"POST / HTTP/1.1\r\n", b"\r\n\r\nQUIT", b"PROXY " + bytes(200)]
)
async def test_what_is_no_header_ends_without_a_word(shore, data) -> None:
    assert await end_of(shore, data) == b""
    await shore.until(lambda: not shore.port.open)


async def test_a_second_header_is_the_clients_and_changes_nothing(shore) -> None:
    answer = await end_of(shore, LINE + LINE.replace(CLIENT.encode(), b"192.0.2.66") + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert shore.owner.received_frames == []


# WebSockets, which have a header of their own


@pytest.mark.parametrize("listens_for_headers", [True, False])
async def test_a_websocket_of_a_trusted_peer_is_who_it_is_forwarded_for(shore, listens_for_headers) -> None:
    if not listens_for_headers:
        await shore.listen()
    headers = {"X-Forwarded-For": f"192.0.2.66, {CLIENT}"}
    _, connection = await shore.proved("binary", headers=headers)
    assert connection.peer_address == CLIENT
    _, connection = await shore.proved("json")
    assert connection.peer_address == "127.0.0.1"


async def test_a_clients_own_x_forwarded_for_is_not_believed_behind_a_header(shore) -> None:
    _, connection = await shore.proved("binary", first=LINE, headers={"X-Forwarded-For": "192.0.2.66"})
    assert connection.peer_address == CLIENT


async def test_a_websockets_client_is_admitted_by_its_own_address(shore) -> None:
    asked = []

    def refuse(connection, address):
        asked.append(address)
        return CloseCode.OVERLOADED, "too many of yours"

    shore.port.admit_client = refuse
    answer = await end_of(
        shore,
        b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"too many of yours" in answer
    assert asked == [CLIENT]
    await shore.until(lambda: not shore.port.open)
    assert not shore.port.client_addresses


# The deadline


@pytest.mark.parametrize("sent", [LINE[:9], BINARY[:20], LINE, BINARY, b""])
async def test_a_header_or_what_follows_that_does_not_come_falls_under_the_deadline(shore, sent) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", shore.listeners[-1].port)
    await shore.until(lambda: shore.port.open)
    for byte in sent:
        writer.write(bytes([byte]))
        shore.pass_time(0.05)
        await asyncio.sleep(0)
    assert shore.port.open
    shore.pass_time(5)
    assert await asyncio.wait_for(reader.read(-1), 20) == b""
    writer.close()
    await shore.until(lambda: not shore.port.open)
    assert all(not slot for slot in shore.wheel._slots)
    assert shore.owner.closes == []


async def test_a_peer_that_goes_within_its_header_leaves_nothing(shore) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", shore.listeners[-1].port)
    writer.write(LINE[:9])
    await shore.until(lambda: shore.port.open)
    writer.transport.abort()
    await shore.until(lambda: not shore.port.open)
    assert all(not slot for slot in shore.wheel._slots)


# TLS behind the header


@pytest.fixture
async def secured(shore, certificate) -> ssl.SSLContext:
    await shore.listen(tls_context(*certificate), takes_proxy_header=True)
    return ssl.create_default_context(cafile=certificate[0])


@pytest.mark.parametrize("header", [LINE, BINARY])
async def test_tls_comes_after_the_header(shore, secured, flavour, header) -> None:
    peer, connection = await shore.proved(flavour, first=header, tls=secured)
    assert connection.is_tls
    assert connection.peer_address == CLIENT
    await shore.until(lambda: len(shore.port.open) == 1)
    connection.close(CloseCode.KICKED, "out")
    assert (await peer.ended()).code == CloseCode.KICKED
    await shore.until(lambda: not shore.port.open)
    assert not shore.port.client_addresses


async def test_tls_and_its_header_may_come_in_any_pieces(shore, secured) -> None:
    """The client's bytes, and the header's, through a relay that takes them apart."""
    for size in (1, 7, len(LINE), len(LINE) + 1, 300, 100_000):
        count = len(shore.owner.connections)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = secured.wrap_bio(incoming, outgoing, server_hostname="localhost")
        reader, writer = await asyncio.open_connection("127.0.0.1", shore.listeners[-1].port)
        waiting = LINE
        is_said = False
        while len(shore.owner.connections) == count:
            try:
                tls.do_handshake()
                if not is_said:
                    tls.write(native.encode(Ping(), 1))
                    is_said = True
            except ssl.SSLWantReadError:
                pass
            waiting += outgoing.read()
            for at in range(0, len(waiting), size):
                writer.write(waiting[at : at + size])
                await asyncio.sleep(0)
            waiting = b""
            if is_said:
                await shore.until(lambda count=count: len(shore.owner.connections) > count)
            else:
                incoming.write(await asyncio.wait_for(reader.read(1 << 16), 20))
        assert shore.owner.connections[-1].peer_address == CLIENT
        writer.transport.abort()


@pytest.mark.usefixtures("stranger")
async def test_a_stranger_speaks_tls_for_itself_and_is_refused_with_a_header(shore, secured) -> None:
    _, connection = await shore.proved(tls=secured)
    assert connection.peer_address == "127.0.0.1"
    peer = await shore.peer(tls=secured, first=LINE)
    peer.send(Ping(), 1)
    assert (await peer.ended()).code == CloseCode.PROTOCOL_ERROR


async def test_a_trusted_peer_that_begins_with_tls_is_dropped(shore, secured, caplog) -> None:
    with pytest.raises((ConnectionError, ssl.SSLError)):
        await Peer.open(shore.listeners[-1].port, tls=secured)
    assert "no PROXY header from 127.0.0.1" in caplog.text
    await shore.until(lambda: not shore.port.open)


async def test_what_is_no_tls_behind_a_header_ends_and_harms_nobody(shore, secured) -> None:
    for data in (b"\xa7" * 100, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(50)):
        answer = await end_of(shore, LINE + data)
        assert b"\xa7" not in answer
    await shore.until(lambda: not shore.port.open)
    assert all(not slot for slot in shore.wheel._slots)
    await shore.proved(first=LINE, tls=secured)


async def test_tls_behind_a_header_falls_under_the_same_deadline(shore, secured) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", shore.listeners[-1].port)
    writer.write(LINE + b"\x16\x03\x01\x02\x00\x01")
    await shore.until(lambda: any(getattr(one, "_securing", None) for one in shore.port.open))
    shore.pass_time(5)
    assert await asyncio.wait_for(reader.read(-1), 20) == b""
    writer.close()
    await shore.until(lambda: not shore.port.open)


async def test_a_peer_that_goes_within_tls_leaves_nothing(shore, secured) -> None:
    for data in (LINE, LINE + b"\x16\x03\x01\x02\x00\x01"):
        _, writer = await asyncio.open_connection("127.0.0.1", shore.listeners[-1].port)
        writer.write(data)
        await shore.until(lambda: any(getattr(one, "_securing", None) for one in shore.port.open))
        writer.transport.abort()
        await shore.until(lambda: not shore.port.open)
    assert all(not slot for slot in shore.wheel._slots)
