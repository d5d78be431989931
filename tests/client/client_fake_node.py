"""A node that behaves: sessions, takeover, durable messages, an inbox that repeats. Tests bend its behaviour.

It speaks the native protocol on TCP and inside WebSocket. Nothing of the real node is in it, so that the SDK
is tested against PROTOCOL.md and not against our own reading of it twice.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Self

from longwire.errors import RemoteProtocolError
from longwire.wire import native, websocket
from longwire.wire.packets import (
    FLAG_RECEIPT,
    Ack,
    AnyPacket,
    Close,
    Connect,
    Connected,
    Move,
    Ping,
    Pong,
    Push,
    Received,
    Renew,
    Renewed,
    Reply,
    Request,
    Send,
    Sent,
)

Answer = Sent | Close | None


class Backend:
    """What the nodes of a fake cluster share: accepted messages and inboxes."""

    def __init__(self) -> None:
        self.accepted: list[Send] = []
        self.seen: set[tuple[str, bytes]] = set()
        self.inboxes: dict[str, list[Push]] = {}
        self.sessions: dict[str, Link] = {}
        self.handle = 4_000_000_000

    def accept(self, device_id: str, send: Send) -> Sent:
        name = (device_id, send.message_id)
        if name in self.seen:
            return Sent(1)
        self.seen.add(name)
        self.accepted.append(send)
        return Sent(0)

    def push(self, device_id: str, push: Push) -> None:
        """Puts a message into an inbox and delivers it where the device has a session."""
        self.inboxes.setdefault(device_id, []).append(push)
        if device_id in self.sessions:
            self.sessions[device_id].deliver(push)

    def payloads(self) -> list[bytes]:
        return [send.payload for send in self.accepted]


class FakeNode:
    """Bend it with: ``on_send``, ``on_connect``, ``terms``, ``is_mute``, ``forgets_acks``, ``replies``."""

    def __init__(self, backend: Backend, node_id: str = "n1", tls: ssl.SSLContext | None = None) -> None:
        self.backend = backend
        self.node_id = node_id
        self.links: list[Link] = []
        self.on_send: Callable[[Link, Received, Send], Answer] = lambda link, frame, send: backend.accept(
            link.device_id, send
        )
        self.on_connect: Callable[[Connect], Close | None] = lambda connect: None
        self.connects: list[Connect] = []
        self.terms = {"heartbeat_s": 60, "missed": 0, "max_body_bytes": 65_536, "token_expires_in_s": 86_400}
        self.is_mute = False
        """Reads everything and says nothing."""
        self.is_frozen = False
        """Accepts connections and never answers CONNECT."""
        self.forgets_acks = False
        self.replies: dict[str, Reply] = {}
        self.renewals: list[str] = []
        self.upgrade_refusal: tuple[int, int] | None = None
        self._tls = tls
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def link(self) -> "Link":
        """The connection that came last."""
        return self.links[-1]

    @property
    def open_links(self) -> "list[Link]":
        return [link for link in self.links if not link.is_lost]

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def listen(self) -> None:
        """Takes connections, after ``stop`` on the same port as before."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Link(self), "127.0.0.1", self.port, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Takes no more connections and drops those there are."""
        if self._server is not None:
            self._server.close()
        for link in self.links:
            link.drop()
        await asyncio.sleep(0)


