"""One session with a node: from CONNECT to the end of its connection.

    opened ─► CONNECT ──► CONNECTED ──► frames both ways, PING, RENEW ──► CLOSE, silence or loss ─► ended

A session does not come back: ``ended`` resolves once, and the attachment makes the next one. What frames mean
for messages and calls is its host's; a session keeps the connection alive and its token fresh. Its own frames
carry rising correlation ids: the highest one answered says up to where the node has read without fault.
"""

import asyncio
import random
from typing import NamedTuple, Protocol

from longwire.client.timers import MAX_DELAY_S, Timer, Timers
from longwire.client.transport import Connection
from longwire.errors import RemoteProtocolError
from longwire.reasons import CloseCode
from longwire.wire import native
from longwire.wire.packets import (
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

_SILENT_INTERVALS = 1.5
_RENEW_AT = (0.7, 0.85)
_RENEW_AGAIN_S = 30.0
_LEAST_RENEW_S = 0.5
_LAST_CORRELATION = 0xFFFF_FFFF


class End(NamedTuple):
    """How a session, or the attempt at one, ended."""

    code: int
    """A close code of PROTOCOL §4; 0: lost, or never made."""
    reason: str
    may_reconnect: bool = True
    retry_after_ms: int = 0
    is_from_node: bool = False
    """Whether the node said so, in CLOSE or a WebSocket close frame."""


class Host(Protocol):
    """What a session reports to. It is called from ``data_received``: no call may wait or raise."""

    def connected(self, session: "Session", terms: Connected) -> None: ...

    def pushed(self, session: "Session", frame: Received, push: Push) -> None: ...

    def sent(self, session: "Session", correlation: int, sent: Sent) -> None: ...

    def replied(self, session: "Session", correlation: int, reply: Reply) -> None: ...

    def asked(self, session: "Session", correlation: int, request: Request) -> None: ...

    def told_to_move(self, session: "Session", move: Move) -> None: ...

    def renewed(self, session: "Session", renewed: Renewed) -> None: ...

    def ready(self, session: "Session") -> None:
        """What one read brought is handled, or the connection has drained: more can be written."""
        ...

    def over(self, session: "Session", end: End) -> None:
        """Nothing comes from this session any more, and nothing can be written; before ``ended`` resolves."""
        ...


class Session:
    """See the module. A session is its connection's peer, and holds no message: those are the host's."""

    def __init__(self, host: Host, connect: Connect, node_id: str, timers: Timers, rng: random.Random) -> None:
        loop = asyncio.get_running_loop()
        self.node_id = node_id
        """As the api named it, and from CONNECTED on as the node itself does: behind a balancer it may be another."""
        self.max_body_bytes = 0
        self.connected_at: float = 0
        """By the monotonic clock; 0 before CONNECTED."""
        self.established: asyncio.Future[bool] = loop.create_future()
        """Resolves with CONNECTED to True, or with an end that came before to False."""
        self.ended: asyncio.Future[End] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        """Resolves when the connection is closed to its last byte."""
        self.has_asked = False
        """Whether CONNECT was written: from then on the older session of this device may be taken over."""
        self.confirmed = 0
        """The highest correlation id that was answered."""
        self.last_other = 0
        """Of the application's frames that are not the outbox's, the last: it is read once this is confirmed."""
        self._host = host
        self._connect = connect
        self._timers = timers
        self._random = rng
        self._connection: Connection | None = None
        self._correlation = 0
        self._interval_s = float(connect.heartbeat_s)
        self._heard_at = self._written_at = self._pinged_at = 0.0
        self._unheard_ping_at: float | None = None
        self._beat_timer: Timer | None = None
        self._renew_timer: Timer | None = None

    @property
    def is_live(self) -> bool:
        """Whether CONNECTED came and the end did not."""
        return self.connected_at > 0 and not self.ended.done()

    @property
    def is_writable(self) -> bool:
        """Whether the connection takes more without piling up."""
        return self._connection is not None and self._connection.is_writable

    # What the device writes.

    def ask(self, packet: AnyPacket, flags: int = 0) -> int:
        """Writes a frame under the next correlation id, which it returns."""
        if self._correlation == _LAST_CORRELATION:
            self.finish(End(0, "the correlation ids of this connection are used up"))
            return 0
        self._correlation += 1
        self._write(native.encode(packet, self._correlation, flags))
        return self._correlation

    def ask_other(self, packet: Request | Send) -> int:
        """As ``ask``, for the application's frames that are not the outbox's."""
        self.last_other = self.ask(packet)
        return self.last_other

    def tell(self, packet: AnyPacket, correlation: int = 0) -> None:
        """Writes a frame that no answer comes to, under a correlation id of the node's."""
        self._write(native.encode(packet, correlation))

    def tell_other(self, packet: Reply, correlation: int) -> None:
        """As ``tell``, for the application's frames."""
        self.last_other = self._correlation + 1
        self.tell(packet, correlation)

    def finish(self, end: End) -> None:
        """Ends the session from our side; what was written still goes out."""
        self._end(end)
        if self._connection is not None:
            self._connection.close()

    def abort(self, end: End) -> None:
        """Ends the session and drops the connection with what was not sent."""
        self._end(end)
        if self._connection is not None:
            self._connection.abort()

    def _write(self, frame: bytes) -> None:
        if self._connection is not None and not self.ended.done():
            self._written_at = self._timers.monotonic()
            self._connection.write(frame)

    # What the connection reports.

    def attached(self, connection: Connection) -> None:
        self._connection = connection
        if self.ended.done():
            connection.abort()

    def opened(self) -> None:
        self.has_asked = True
        self.ask(self._connect)

    def received(self, frames: list[Received]) -> None:
        self._heard_at = self._timers.monotonic()
        self._unheard_ping_at = None
        for frame in frames:
            if self.ended.done():
                return
            self._handle(frame)
        if self.is_live:
            self._host.ready(self)

    def faulted(self, fault: RemoteProtocolError) -> None:
        if self.ended.done():
            return
        code = fault.code if fault.code >= 4000 else CloseCode.PROTOCOL_ERROR
        self.tell(Close(code, fault.reason, True, 0))
        self.finish(End(code, f"the node broke the protocol: {fault.reason}"))

    def told_to_close(self, code: int, reason: str, retry_after_ms: int) -> None:
        self.finish(End(code, reason, code < CloseCode.TAKEN_OVER, retry_after_ms, is_from_node=True))

    def writable(self) -> None:
        if self.is_live:
            self._host.ready(self)

    def lost(self, error: Exception | None) -> None:
        self._end(End(0, f"connection lost: {error}" if error else "connection lost"))
        self._connection = None
        if not self.gone.done():
            self.gone.set_result(None)

    def _handle(self, frame: Received) -> None:
        packet = frame.packet
        correlation = frame.correlation
        match packet:
            case Push():
                self._host.pushed(self, frame, packet)
            case Sent():
                self._confirm(correlation)
                self._host.sent(self, correlation, packet)
            case Request():
                self._host.asked(self, correlation, packet)
            case Reply():
                self._confirm(correlation)
                self._host.replied(self, correlation, packet)
            case Ping():
                self.tell(Pong(), correlation)
            case Pong():
                self._confirm(correlation)
            case Connected():
                self._established(packet, correlation)
            case Renewed():
                self._confirm(correlation)
                self._plan_renewal(packet.expires_in_s)
                self._host.renewed(self, packet)
            case Move():
                self._host.told_to_move(self, packet)
            case Close():
                self.finish(
                    End(packet.code, packet.reason, packet.may_reconnect, packet.retry_after_ms, is_from_node=True)
                )

    def _established(self, terms: Connected, correlation: int) -> None:
        if self.connected_at > 0:
            return
        self._confirm(correlation)
        self.connected_at = self._timers.monotonic()
        self.node_id = terms.node_id or self.node_id
        self.max_body_bytes = terms.max_body_bytes
        self._interval_s = float(max(terms.heartbeat_s, 1))
        self._plan_beat()
        self._plan_renewal(terms.token_expires_in_s)
        if not self.established.done():
            self.established.set_result(True)
        if terms.missed:
            self.ask(Ping())  # any frame of ours says that we were told, and the count is not told again
        self._host.connected(self, terms)

    def _confirm(self, correlation: int) -> None:
        if self.confirmed < correlation <= self._correlation:
            self.confirmed = correlation

    def _end(self, end: End) -> None:
        if self.ended.done():
            return
        self.ended.set_result(end)
        if not self.established.done():
            self.established.set_result(False)
        for timer in (self._beat_timer, self._renew_timer):
            if timer is not None:
                timer.cancel()
        self._beat_timer = self._renew_timer = None
        if self._connection is None and not self.gone.done():
            self.gone.set_result(None)
        self._host.over(self, end)

    # Heartbeat (PROTOCOL §5): PING when nothing was written, or nothing heard, for an interval.

    def _plan_beat(self) -> None:
        due_at = max(self._pinged_at, min(self._written_at, self._heard_at)) + self._interval_s
        if self._unheard_ping_at is not None:
            due_at = min(due_at, self._unheard_ping_at + _SILENT_INTERVALS * self._interval_s)
        self._beat_timer = self._timers.call_later(max(0.0, due_at - self._timers.monotonic()), self._beat)

    def _beat(self) -> None:
        now = self._timers.monotonic()
        silent_s = _SILENT_INTERVALS * self._interval_s
        if self._unheard_ping_at is not None and now >= self._unheard_ping_at + silent_s:
            self.abort(End(0, f"nothing heard for {silent_s:g} s after a PING"))
            return
        if now >= max(self._pinged_at, min(self._written_at, self._heard_at)) + self._interval_s:
            self._pinged_at = now
            if self._unheard_ping_at is None:
                self._unheard_ping_at = now
            self.ask(Ping())
        self._plan_beat()

    # Renewal (DESIGN §9): well before the token's end, at a random moment, so that a fleet does not meet.

    def _plan_renewal(self, expires_in_s: float) -> None:
        if self._renew_timer is not None:
            self._renew_timer.cancel()
            self._renew_timer = None
        if expires_in_s > 0:
            delay_s = max(expires_in_s * self._random.uniform(*_RENEW_AT), _LEAST_RENEW_S)
            ends_at = self._timers.monotonic() + expires_in_s
            self._renew_timer = self._timers.call_later(delay_s, lambda: self._renew(ends_at))

    def _renew(self, ends_at: float) -> None:
        left_s = ends_at - self._timers.monotonic()
        if left_s > MAX_DELAY_S:
            self._plan_renewal(left_s)  # the timer was capped: it is not time yet
            return
        self.ask(Renew())
        again_s = max(min(_RENEW_AGAIN_S, left_s / 2), _LEAST_RENEW_S)
        self._renew_timer = self._timers.call_later(again_s, lambda: self._renew(ends_at))
