"""A WebSocket on a connection: the upgrade, then native frames or JSON in its messages (PROTOCOL §6)."""

from typing import TypeVar

from longwire.errors import RemoteProtocolError
from longwire.net.connection import Connection, DevicePort, Flavour
from longwire.reasons import CloseCode
from longwire.wire import json_text, native
from longwire.wire.packets import Close, Received
from longwire.wire.websocket import (
    Decoder,
    Opcode,
    Request,
    ServerHandshake,
    accept_response,
    encode,
    encode_close,
    parse_close,
    refuse_response,
)
from longwire.wire.websocket.frames import CLOSE_NO_STATUS, CLOSE_NORMAL, CLOSE_UNACCEPTABLE_DATA
from longwire.wire.websocket.handshake import Refusal

S = TypeVar("S")

PATH = "/ws"
SUBPROTOCOL_BINARY = "longwire.v1"
SUBPROTOCOL_JSON = "longwire.v1.json"


class WebSocketConnection(Connection[S]):
    """TCP or TLS, WebSocket frames.

    A subclass that carries something else in them overrides ``judge``, ``choose`` and ``take``.
    """

    __slots__ = ("_decoder", "_handshake", "_native")

    def __init__(self, port: DevicePort[S]) -> None:
        super().__init__(port, Flavour.WEBSOCKET_BINARY)
        self._handshake: ServerHandshake | None = ServerHandshake()
        self._decoder: Decoder | None = None
        self._native: native.Decoder | None = None

    def data_received(self, data: bytes) -> None:
        if self.is_closing:
            return
        self.port.bytes_in += len(data)
        self.heard = self.port.wheel.tick
        if self.session is None and not self.counts_as_stranger(len(data)):
            return
        if self._handshake is not None:
            self._shake(self._handshake, data)
        else:
            self._feed(data)

    def let_go(self) -> None:
        self._transport.write(encode_close(CLOSE_NORMAL, ""))
        self.leave(None)

    def farewell(self, packet: Close) -> bytes:
        if self._decoder is None:
            retry_s = -(-packet.retry_after_ms // 1000)
            return refuse_response(503, packet.reason, retry_after_s=retry_s)
        return super().farewell(packet) + encode_close(packet.code, packet.reason)

    def _shake(self, handshake: ServerHandshake, data: bytes) -> None:
        request = handshake.feed(data)
        refusal = handshake.refusal
        if request is not None:
            if self._learn_client(request):
                return
            refusal = self.judge(request)
        if refusal is not None:
            self._transport.write(refuse_response(refusal.status, refusal.message))
            self.leave(None)
        elif request is not None:
            self._accept(request, handshake.trailing)

    def _learn_client(self, request: Request) -> bool:
        """Takes the client's address from a trusted proxy's X-Forwarded-For; whether that ended the connection."""
        port, peer = self.port, self.peer_address
        if peer not in port.trusted_proxies:
            return False
        client = port.trusted_proxies.client_of(peer, request.headers.get("x-forwarded-for", ""))
        if client == peer:
            return False
        port.client_addresses[self] = client
        refusal = port.admit_client(self, client)
        if refusal is not None:
            self.close(*refusal)
        return refusal is not None

    # For the subclasses

    def judge(self, request: Request) -> Refusal | None:
        """Why an upgrade that RFC 6455 allows is refused here, or None."""
        allowed = self.port.allowed_origins
        if request.path != PATH:
            return Refusal(404, f"there is no WebSocket here; it is at {PATH}")
        if allowed is not None and request.origin is not None and request.origin not in allowed:
            return Refusal(403, "this origin is not in allowed_origins")
        offered = request.subprotocols
        if offered and SUBPROTOCOL_BINARY not in offered and SUBPROTOCOL_JSON not in offered:
            return Refusal(400, f"the sub-protocol is {SUBPROTOCOL_BINARY} or {SUBPROTOCOL_JSON}")
        return None

    def choose(self, request: Request) -> tuple[str | None, Decoder]:
        """The sub-protocol that the response names, and the decoder of the messages that follow."""
        chosen = next((p for p in request.subprotocols if p in (SUBPROTOCOL_BINARY, SUBPROTOCOL_JSON)), None)
        limit = self.port.limits.max_body_bytes
        if chosen == SUBPROTOCOL_JSON:
            self.flavour = Flavour.WEBSOCKET_JSON
            return chosen, Decoder(is_server=True, max_message_bytes=limit)
        self._native = native.device_decoder(limit)
        return chosen, Decoder(is_server=True, max_message_bytes=limit, streams_binary=True)

    def take(self, opcode: int, payload: bytes) -> None:
        """A text or binary message; a piece of one where the decoder streams them."""
        if opcode == Opcode.BINARY and self._native is not None:
            self._deliver_native(self._native, payload)
        elif opcode == Opcode.TEXT and self._native is None:
            self._deliver_json(payload)
        else:
            kind = "binary" if self._native is not None else "text"
            self._fail_websocket(CLOSE_UNACCEPTABLE_DATA, f"this sub-protocol's messages are {kind}")

    # Own

    def _accept(self, request: Request, trailing: bytes) -> None:
        self._handshake = None
        chosen, self._decoder = self.choose(request)
        self._transport.write(accept_response(request, chosen))
        if trailing:
            self._feed(trailing)

    def _feed(self, data: bytes) -> None:
        decoder = self._decoder
        assert decoder is not None
        for opcode, payload in decoder.feed(data):
            if self.is_closing:
                return
            if opcode == Opcode.BINARY or opcode == Opcode.TEXT:
                self.take(opcode, payload)
            elif opcode == Opcode.PING:
                self.write(encode(Opcode.PONG, payload))
            elif opcode == Opcode.CLOSE:
                code, _ = parse_close(payload)
                self._transport.write(encode_close(CLOSE_NORMAL if code == CLOSE_NO_STATUS else code, ""))
                self.leave(None)
        if decoder.fault is not None and not self.is_closing:
            self._fail_websocket(decoder.fault.code, decoder.fault.reason)

    def _deliver_native(self, codec: native.Decoder, payload: bytes) -> None:
        frames = codec.feed(payload)
        if frames:
            self.deliver(frames)
        if codec.fault is not None and not self.is_closing:
            self.fail(codec.fault)

    def _deliver_json(self, text: bytes) -> None:
        try:
            frame: Received = json_text.decode(text, "device", self.port.limits.max_body_bytes)
        except RemoteProtocolError as fault:
            self.fail(fault)
        else:
            self.deliver([frame])

    def _fail_websocket(self, code: int, reason: str) -> None:
        """A violation of RFC 6455 itself closes with that RFC's code; its peer may not even speak our protocol."""
        self._transport.write(encode_close(code, reason))
        self.leave(CloseCode.PROTOCOL_ERROR)
