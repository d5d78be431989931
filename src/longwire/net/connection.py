"""A device's connection: a byte pipe that speaks one protocol, with a bound on what it has not sent.

This file owns writing, closing and the water marks; the subclasses own the codec. A connection has no task,
timer, queue, lock or logger: the wheel calls it when it is due, the loop when bytes come.

    transport ─► data_received ─► codec.feed ─► port.receiver.received(connection, frame)
    send(packet) ─► encode for this flavour ─► transport.write        (the loop joins a turn's writes)
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable
from enum import IntEnum
from typing import Generic, Protocol, TypeVar, cast

from longwire.errors import RemoteProtocolError
from longwire.limits import Limits
from longwire.net.trusted import TrustedProxies
from longwire.net.wheel import TICK_S, Wheel, ticks
from longwire.reasons import CloseCode
from longwire.wire import json_text, native
from longwire.wire.packets import AnyPacket, Close, Received
from longwire.wire.websocket import Opcode
from longwire.wire.websocket import encode as encode_websocket

log = logging.getLogger(__name__)

S = TypeVar("S")

# A CLOSE that nobody reads holds the connection this long (PROTOCOL §4 grants a second).
_LINGER_TICKS = int(1.0 / TICK_S) - 1
# The loop's own default, which needs no call for each connection.
_LOOPS_HIGH_WATER_BYTES = 65_536
# At least so much behind CONNECT is taken before the device is known (PROTOCOL §2); as much again goes to upgrading.
_HELD_BYTES = 2 * 65_536


class Flavour(IntEnum):
    """How the bytes of one frame look on a connection: what is encoded once serves all of one flavour."""

    NATIVE = 0
    WEBSOCKET_BINARY = 1
    WEBSOCKET_JSON = 2


def encode(flavour: int, packet: AnyPacket, correlation: int = 0, flags: int = 0, trace: bytes = b"") -> bytes:
    """The bytes of a frame as a node writes them to a connection of this flavour."""
    if flavour == Flavour.NATIVE:
        return native.encode(packet, correlation, flags, trace)
    if flavour == Flavour.WEBSOCKET_BINARY:
        return encode_websocket(Opcode.BINARY, native.encode(packet, correlation, flags, trace))
    return encode_websocket(Opcode.TEXT, json_text.encode(packet, correlation, flags, trace))


class Receiver(Protocol[S]):
    """What a connection tells its owner. Calls come from the loop; none may wait."""

    def received(self, connection: "Connection[S]", frame: Received) -> None:
        """A whole frame has come."""
        ...

    def closed(self, connection: "Connection[S]", code: CloseCode | None) -> None:
        """The connection ends, once: with the code we closed it with, or None where the peer went away."""
        ...

    def drained(self, connection: "Connection[S]") -> None:
        """What was not sent has fallen below low water again."""
        ...

    def due(self, connection: "Connection[S]") -> int:
        """The wheel has come round; gives the ticks until the next look, 0 for none."""
        ...


Refusal = tuple[CloseCode, str]
"""Why a connection is turned away: the code it closes with, and a sentence."""


class Abortable(Protocol):
    """A connection, whatever is known of it."""

    def dismiss(self, code: CloseCode) -> None:
        """Ends it for a reason of the node's own, which is told where its protocol is known."""
        ...

    def abort(self) -> None:
        """Ends it now, without a word."""
        ...


