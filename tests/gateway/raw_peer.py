"""A device that is nothing but the protocol: raw bytes, frames, no rules of its own. Speaks all three flavours."""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Mapping
from typing import TypeVar

from longwire.ids import new_message_id
from longwire.wire import json_text, native, websocket
from longwire.wire.packets import (
    FLAG_RECEIPT,
    Ack,
    AnyPacket,
    Close,
    Connect,
    Connected,
    Ping,
    Pong,
    Push,
    Received,
    Reply,
    Request,
    Send,
    Sent,
)

P = TypeVar("P", bound=AnyPacket)

NATIVE, BINARY, JSON = "native", "binary", "json"
FLAVOURS = (NATIVE, BINARY, JSON)
HANG_GUARD_S = 20.0
_MAX_BODY = 1 << 20
_MASK = b"\x12\x34\x56\x78"


class Peer:
    """One connection. ``next`` gives the node's frames in order, and raises EOFError when the stream has ended."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flavour: str) -> None:
        self.reader, self.writer, self.flavour = reader, writer, flavour
        self.frames: deque[Received] = deque()
        self.websocket_close: tuple[int, str] | None = None
        self.subprotocol: str | None = None
        self._native = native.node_decoder(_MAX_BODY)
        self._websocket = websocket.Decoder(is_server=False, max_message_bytes=_MAX_BODY)
        self._correlation = 1_000

    @classmethod
    async def open(
        cls,
        port: int,
        flavour: str = NATIVE,
        *,
        path: str = "/ws",
        tls: ssl.SSLContext | None = None,
        origin: str | None = None,
        limit: int = 1 << 16,
        receive_buffer: int | None = None,
        first: bytes = b"",
        source: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> "Peer":
        """``first`` goes out before everything else, TLS included, and in one segment with what comes next."""
        connecting = socket.socket()
        if source:
            connecting.bind((source, 0))
        connecting.setblocking(False)
        if receive_buffer is not None:
            connecting.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(connecting, ("127.0.0.1", port))
            if first:
                connecting.send(first, socket.MSG_MORE)
        except OSError:
            connecting.close()
            raise
        reader, writer = await asyncio.open_connection(
            sock=connecting, ssl=tls, server_hostname="localhost" if tls else None, limit=limit
        )
        peer = cls(reader, writer, flavour)
        if flavour != NATIVE:
            offered = ("longwire.v1",) if flavour == BINARY else ("longwire.v1.json",)
            key = websocket.new_key()
            writer.write(websocket.client_request(f"127.0.0.1:{port}", path, key, offered, origin, headers or {}))
            shake = websocket.ClientHandshake(key, offered)
            response = None
            while response is None:
                response = shake.feed(await peer._read())
            peer.subprotocol = response.subprotocol
            peer._decode(shake.trailing)
        return peer

    # Writing

    def encode(self, packet: AnyPacket, correlation: int = 0, *, receipt: bool = False, trace: bytes = b"") -> bytes:
        flags = FLAG_RECEIPT if receipt else 0
        if self.flavour == NATIVE:
            return native.encode(packet, correlation, flags, trace)
        if self.flavour == BINARY:
            data = native.encode(packet, correlation, flags, trace)
            return websocket.encode(websocket.Opcode.BINARY, data, _MASK)
        text = json_text.encode(packet, correlation, flags, trace)
        return websocket.encode(websocket.Opcode.TEXT, text, _MASK)

    def send(self, packet: AnyPacket, correlation: int = 0, *, receipt: bool = False, trace: bytes = b"") -> None:
        self.writer.write(self.encode(packet, correlation, receipt=receipt, trace=trace))

    def raw(self, data: bytes) -> None:
        self.writer.write(data)

    def ack(self, *handles: int) -> None:
        self.send(Ack(list(handles[1:])), handles[0])

    # Reading

    async def next(self) -> Received:
        while not self.frames:
            self._decode(await self._read())
        return self.frames.popleft()

    async def get(self, kind: type[P], correlation: int | None = None) -> P:
        """The next frame's packet, which is to be of this kind."""
        frame = await self.next()
        assert isinstance(frame.packet, kind), frame
        assert correlation is None or frame.correlation == correlation, frame
        return frame.packet

    async def answer(self, correlation: int) -> AnyPacket:
        """The answer to that correlation id; pushes that come before stay to be read."""
        passed: list[Received] = []
        while True:
            frame = await self.next()
            if frame.correlation == correlation and not isinstance(frame.packet, Push):
                self.frames.extendleft(reversed(passed))
                return frame.packet
            passed.append(frame)

    async def push(self) -> Received:
        """The next frame, which is to be a PUSH."""
        frame = await self.next()
        assert isinstance(frame.packet, Push), frame
        return frame

    async def pushes(self, count: int) -> list[Received]:
        return [await self.push() for _ in range(count)]

    async def ended(self) -> Close:
        """Reads on to the end of the stream; the CLOSE that was the last frame before it."""
        last: Received | None = None
        try:
            while True:
                last = await self.next()
        except EOFError:
            pass
        assert last is not None, "the stream ended without a CLOSE"
        assert isinstance(last.packet, Close), last
        if self.flavour != NATIVE:
            assert self.websocket_close is not None
            assert self.websocket_close[0] == last.packet.code
        self.close()
        return last.packet

    async def drop(self) -> None:
        """Goes away without a word."""
        self.writer.transport.abort()
        await asyncio.sleep(0)

    def close(self) -> None:
        self.writer.close()

    async def _read(self) -> bytes:
        async with asyncio.timeout(HANG_GUARD_S):
            try:
                data = await self.reader.read(1 << 16)
            except ConnectionError as error:
                raise EOFError("reset") from error
        if not data:
            raise EOFError("the stream has ended")
        return data

    def _decode(self, data: bytes) -> None:
        if self.flavour == NATIVE:
            self.frames += self._native.feed(data)
            assert self._native.fault is None
            return
        for opcode, payload in self._websocket.feed(data):
            if opcode == websocket.Opcode.CLOSE:
                self.websocket_close = websocket.parse_close(payload)
            elif opcode == websocket.Opcode.BINARY:
                self.frames += self._native.feed(payload)
            elif opcode == websocket.Opcode.TEXT:
                self.frames.append(json_text.decode(payload, "node", _MAX_BODY))
        assert self._websocket.fault is None

    # Whole exchanges

    async def connect(self, device_id: str, token: str | None = None, **more: object) -> Connected:
        """CONNECT under the token that the world gave the device, and its CONNECTED."""
        self.send(Connect(f"t-{device_id}" if token is None else token, device_id, **more), 1)  # type: ignore[arg-type]
        return await self.get(Connected, 1)

    async def tell(
        self,
        to: str,
        payload: bytes = b'"hi"',
        *,
        message_id: bytes | None = None,
        kind: str = "chat",
        ttl_s: int = -1,
        collapse_key: str = "",
        trace: bytes = b"",
    ) -> Sent:
        """SEND with a receipt, and its SENT."""
        self._correlation += 1
        packet = Send(message_id or new_message_id(), to, kind, payload, ttl_s, collapse_key)
        self.send(packet, self._correlation, receipt=True, trace=trace)
        sent = await self.answer(self._correlation)
        assert isinstance(sent, Sent), sent
        return sent

    def relay(self, to: str, payload: bytes = b'"hi"', *, message_id: bytes | None = None) -> None:
        """SEND without a receipt."""
        self.send(Send(message_id or new_message_id(), to, "chat", payload), 0)

    async def call(self, method: str, payload: bytes = b"{}", timeout_ms: int = 10_000) -> Reply:
        self._correlation += 1
        self.send(Request(method, payload, timeout_ms), self._correlation)
        reply = await self.answer(self._correlation)
        assert isinstance(reply, Reply), reply
        return reply

    async def ping(self) -> None:
        """A PING and its PONG: whatever the node had to say by now has come and lies in ``frames``."""
        self._correlation += 1
        self.send(Ping(), self._correlation)
        assert isinstance(await self.answer(self._correlation), Pong)
