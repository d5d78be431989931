"""The first byte of a connection: which protocol it speaks, and whether it may stay."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar, cast

from longwire.net.connection import Abortable, Connection, DevicePort, Refusal
from longwire.net.native_connection import NativeConnection
from longwire.net.websocket_connection import WebSocketConnection
from longwire.reasons import CloseCode
from longwire.wire.sniff import Protocol, sniff

S = TypeVar("S")

Speakers = Mapping[Protocol, Callable[[DevicePort[S]], Connection[S]]]
"""For each protocol, what makes its connections."""


def speakers() -> Speakers[S]:
    """The protocols of the device port."""
    return {Protocol.NATIVE: NativeConnection, Protocol.WEBSOCKET: WebSocketConnection}


class Sniffer(asyncio.Protocol, Generic[S]):
    """Stands in for the connection until its first byte has come, then hands the transport on."""

    __slots__ = ("_port", "_speakers", "_transport", "due_slot")

    def __init__(self, port: DevicePort[S], speakers: Speakers[S]) -> None:
        self._port = port
        self._speakers = speakers
        self._transport: asyncio.Transport
        self.due_slot = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio.Transport in all but their class.
        self._transport = cast("asyncio.Transport", transport)
        self._port.open.add(self)
        self._port.wheel.add(self, self._port.handshake_ticks)

    def data_received(self, data: bytes) -> None:
        port = self._port
        protocol = sniff(data[0])
        port.open.discard(self)
        if protocol is None:
            port.wheel.remove(self)
            self._transport.abort()
            return
        connection = self._speakers[protocol](port)
        # One deadline for the whole handshake: a first byte does not begin another.
        port.wheel.replace(self, connection)
        refusal = self.admit(connection)
        self._transport.set_protocol(connection)
        connection.connection_made(self._transport)
        if refusal is not None:
            connection.close(*refusal)
            return
        connection.data_received(data)

    def admit(self, connection: Abortable) -> Refusal | None:
        """Why the connection that begins here is turned away, or None."""
        return self._port.admit(connection, self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._port.wheel.remove(self)
        self._port.open.discard(self)

    def dismiss(self, code: CloseCode) -> None:
        self.abort()

    def abort(self) -> None:
        self._transport.abort()

    def on_due(self) -> int:
        # Nothing is known of its protocol: it ends without a word (PROTOCOL §1).
        self._transport.abort()
        return 0