class DevicePort(Generic[S]):
    """What every connection of a process shares."""

    def __init__(self, receiver: Receiver[S], wheel: Wheel, limits: Limits) -> None:
        self.receiver = receiver
        self.wheel = wheel
        self.limits = limits
        self.handshake_ticks = ticks(limits.handshake_timeout_s)
        self.low_water_bytes = limits.high_water_bytes // 4
        self.allowed_origins: frozenset[str] | None = None
        """Origins a browser may come from; None: any."""
        self.open: set[Abortable] = set()
        """Every connection that has not ended, the ones without a protocol too."""
        self.addresses: dict[Abortable, str] = {}
        """The client addresses of connections that admission counts."""
        self.address_counts: Counter[str] = Counter()
        self.trusted_proxies = TrustedProxies(())
        """Who is believed when it says whose connection it relays."""
        self.client_addresses: dict[Abortable, str] = {}
        """The addresses of clients whose connections a trusted proxy relays."""
        self.proxy_refusals = 0
        """Connections that did not begin as their peer has to where proxies stand in front (proxied.py)."""
        self.refusal_said_at = 0
        """The tick at which the last of those was logged."""
        self.unauthenticated_bytes = 0
        """Bytes that came on connections which have not proved who they are."""
        self.most_stranger_bytes = limits.max_body_bytes + _HELD_BYTES
        """Bytes that one of those may send before it is read no further."""
        self.bytes_in = 0
        self.bytes_out = 0
        self.admit: Callable[[Abortable, asyncio.Transport], Refusal | None] = lambda _connection, _transport: None
        """Admission: why this connection is turned away, or None."""
        self.admit_client: Callable[[Abortable, str], Refusal | None] = lambda _connection, _address: None
        """Admission, again, where the client's address is only known from what it sends."""

    def forget(self, connection: Abortable) -> None:
        """A connection is gone."""
        self.open.discard(connection)
        if self.client_addresses:
            self.client_addresses.pop(connection, None)
        if self.addresses:
            address = self.addresses.pop(connection, None)
            if address is not None:
                self.address_counts[address] -= 1
                if not self.address_counts[address]:
                    del self.address_counts[address]

    def client_address(self, connection: Abortable, transport: asyncio.Transport) -> str:
        """The address of who is at the other end, behind a trusted proxy, too; "" where nobody knows it."""
        return self.client_addresses.get(connection) or address_of(transport)

    def count_address(self, connection: Abortable, address: str) -> None:
        """Counts the connection under its client's address until it is gone."""
        self.addresses[connection] = address
        self.address_counts[address] += 1

    def retry_after_ms(self) -> int:
        """A random moment for a client to come back, so that they do not all come at once."""
        return 100 + int(random.random() * self.limits.retry_jitter_ms)  # noqa: S311 - a jitter is no secret


