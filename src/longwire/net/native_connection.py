"""The native protocol on a connection: bytes go straight through the decoder."""

from typing import TypeVar

from longwire.net.connection import Connection, DevicePort, Flavour
from longwire.reasons import CloseCode
from longwire.wire.native import device_decoder, encode
from longwire.wire.packets import AnyPacket

S = TypeVar("S")


class NativeConnection(Connection[S]):
    """TCP or TLS, native frames."""

    __slots__ = ("_decoder",)

    def __init__(self, port: DevicePort[S]) -> None:
        super().__init__(port, Flavour.NATIVE)
        self._decoder = device_decoder(port.limits.max_body_bytes)

    def data_received(self, data: bytes) -> None:
        if self.is_closing:
            return
        port = self.port
        port.bytes_in += len(data)
        self.heard = port.wheel.tick
        decoder = self._decoder
        if self.session is None:
            self._feed_stranger(data)
            return
        frames = decoder.feed(data)
        if frames:
            self.deliver(frames)
        if decoder.fault is not None and not self.is_closing:
            self.fail(decoder.fault)

    def send(self, packet: AnyPacket, correlation: int = 0, flags: int = 0, trace: bytes = b"") -> None:
        # As Connection.send, in one call: most frames that a node writes go through here.
        if self.is_closing:
            return
        data = encode(packet, correlation, flags, trace)
        self.port.bytes_out += len(data)
        self._transport.write(data)
        if self.is_clogged:
            self._check_unsent()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.session is None:
            self.port.unauthenticated_bytes -= self._decoder.pending_bytes
        super().connection_lost(exc)

    def _feed_stranger(self, data: bytes) -> None:
        """What a connection without a session may make us keep is counted for all of them together."""
        port = self.port
        decoder = self._decoder
        before = decoder.pending_bytes
        frames = decoder.feed(data)
        port.unauthenticated_bytes += decoder.pending_bytes - before
        if frames:
            self.deliver(frames)
        if self.session is not None:
            port.unauthenticated_bytes -= decoder.pending_bytes
        if self.is_closing:
            return
        if decoder.fault is not None:
            self.fail(decoder.fault)
        elif self.session is None and port.unauthenticated_bytes > port.limits.max_unauthenticated_bytes:
            self.close(CloseCode.OVERLOADED, "too many bytes before CONNECT")