class Link(asyncio.Protocol):
    """A connection as the fake node sees it."""

    def __init__(self, node: FakeNode) -> None:
        self.node = node
        self.device_id = ""
        self.received: list[Received] = []
        self.written: dict[int, Push] = {}
        self.acked: list[int] = []
        self.ack_frames = 0
        self.is_lost = False
        self.is_websocket = False
        self.fault: RemoteProtocolError | None = None
        self._decoder = native.device_decoder(node.terms["max_body_bytes"])
        self._handshake: websocket.ServerHandshake | None = None
        self._messages: websocket.Decoder | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.node.links.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if self.node.backend.sessions.get(self.device_id) is self:
            del self.node.backend.sessions[self.device_id]

    def drop(self) -> None:
        self.transport.abort()

    def of(self, kind: type[AnyPacket]) -> list[AnyPacket]:
        """The packets of this kind that came."""
        return [frame.packet for frame in self.received if isinstance(frame.packet, kind)]

    def data_received(self, data: bytes) -> None:
        if not self.received and not self.is_websocket and data[:1] == b"G":
            self.is_websocket = True
            self._handshake = websocket.ServerHandshake()
        if self._handshake is not None:
            request = self._handshake.feed(data)
            if request is None:
                return
            if self.node.upgrade_refusal is not None:
                status, retry_after_s = self.node.upgrade_refusal
                self.transport.write(websocket.refuse_response(status, "no", retry_after_s=retry_after_s))
                self.transport.close()
                return
            self.transport.write(websocket.accept_response(request, "longwire.v1"))
            data = self._handshake.trailing
            self._handshake = None
            self._messages = websocket.Decoder(is_server=True, max_message_bytes=1 << 20, streams_binary=True)
        if self._messages is not None:
            for opcode, payload in self._messages.feed(data):
                if opcode == websocket.Opcode.BINARY:
                    self._decode(payload)
                elif opcode == websocket.Opcode.CLOSE:
                    self.transport.close()
            assert self._messages.fault is None, self._messages.fault
            return
        self._decode(data)

    def _decode(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            self.received.append(frame)
            self._handle(frame)
        if self._decoder.fault is not None and self.fault is None:
            self.fault = self._decoder.fault
            self.close(self.fault.code, self.fault.reason, 60_000)

    def _handle(self, frame: Received) -> None:
        packet = frame.packet
        node = self.node
        if isinstance(packet, Connect):
            self._connect(packet, frame.correlation)
        elif node.is_mute or self.transport.is_closing():
            pass
        elif isinstance(packet, Ping):
            self.write(Pong(), frame.correlation)
        elif isinstance(packet, Send):
            answer = node.on_send(self, frame, packet)
            if isinstance(answer, Close):
                self.close(answer.code, answer.reason, answer.retry_after_ms, answer.may_reconnect)
            elif answer is not None and frame.wants_receipt:
                self.write(answer, frame.correlation)
        elif isinstance(packet, Ack):
            self.ack_frames += 1
            for handle in [frame.correlation, *packet.handles]:
                self._ack(handle)
        elif isinstance(packet, Renew):
            token = f"renewed-{len(node.renewals) + 1}"
            node.renewals.append(token)
            self.write(Renewed(token, node.terms["token_expires_in_s"]), frame.correlation)
        elif isinstance(packet, Request):
            reply = node.replies.get(packet.method)
            if reply is not None:
                self.write(reply, frame.correlation)

    def _connect(self, connect: Connect, correlation: int) -> None:
        node = self.node
        node.connects.append(connect)
        if node.is_frozen:
            return
        refusal = node.on_connect(connect)
        if refusal is not None:
            self.close(refusal.code, refusal.reason, refusal.retry_after_ms, refusal.may_reconnect)
            return
        backend = node.backend
        self.device_id = connect.device_id
        older = backend.sessions.get(self.device_id)
        backend.sessions[self.device_id] = self
        if older is not None:
            older.close(4100, "taken over")
        terms = node.terms
        self.write(
            Connected(
                f"s{len(node.connects)}",
                terms["heartbeat_s"],
                node.node_id,
                1_764_000_000_000,
                terms["missed"],
                terms["max_body_bytes"],
                terms["token_expires_in_s"],
            ),
            correlation,
        )
        for push in backend.inboxes.get(self.device_id, []):
            self.deliver(push)

    def _ack(self, handle: int) -> None:
        push = self.written.get(handle)
        assert push is not None, f"ACK of handle {handle}, which was never written here"
        self.acked.append(handle)
        inbox = self.node.backend.inboxes.get(self.device_id, [])
        if not self.node.forgets_acks and push in inbox:
            inbox.remove(push)

    def deliver(self, push: Push, flags: int = FLAG_RECEIPT) -> int:
        """Writes a PUSH under a new handle."""
        self.node.backend.handle += 1
        handle = self.node.backend.handle
        self.written[handle] = push
        self.write(push, handle, flags)
        return handle

    def write(self, packet: AnyPacket, correlation: int = 0, flags: int = 0) -> None:
        self.write_bytes(native.encode(packet, correlation, flags))

    def write_bytes(self, frame: bytes) -> None:
        if self.is_websocket:
            frame = websocket.encode(websocket.Opcode.BINARY, frame)
        self.transport.write(frame)

    def move(self, within_ms: int, address: str) -> None:
        self.write(Move(within_ms, "draining", address))

    def close(self, code: int, reason: str = "", retry_after_ms: int = 0, may_reconnect: bool | None = None) -> None:
        """CLOSE, then the end of the stream."""
        if may_reconnect is None:
            may_reconnect = code < 4100
        self.write(Close(code, reason, may_reconnect, retry_after_ms))
        if self.is_websocket:
            self.transport.write(websocket.encode_close(code, reason))
        self.transport.close()
