"""A WebSocket on the device port: the upgrade, the two sub-protocols, control frames, and RFC 6455's own closes."""

import asyncio
import json

import pytest
from raw_peer import BINARY, JSON

from longwire.reasons import CloseCode
from longwire.wire import native
from longwire.wire.packets import Close, Ping, Pong
from longwire.wire.websocket import Opcode, encode, encode_close

MASK = b"abcd"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def upgrade(path: str = "/ws", **headers: str) -> bytes:
    lines = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": KEY,
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"GET {path} HTTP/1.1\r\n{head}\r\n".encode()


async def ask(shore, request: bytes) -> tuple[int, str]:
    """The status and the whole text of the answer, read to its end or its empty line."""
    reader, writer = await asyncio.open_connection("127.0.0.1", shore.listeners[-1].port)
    writer.write(request)
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)).decode()
    status = int(head.split()[1])
    text = head if status == 101 else head + (await asyncio.wait_for(reader.read(-1), 20)).decode()
    writer.transport.abort()
    return status, text


async def closed_with(peer) -> int:
    try:
        while True:
            await peer.next()
    except EOFError:
        pass
    assert peer.websocket_close is not None
    return peer.websocket_close[0]


async def test_the_sub_protocols_are_chosen_as_the_client_likes_best(shore) -> None:
    for offered, chosen in [
        ("longwire.v1", "longwire.v1"),
        ("longwire.v1.json", "longwire.v1.json"),
        ("longwire.v1.json, longwire.v1", "longwire.v1.json"),
        ("other, longwire.v1, longwire.v1.json", "longwire.v1"),
    ]:
        status, text = await ask(shore, upgrade(Sec_WebSocket_Protocol=offered))
        assert status == 101
        assert f"Sec-WebSocket-Protocol: {chosen}\r\n" in text
    status, text = await ask(shore, upgrade())
    assert status == 101
    assert "Sec-WebSocket-Protocol" not in text


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (upgrade("/"), 404),
        (upgrade("/ws/"), 404),
        (upgrade("/wss"), 404),
        (upgrade(Sec_WebSocket_Protocol="other"), 400),
        (upgrade(Sec_WebSocket_Key="short"), 400),
        (upgrade(Sec_WebSocket_Version="8"), 426),
        (upgrade(Upgrade=""), 426),
        (b"POST /ws HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET /ws HTTP/1.0\r\nHost: x\r\n\r\n", 505),
        (b"GET nonsense\r\n\r\n", 400),
        (b"GET /ws HTTP/1.1\r\n" + b"X: " + b"y" * 9_000 + b"\r\n\r\n", 431),
    ],
)
async def test_what_is_no_upgrade_is_refused_with_a_status_and_ends(shore, request_bytes, status) -> None:
    got, _ = await ask(shore, request_bytes)
    assert got == status
    assert shore.owner.received_frames == []
    assert shore.owner.closes == [None]


async def test_a_query_is_not_part_of_the_path(shore) -> None:
    assert (await ask(shore, upgrade("/ws?x=1")))[0] == 101


@pytest.mark.parametrize(
    ("allowed", "origin", "status"),
    [
        (None, "https://anywhere", 101),
        (frozenset({"https://shop"}), "https://shop", 101),
        (frozenset({"https://shop"}), "", 101),
        (frozenset({"https://shop"}), "https://evil", 403),
        (frozenset({"https://shop"}), "https://shop.evil", 403),
        (frozenset({"https://shop"}), "null", 403),
        (frozenset(), "https://shop", 403),
    ],
)
async def test_origins_are_checked_where_there_is_a_list_and_an_origin(shore, allowed, origin, status) -> None:
    shore.port.allowed_origins = allowed
    assert (await ask(shore, upgrade(Origin=origin)))[0] == status


async def test_an_upgrade_may_come_byte_by_byte_and_with_frames_behind_it(shore) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", shore.listeners[-1].port)
    data = upgrade() + encode(Opcode.BINARY, native.encode(Ping(), 1), MASK)
    for at in range(len(data)):
        writer.write(data[at : at + 1])
        await asyncio.sleep(0)
    await shore.until(lambda: shore.owner.received_frames)
    writer.transport.abort()
    assert reader is not None


