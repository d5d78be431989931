"""The first bytes of a connection where proxies stand in front: whom it is relayed for, then the protocol.

    trusted peer      PROXY header ─► (TLS) ─► protocol, under the client's address
                      HTTP ─► WebSocket, which finds the client in X-Forwarded-For
                      anything else: refused
    any other peer    PROXY header: refused
                      anything else ─► protocol, under its own address

Nothing is guessed: who the peer is tells what it has to begin with. All of it, TLS included, falls under the
deadline of the handshake. A refusal is said in the peer's protocol where that is known.
"""

import asyncio
import logging
import ssl
from typing import TypeVar, cast

from longwire.net.connection import Abortable, DevicePort, Refusal, address_of
from longwire.net.sniffer import Sniffer, Speakers
from longwire.net.wheel import ticks
from longwire.reasons import CloseCode
from longwire.wire.proxy_protocol import HeaderReader, begins_header
from longwire.wire.sniff import Protocol, sniff

log = logging.getLogger(__name__)

S = TypeVar("S")

TLS_HANDSHAKE_TIMEOUT_S = 10.0
TLS_SHUTDOWN_TIMEOUT_S = 1.0
# A stranger's refusals are counted each and logged at this pace.
_SAID_EACH_TICKS = ticks(10.0)


class ProxiedSniffer(Sniffer[S]):
    """Reads the PROXY header, takes up TLS where the listener has it, and goes on as any sniffer."""

    __slots__ = ("_client", "_context", "_is_sniffing", "_reader", "_refusal", "_securing")

    def __init__(self, port: DevicePort[S], speakers: Speakers[S], context: ssl.SSLContext | None) -> None:
        super().__init__(port, speakers)
        self._context = context
        self._reader: HeaderReader | None = None
        self._client: str | None = None
        self._refusal: Refusal | None = None
        self._is_sniffing = False
        self._securing: asyncio.Task[None] | None = None

    def data_received(self, data: bytes) -> None:
        if self._is_sniffing:
            super().data_received(data)
        elif self._reader is not None:
            self._read(self._reader, data)
        elif begins_header(data[0]):
            self._reader = HeaderReader()
            self._read(self._reader, data)
        else:
            self._go_without(data)

    def admit(self, connection: Abortable) -> Refusal | None:
        if self._client is not None:
            self._port.client_addresses[connection] = self._client
        return self._refusal or super().admit(connection)

    def _read(self, reader: HeaderReader, data: bytes) -> None:
        header = reader.feed(data)
        if reader.fault is not None:
            self._note(f"{reader.fault.reason} (from {self._peer})")
            self.abort()
        elif header is not None:
            self._reader = None
            if self._is_trusted:
                self._client = header.client
            else:
                self._refuse(f"PROXY header from {self._peer}, which is not in trusted_proxies")
            self._go_on(reader.trailing)

    def _go_without(self, data: bytes) -> None:
        """No header: right for those who speak for themselves, and for HTTP, which has a header of its own."""
        if self._is_trusted and (self._context is not None or sniff(data[0]) is not Protocol.WEBSOCKET):
            self._refuse(f"no PROXY header from {self._peer}, which is in trusted_proxies")
            if self._context is not None:
                self.abort()
                return
        self._go_on(data)

    def _go_on(self, data: bytes) -> None:
        """What follows is the client's."""
        if self._context is not None:
            loop = asyncio.get_running_loop()
            self._securing = loop.create_task(self._secure(self._context))
            if data:
                # Behind start_tls's own two steps, in the loop turn of the second, and so before anything is read.
                loop.call_soon(loop.call_soon, self._hand_over, data)
            return
        self._is_sniffing = True
        if data:
            super().data_received(data)

    async def _secure(self, context: ssl.SSLContext) -> None:
        """Takes up TLS under what is left of the deadline: the wheel aborts the transport."""
        if self._transport.is_closing():
            return
        secured = None
        try:
            secured = await asyncio.get_running_loop().start_tls(
                self._transport,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=TLS_HANDSHAKE_TIMEOUT_S,
                ssl_shutdown_timeout=TLS_SHUTDOWN_TIMEOUT_S,
            )
        except OSError:  # ssl.SSLError is one
            self.abort()
        if secured is None or secured.is_closing():
            self.connection_lost(None)
            return
        self._transport = secured
        self._is_sniffing = True

    def _hand_over(self, data: bytes) -> None:
        """Gives TLS what was read behind the header."""
        if self._transport.is_closing():
            return
        # uvloop's TLS is a BufferedProtocol in all but its class.
        protocol = cast("asyncio.BufferedProtocol", self._transport.get_protocol())
        while data:
            room = memoryview(protocol.get_buffer(len(data)))
            taken = min(len(room), len(data))
            room[:taken] = data[:taken]
            protocol.buffer_updated(taken)
            data = data[taken:]

    @property
    def _peer(self) -> str:
        return address_of(self._transport)

    @property
    def _is_trusted(self) -> bool:
        return self._peer in self._port.trusted_proxies

    def _refuse(self, reason: str) -> None:
        self._refusal = CloseCode.PROTOCOL_ERROR, reason
        self._note(reason)

    def _note(self, reason: str) -> None:
        port = self._port
        port.proxy_refusals += 1
        if port.proxy_refusals == 1 or port.wheel.tick - port.refusal_said_at >= _SAID_EACH_TICKS:
            port.refusal_said_at = port.wheel.tick
            log.warning("connection refused: %s; %d of them so far", reason, port.proxy_refusals)