class Connection(asyncio.Protocol, Generic[S]):
    """One connection. ``session`` is the receiver's to set; it is None until the device has proved itself."""

    __slots__ = (
        "_transport",
        "due_slot",
        "flavour",
        "heard",
        "held",
        "is_clogged",
        "is_closing",
        "port",
        "session",
        "stranger_bytes",
    )

    def __init__(self, port: DevicePort[S], flavour: Flavour) -> None:
        self.port = port
        self.flavour: int = flavour
        self.session: S | None = None
        self.held: list[Received] | None = None
        """Frames that came behind CONNECT while it was being checked; None before CONNECT and after."""
        self.stranger_bytes = 0
        """Bytes that came before the device had proved itself; 0 from then on."""
        self.due_slot = -1
        self.heard = port.wheel.tick
        """The tick of the last bytes that came."""
        self.is_closing = False
        self.is_clogged = False
        """Whether unsent bytes are above high water."""
        self._transport: asyncio.Transport

    # Called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio.Transport in all but their class.
        self._transport = cast("asyncio.Transport", transport)
        if self.port.limits.high_water_bytes != _LOOPS_HIGH_WATER_BYTES:
            self._transport.set_write_buffer_limits(self.port.limits.high_water_bytes, self.port.low_water_bytes)
        self.port.open.add(self)
        if self.due_slot < 0:
            self.port.wheel.add(self, self.port.handshake_ticks)

    def connection_lost(self, exc: Exception | None) -> None:
        self.port.wheel.remove(self)
        self.port.forget(self)
        if not self.is_closing:
            self._end(None)

    def pause_writing(self) -> None:
        self.is_clogged = True

    def resume_writing(self) -> None:
        self.is_clogged = False
        if not self.is_closing:
            self.port.receiver.drained(self)

    # Called by the wheel

    def on_due(self) -> int:
        if self.is_closing:
            self._transport.abort()
            return 0
        return self.port.receiver.due(self)

    # Called by the receiver

    @property
    def peer_address(self) -> str:
        """The client's address, "" where nobody knows it."""
        return self.port.client_address(self, self._transport)

    @property
    def is_tls(self) -> bool:
        return self._transport.get_extra_info("sslcontext") is not None

    def send(self, packet: AnyPacket, correlation: int = 0, flags: int = 0, trace: bytes = b"") -> None:
        """Writes a packet; nothing happens on a connection that is closing."""
        self.write(encode(self.flavour, packet, correlation, flags, trace))

    def write(self, data: bytes) -> None:
        """Writes the bytes of whole frames of this connection's flavour.

        A peer that does not read is closed as a slow consumer once the unsent bytes pass the limit.
        """
        if self.is_closing:
            return
        self.port.bytes_out += len(data)
        self._transport.write(data)
        if self.is_clogged:
            self._check_unsent()

    def _check_unsent(self) -> None:
        limit = self.port.limits.max_unsent_bytes
        if self._transport.get_write_buffer_size() > limit:
            self.close(CloseCode.SLOW_CONSUMER, f"more than {limit} bytes unsent")

    def close(self, code: CloseCode, reason: str = "", retry_after_ms: int | None = None) -> None:
        """Tells the peer why, ends the session at once and the connection within a second."""
        if self.is_closing:
            return
        self.is_closing = True
        if retry_after_ms is None:
            retry_after_ms = self.port.retry_after_ms() if code.may_reconnect else 0
        packet = Close(
            int(code), reason or code.label, code.may_reconnect, max(retry_after_ms, code.least_retry_after_ms)
        )
        self._transport.write(self.farewell(packet))
        self.leave(code)

    def fail(self, fault: RemoteProtocolError) -> None:
        """Closes for what the peer did wrong, with one of our codes."""
        self.close(CloseCode(fault.code), fault.reason)

    def abort(self) -> None:
        """Ends the connection now, without a word."""
        self._transport.abort()

    def dismiss(self, code: CloseCode) -> None:
        self.close(code)

    def let_go(self) -> None:
        """Ends the connection as its peer asked."""
        self.leave(None)

    def proved(self) -> None:
        """The device is known now: what it sends is no stranger's any more."""
        was_paused = self.stranger_bytes > self.port.most_stranger_bytes
        self._forget_stranger()
        if was_paused and not self.is_closing:
            self._transport.resume_reading()

    # For the subclasses

    def counts_as_stranger(self, size: int) -> bool:
        """Counts bytes of a device that has not proved itself; False where they are too many for all together.

        One that sends too much by itself is not read any further until it has.
        """
        port = self.port
        self.stranger_bytes += size
        port.unauthenticated_bytes += size
        if port.unauthenticated_bytes > port.limits.max_unauthenticated_bytes:
            self.close(CloseCode.OVERLOADED, "too many bytes before CONNECT")
            return False
        if self.stranger_bytes > port.most_stranger_bytes:
            self._transport.pause_reading()
        return True

    def farewell(self, packet: Close) -> bytes:
        """The last bytes that go out."""
        return encode(self.flavour, packet)

    def leave(self, code: CloseCode | None) -> None:
        """Ends our half of the stream and goes on reading for a moment.

        Closing a socket with unread bytes resets it, and a reset may overtake the CLOSE at the peer.
        """
        self.is_closing = True
        try:
            if self._transport.can_write_eof() and not self.is_clogged:
                self._transport.write_eof()
            else:
                self._transport.close()
        except OSError:
            # asyncio's own loop shuts the socket down here and now; the peer may have reset it.
            self._transport.abort()
        self.port.wheel.add(self, _LINGER_TICKS)
        self._end(code)

    def deliver(self, frames: list[Received]) -> None:
        """Hands frames to the receiver; an exception there ends this connection, never the loop."""
        receiver = self.port.receiver
        try:
            for frame in frames:
                if self.is_closing:
                    return
                receiver.received(self, frame)
        except Exception as error:  # noqa: BLE001 - one connection ends, never the loop
            self.fail_inside(error)

    def fail_inside(self, error: Exception) -> None:
        """Logs an exception, which is our fault and not the peer's, and closes."""
        log.error("a frame's handler failed; its connection closes", exc_info=error)
        self.close(CloseCode.INTERNAL_ERROR)

    def _forget_stranger(self) -> None:
        self.port.unauthenticated_bytes -= self.stranger_bytes
        self.stranger_bytes = 0

    def _end(self, code: CloseCode | None) -> None:
        self.is_closing = True
        self.held = None
        self._forget_stranger()
        try:
            self.port.receiver.closed(self, code)
        except Exception:
            log.exception("the end of a connection was not handled")
        self.session = None


def address_of(transport: asyncio.Transport) -> str:
    """The peer's IP address, "" where the transport has none."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]).partition("%")[0] if isinstance(peer, tuple) else ""
