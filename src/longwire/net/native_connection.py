"""The native protocol on a connection: bytes go straight through the decoder."""

from typing import TypeVar

from longwire.net.connection import Connection, DevicePort, Flavour
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
        if self.session is None and not self.counts_as_stranger(len(data)):
            return
        decoder = self._decoder
        # As deliver, in one call less: most frames that a node reads come through here.
        received = port.receiver.received
        try:
            for frame in decoder.feed(data):
                if self.is_closing:
                    return
                received(self, frame)
        except Exception as error:  # noqa: BLE001 - one connection ends, never the loop
            self.fail_inside(error)
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
