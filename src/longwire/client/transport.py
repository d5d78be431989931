"""A connection to a node as an asyncio protocol: TCP or TLS, bare or inside WebSocket.

    socket ─► data_received ─► [WebSocket decoder] ─► native decoder ─► peer.received(frames)
    write(frame) ─► gathered until the loop's turn ends ─► [one WebSocket message] ─► socket

It knows frames and nothing of what they mean. It has no task and no timer: deadlines are the session's.
"""

import asyncio
import os
import ssl
from typing import Protocol, cast

from msgspec import Struct

from longwire.errors import RemoteProtocolError
from longwire.limits import MAX_CLIENT_BODY_BYTES
from longwire.reasons import CloseCode
from longwire.wire import native, websocket
from longwire.wire.packets import Received

SUBPROTOCOL = "longwire.v1"

# RFC 6455's own codes for what ours say in CLOSE: the same fault, and the same consequence.
_WEBSOCKET_FAULTS = {
    1002: CloseCode.PROTOCOL_ERROR,
    1003: CloseCode.PROTOCOL_ERROR,
    1007: CloseCode.PROTOCOL_ERROR,
    1009: CloseCode.TOO_LARGE,
}
_WEBSOCKET_NORMAL = 1000


class Endpoint(Struct, frozen=True):
    """Where a node listens."""

    node_id: str
    host: str
    port: int
    websocket_path: str | None = None
    """None: bare TCP."""


class Peer(Protocol):
    """Who is behind a connection on our side. Every call comes from the event loop."""

    def attached(self, connection: "Connection") -> None:
        """The transport stands; with WebSocket the handshake is still to come."""
        ...

    def opened(self) -> None:
        """Frames can be written."""
        ...

    def received(self, frames: list[Received]) -> None:
        """Bytes came, and these frames are whole now; often none."""
        ...

    def faulted(self, fault: RemoteProtocolError) -> None:
        """The node's bytes break the protocol; nothing more will be received."""
        ...

    def told_to_close(self, code: int, reason: str, retry_after_ms: int) -> None:
        """The node ended the connection by other means than CLOSE: a WebSocket close, a refused upgrade."""
        ...

    def writable(self) -> None:
        """What was written has drained; only after ``Connection.is_writable`` was False."""
        ...

    def lost(self, error: Exception | None) -> None:
        """The connection is gone; the last call."""
        ...


class Connection(asyncio.Protocol):
    """Frames over TCP or TLS."""

    def __init__(self, peer: Peer) -> None:
        self.is_writable = True
        self._peer = peer
        self._decoder = native.node_decoder(MAX_CLIENT_BODY_BYTES)
        self._transport: asyncio.Transport | None = None
        self._unsent: list[bytes] = []
        self._loop = asyncio.get_running_loop()

    def write(self, frame: bytes) -> None:
        """Sends a frame with what else this turn of the loop brings; nothing after the end."""
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(frame)

    def close(self) -> None:
        """Ends the connection once what was written is out."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Ends the connection now."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._peer.attached(self)
        self._begin()

    def data_received(self, data: bytes) -> None:
        self._decode(data)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.is_writable = False

    def resume_writing(self) -> None:
        self.is_writable = True
        self._peer.writable()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._unsent.clear()
        self._peer.lost(exc)

    def _begin(self) -> None:
        self._peer.opened()

    def _decode(self, data: bytes) -> None:
        frames = self._decoder.feed(data)
        self._peer.received(frames)
        if self._decoder.fault is not None:
            self._peer.faulted(self._decoder.fault)

    def _flush(self) -> None:
        if self._unsent:
            data = self._unsent[0] if len(self._unsent) == 1 else b"".join(self._unsent)
            self._unsent.clear()
            self._send(data)

    def _send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


class WebSocketConnection(Connection):
    """Frames inside binary WebSocket messages, sub-protocol ``longwire.v1``."""

    def __init__(self, peer: Peer, endpoint: Endpoint) -> None:
        super().__init__(peer)
        self._endpoint = endpoint
        self._key = websocket.new_key()
        self._handshake: websocket.ClientHandshake | None = websocket.ClientHandshake(self._key, [SUBPROTOCOL])
        self._messages = websocket.Decoder(
            is_server=False, max_message_bytes=MAX_CLIENT_BODY_BYTES, streams_binary=True
        )

    def close(self) -> None:
        self._flush()
        if self._handshake is None:
            super()._send(websocket.encode_close(_WEBSOCKET_NORMAL, "", os.urandom(4)))
        super().close()

    def _begin(self) -> None:
        host = f"[{self._endpoint.host}]" if ":" in self._endpoint.host else self._endpoint.host
        path = self._endpoint.websocket_path or "/"
        super()._send(websocket.client_request(f"{host}:{self._endpoint.port}", path, self._key, [SUBPROTOCOL]))

    def data_received(self, data: bytes) -> None:
        handshake = self._handshake
        if handshake is not None:
            response = handshake.feed(data)
            if response is None:
                if handshake.fault is not None:
                    answer = handshake.answer
                    wait = answer.headers.get("retry-after", "") if answer is not None else ""
                    wait_ms = min(int(wait), 86_400) * 1000 if wait.isdigit() else 0
                    self._peer.told_to_close(0, handshake.fault.reason, wait_ms)
                return
            self._handshake = None
            self._peer.opened()
            data = handshake.trailing
        for opcode, payload in self._messages.feed(data):
            match opcode:
                case websocket.Opcode.BINARY:
                    self._decode(payload)
                case websocket.Opcode.PING:
                    super()._send(websocket.encode(websocket.Opcode.PONG, payload, os.urandom(4)))
                case websocket.Opcode.CLOSE:
                    code, reason = websocket.parse_close(payload)
                    ours = _WEBSOCKET_FAULTS.get(code, code if code >= 4000 else 0)
                    self._peer.told_to_close(ours, reason or f"WebSocket close {code}", 0)
                case websocket.Opcode.TEXT:
                    self._peer.faulted(RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "text message"))
        if self._messages.fault is not None:
            self._peer.faulted(self._messages.fault)

    def _send(self, data: bytes) -> None:
        super()._send(websocket.encode(websocket.Opcode.BINARY, data, os.urandom(4)))


async def connect(endpoint: Endpoint, peer: Peer, tls: ssl.SSLContext | None) -> None:
    """Opens a connection; ``peer.opened`` comes when frames can be written, with WebSocket after the return.

    Raises OSError (of which ``ssl.SSLError`` is one). A cancelled call leaves no connection behind.
    """
    made: list[Connection] = []

    def make() -> Connection:
        is_bare = endpoint.websocket_path is None
        made.append(Connection(peer) if is_bare else WebSocketConnection(peer, endpoint))
        return made[-1]

    try:
        await asyncio.get_running_loop().create_connection(make, endpoint.host, endpoint.port, ssl=tls)
    except BaseException:
        for connection in made:
            connection.abort()
        raise