async def test_without_a_sub_protocol_it_is_the_binary_one(shore) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", shore.listeners[-1].port)
    writer.write(upgrade() + encode(Opcode.BINARY, native.encode(Ping(), 1), MASK))
    await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
    await shore.until(lambda: shore.owner.received_frames)
    writer.transport.abort()


async def test_a_message_may_hold_many_frames_and_a_frame_span_messages(shore) -> None:
    peer, connection = await shore.proved(BINARY)
    data = native.encode(Ping(), 2) + native.encode(Ping(), 3) + native.encode(Ping(), 4)
    for part in (data[:5], data[5:30], data[30:]):
        peer.raw(encode(Opcode.BINARY, part, MASK))
    await shore.until(lambda: len(shore.owner.received_frames) == 4)
    assert [f.correlation for f in shore.owner.received_frames] == [1, 2, 3, 4]
    assert not connection.is_closing


async def test_a_json_message_is_one_packet(shore) -> None:
    peer, connection = await shore.proved(JSON)
    peer.raw(encode(Opcode.TEXT, b'{"cmd":"PING","id":9,"unknown":[1]}', MASK))
    await shore.until(lambda: len(shore.owner.received_frames) == 2)
    connection.send(Pong(), 9)
    assert (await peer.next()).correlation == 9


class Ear:
    """A decoder that notes the control frames too."""

    fault = None

    def __init__(self, decoder) -> None:
        self.decoder = decoder
        self.heard: list[tuple[int, bytes]] = []

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        events = self.decoder.feed(data)
        self.heard += events
        return events


async def test_a_ping_of_the_websocket_is_answered_with_its_payload(shore) -> None:
    for kind in (BINARY, JSON):
        peer, _ = await shore.proved(kind)
        ear = peer._websocket = Ear(peer._websocket)
        peer.raw(encode(Opcode.PING, b"hello", MASK) + encode(Opcode.PONG, b"", MASK))
        peer._decode(await peer._read())
        assert ear.heard == [(Opcode.PONG, b"hello")]


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999, None])
async def test_a_close_of_the_websocket_is_answered_and_ends(shore, code) -> None:
    peer, connection = await shore.proved(BINARY)
    peer.raw(encode(Opcode.CLOSE, b"", MASK) if code is None else encode_close(code, "bye", MASK))
    assert await closed_with(peer) == (1000 if code is None else code)
    assert connection.is_closing
    assert shore.owner.closes == [None]


async def test_our_close_is_a_close_packet_and_then_a_close_frame_of_the_same_code(shore) -> None:
    for kind in (BINARY, JSON):
        peer, connection = await shore.proved(kind)
        connection.close(CloseCode.KICKED, "out")
        close = (await peer.next()).packet
        assert isinstance(close, Close)
        assert await closed_with(peer) == close.code == CloseCode.KICKED
        assert peer.websocket_close == (4101, "out")


@pytest.mark.parametrize(
    ("kind", "data", "code"),
    [
        (BINARY, encode(Opcode.TEXT, b"{}", MASK), 1003),
        (JSON, encode(Opcode.BINARY, b"\xa7", MASK), 1003),
        (BINARY, b"\x82\x01x", 1002),  # not masked
        (BINARY, b"\xf2\x80abcd", 1002),  # reserved bits
        (BINARY, b"\x83\x80abcd", 1002),  # reserved opcode
        (BINARY, b"\x80\x80abcd", 1002),  # a continuation of nothing
        (BINARY, b"\x09\x80abcd", 1002),  # a fragmented control frame
        (BINARY, b"\x88\x81abcd\x00", 1002),  # half a close code
        (JSON, encode(Opcode.TEXT, b"\xff\xfe", MASK), 1007),
        (JSON, b"\x81\xff" + (70_000).to_bytes(8, "big") + MASK, 1009),
    ],
)
async def test_violations_of_the_rfc_close_with_its_own_codes(shore, kind, data, code) -> None:
    peer, _ = await shore.proved(kind)
    peer.raw(data)
    assert await closed_with(peer) == code
    assert shore.owner.closes == [CloseCode.PROTOCOL_ERROR]


async def test_frames_before_a_violation_are_handled(shore) -> None:
    peer, _ = await shore.proved(JSON)
    text = json.dumps({"cmd": "PING", "id": 5}).encode()
    peer.raw(encode(Opcode.TEXT, text, MASK) + b"\x81\x00")
    assert await closed_with(peer) == 1002
    assert [f.correlation for f in shore.owner.received_frames] == [1, 5]
