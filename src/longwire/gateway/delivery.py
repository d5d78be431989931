"""Reliable messages on their way to a device: live behind the commit, or from the store when it comes back.

    commit done ─► offer ──┬─ in step ───────────────────────► PUSH, into the window
                           └─ behind (catching up, full, slow) ─► stays in the store
    attached, acked, drained ─► want ─► one read for many sessions ─► PUSH, oldest first

A window holds at most ``limits.window`` unacknowledged messages, among them pushes that a device gets because it came
back (catch_up.py). While a session catches up, new messages reach it through the store, so that none overtakes an
older one. What is not acknowledged is written again after a while.

In a cluster messages of one receiver come from several nodes, out of turn. So a session reads the store from the place
up to which it has read it, never from the newest that was written live, and leaves out what it has under way.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.gateway.broadcasts import Broadcasts
from longwire.gateway.counters import Counters
from longwire.gateway.hub import Hub
from longwire.gateway.session import Arrival, DeviceConnection, Session, Window
from longwire.gateway.tasks import Tasks
from longwire.limits import Limits
from longwire.model import Envelope, InboxQuery, Receipt, Waiting
from longwire.net.wheel import Wheel, ticks
from longwire.ports.across import Across
from longwire.ports.messages import MessageStore
from longwire.push_model import PushMessage
from longwire.reasons import CloseCode
from longwire.traces import NO_TRACES, SAMPLED, Traces
from longwire.wire.packets import FLAG_RECEIPT, Ack, Push, Received, Send

log = logging.getLogger(__name__)

# Bounds what one read brings into memory: 64 sessions of at most 16 messages.
_SESSIONS_A_READ = 64
_MESSAGES_A_READ = 16
_ROWS_A_READ = _SESSIONS_A_READ * _MESSAGES_A_READ
_RECENT = 256
_STORE_RETRY_S = 1.0
_SLICE = 1_000
_MAX_TRACED = 10_000


class LivePushes(Protocol):
    """Those who share the windows: the pushes of devices that came back."""

    def fill(self, session: Session) -> None:
        """The window may have room again."""
        ...

    def repeat(self, session: Session, handle: int, push_no: int) -> bool:
        """Writes one of the window again; False where it is to be forgotten."""
        ...


class _Written(NamedTuple):
    """A traced message that was written and is not acknowledged."""

    device_no: int
    trace: bytes
    message_id: str
    at_ns: int


class Acks:
    """Who of a message's receivers has acknowledged, for a caller that waits for all of them."""

    __slots__ = ("acked_by", "done", "left", "seq")

    def __init__(self, receivers: Sequence[int]) -> None:
        self.seq = 0
        self.left = set(receivers)
        self.acked_by: list[int] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def note(self, device_no: int) -> None:
        """This receiver has."""
        if device_no in self.left:
            self.left.remove(device_no)
            self.acked_by.append(device_no)
            if not self.left and not self.done.done():
                self.done.set_result(None)


class Delivery:
    """The windows of this node's sessions."""

    pushes: LivePushes
    """Set by the node before it starts."""

    def __init__(
        self,
        node_id: str,
        hub: Hub,
        store: MessageStore,
        broadcasts: Broadcasts,
        wheel: Wheel,
        clock: Clock,
        limits: Limits,
        counters: Counters,
        tasks: Tasks,
        across: Across | None = None,
        traces: Traces = NO_TRACES,
    ) -> None:
        self._traces = traces
        self._traced: dict[int, _Written] = {}
        """By handle, what was written under a context that is told, until it is acknowledged."""
        self._node_id = node_id
        self._across = across
        self._is_shared = across is not None
        """Whether other nodes send to the sessions here, too."""
        self._hub = hub
        self._store = store
        self._broadcasts = broadcasts
        self._wheel = wheel
        self._clock = clock
        self._limits = limits
        self._counters = counters
        self._tasks = tasks
        self._redeliver_ticks = ticks(limits.redeliver_after_s)
        # One-to-one handles are even, those of broadcasts odd: an acknowledgement tells by itself which it means.
        self._handle = random.getrandbits(32) & ~1
        self._wanting: list[Session] = []
        self._repeating: list[tuple[Session, int, int]] = []
        self._is_reading = False
        self._awaited: dict[int, Acks] = {}
        """By place, messages whose acknowledgements somebody waits for."""
        self._on_due = self._due  # one bound method for all windows

    # What others tell

    def begin(self, session: Session) -> None:
        """A session stands and the store is to be asked; until then nothing new may overtake what waits."""
        session.arrival = Arrival.ASKING

    def go_on(self, session: Session, has_waiting: bool) -> None:
        """The store has answered: something waits for the session, or nothing does."""
        missed_one = session.arrival is Arrival.MISSED_ONE
        session.arrival = Arrival.OVER
        if (has_waiting or missed_one) and not session.connection.is_closing:
            window = self.open_window(session)
            window.is_catching_up = True
            self._want(session, window)

    def offer(self, session: Session, envelope: Envelope | PushMessage, seq: int) -> None:
        """A message for the session's device is durable: writes it now, or leaves it to the catching up."""
        if session.arrival is not Arrival.OVER:
            session.arrival = Arrival.MISSED_ONE
            self._waits(session, envelope, "connecting")
            return
        window = session.window
        if window is None:
            window = self.open_window(session)
        elif seq <= window.last_seq:
            return
        if window.is_catching_up:
            window.has_more = True
            self._waits(session, envelope, "catching-up")
            return
        connection = session.connection
        if connection.is_clogged or len(window.unacked) >= self._limits.window:
            window.is_catching_up = window.has_more = True
            self._waits(session, envelope, "not-reading")
            return
        if not self._is_shared:
            window.last_seq = seq
        packet = Push(
            envelope.message_id,
            envelope.kind,
            envelope.sender,
            envelope.payload,
            envelope.sent_at_ms,
            envelope.collapse_key,
            envelope.to,
        )
        self._write(connection, window, packet, seq, envelope.trace)

    def _waits(self, session: Session, envelope: Envelope | PushMessage, reason: str) -> None:
        """A message stays in the store until its device takes it."""
        trace = envelope.trace
        if trace and trace[23] & SAMPLED:
            message_id = envelope.message_id.hex()
            self._traces.hop(
                "message.waiting", trace, message_id=message_id, device_id=session.device_id, reason=reason
            )

    def nudge(self, session: Session) -> None:
        """Something waits in the store for the session that did not come this way: what comes next is there."""
        window = session.window
        if session.arrival is not Arrival.OVER:
            session.arrival = Arrival.MISSED_ONE
        elif window is None:
            self.go_on(session, has_waiting=True)
        else:
            window.is_catching_up = window.has_more = True
            self.fill(session)

    def acked(self, connection: DeviceConnection, frame: Received) -> None:
        """ACK: the device's application has these messages."""
        session = connection.session
        packet = frame.packet
        assert session is not None
        assert isinstance(packet, Ack)
        window = session.window
        receipts: list[Receipt] = []
        now_ms = self._clock.now_ms()
        for handle in (frame.correlation, *packet.handles) if packet.handles else (frame.correlation,):
            if handle & 1:
                if self._broadcasts.acked(session, handle):
                    self._counters.broadcast_acks += 1
                else:
                    self._counters.stray_acks += 1
                continue
            entry = None if window is None else window.unacked.pop(handle, None)
            if entry is None:
                self._counters.stray_acks += 1
            else:
                place, _, written_at_ms = entry
                receipts.append(Receipt(session.device_no, place, now_ms, self._node_id))
                if written_at_ms:
                    self._broadcasts.latency.add(now_ms - written_at_ms)
                if self._traced and handle in self._traced:
                    self._tell_acked(session, handle)
        if receipts:
            self._acknowledge(receipts)
        if window is not None:
            if receipts:
                window.is_full = False
                if window.recent is not None:
                    window.recent.extend([receipt.seq for receipt in receipts])
            self.fill(session)
            self.pushes.fill(session)

    def _acknowledge(self, receipts: list[Receipt]) -> None:
        self._counters.acks += len(receipts)
        self._store.acknowledge(receipts)
        if self._awaited:
            for receipt in receipts:
                acks = self._awaited.get(receipt.seq)
                if acks is not None:
                    acks.note(receipt.device_no)

    def expect(self, acks: Acks, seq: int) -> None:
        """Notes from now on who acknowledges the message at this place, until ``forget``."""
        acks.seq = seq
        self._awaited[seq] = acks

    def forget(self, acks: Acks) -> None:
        """Nobody waits for these any more."""
        self._awaited.pop(acks.seq, None)

    def stop_waiting(self) -> None:
        """Nobody will acknowledge any more."""
        for acks in self._awaited.values():
            if not acks.done.done():
                acks.done.set_result(None)

    def fill(self, session: Session) -> None:
        """Goes on with what waits in the store, where the window has room and the connection takes it."""
        window = session.window
        if window is None or not window.is_catching_up or window.is_reading:
            return
        if len(window.unacked) <= self._limits.window // 2 and not session.connection.is_clogged:
            self._want(session, window)

    def look_after(self) -> None:
        """The safety net: asks the store for whom of the idle sessions something waits after all."""
        if len(self._hub):
            self._tasks.start(self._look_after(), "the look for waiting messages")

    async def look(self) -> None:
        """The safety net, to its end; in a cluster for sessions that are busy, too. Raises StoreUnavailable."""
        sessions = [s for s in self._hub.sessions() if self._is_shared or s.window is None]
        device_nos = [session.device_no for session in sessions if session.arrival is Arrival.OVER]
        for at in range(0, len(device_nos), _SLICE):
            oldest = await self._store.oldest_waiting(device_nos[at : at + _SLICE], self._clock.now_ms())
            for device_no, seq in oldest.items():
                session = self._hub.find(device_no)
                if session is None or session.arrival is not Arrival.OVER:
                    continue
                window = session.window
                if window is None:
                    self.go_on(session, has_waiting=True)
                elif self._is_shared and not window.is_catching_up and seq not in _under_way(window):
                    self.nudge(session)

    # Writing

    @property
    def tick(self) -> int:
        """The wheel's, for windows."""
        return self._wheel.tick

    def next_handle(self) -> int:
        """A handle that no broadcast has: even, rising, never 0."""
        self._handle = self._handle + 2 & 0xFFFF_FFFF or 2
        return self._handle

    def _write(self, connection: DeviceConnection, window: Window, packet: Push, seq: int, trace: bytes) -> None:
        handle = self.next_handle()
        while handle in window.unacked:
            handle = self.next_handle()
        window.unacked[handle] = (seq, self._wheel.tick, self._clock.now_ms())
        self._counters.delivered += 1
        if (trace and trace[23] & SAMPLED) or self._traces.has_marks:
            trace = self._tell_written(window.session, packet, handle, seq, trace)
        connection.send(packet, handle, FLAG_RECEIPT, trace)

    def _tell_written(self, session: Session, packet: Push, handle: int, seq: int, trace: bytes) -> bytes:
        """Tells it where the message is traced or its receiver marked; the context that it is written under."""
        if self._traces.has_marks:
            trace = self._traces.marked(trace, (session.device_no,))
        if not (trace and trace[23] & SAMPLED):
            return trace
        message_id = packet.message_id.hex()
        self._traced.pop(handle, None)
        self._traced[handle] = _Written(session.device_no, trace, message_id, self._traces.now_ns())
        if len(self._traced) > _MAX_TRACED:
            del self._traced[next(iter(self._traced))]
        self._traces.hop(
            "message.written",
            trace,
            message_id=message_id,
            device_id=session.device_id,
            session_id=session.session_id,
            seq=seq,
            handle=handle,
        )
        return trace

    def _tell_acked(self, session: Session, handle: int) -> None:
        written = self._traced.pop(handle)
        if written.device_no != session.device_no:  # of a session before this one
            return
        self._traces.hop(
            "message.acked",
            written.trace,
            began_ns=written.at_ns,
            message_id=written.message_id,
            device_id=session.device_id,
            session_id=session.session_id,
        )

    def open_window(self, session: Session) -> Window:
        """The session's window; a new one where it has none."""
        window = session.window
        if window is None:
            window = session.window = Window(session, self._on_due)
            if self._is_shared:
                window.recent = deque(maxlen=_RECENT)
            self._wheel.add(window, self._redeliver_ticks)
        return window

    def close(self, session: Session) -> None:
        """The session has ended; what it did not acknowledge is in the store.

        In a cluster that may have come here on an old route: then the node that has the device now is to read it.
        """
        if self._across is not None and _owes(session):
            self._across.nudge((session.device_no,))
        if session.window is not None:
            self._wheel.remove(session.window)
            session.window = None

    def _due(self, session: Session) -> int:
        """Once in a while for every window: repeats what was not acknowledged, forgets a window that is done."""
        window = session.window
        if window is None or session.connection.is_closing:
            return 0
        window.is_full = False
        if not window.unacked and not window.is_catching_up and not window.is_catching_up_pushes:
            session.window = None
            return 0
        oldest = self._wheel.tick
        forgotten: list[int] = []
        for handle, (place, tick, at_ms) in window.unacked.items():
            if self._wheel.tick - tick < self._redeliver_ticks:
                oldest = min(oldest, tick)
                continue
            window.unacked[handle] = (place, self._wheel.tick, at_ms)
            if not handle & 1:
                self._repeating.append((session, handle, place))
            elif not self.pushes.repeat(session, handle, place):
                forgotten.append(handle)
            if session.connection.is_closing:
                return 0
        for handle in forgotten:
            del window.unacked[handle]
        if self._repeating:
            self._read_soon()
        if not window.unacked:
            if window.is_catching_up and not window.is_reading:
                self._want(session, window)
            self.pushes.fill(session)
        return max(1, oldest + self._redeliver_ticks - self._wheel.tick)

    # Reading

    def _want(self, session: Session, window: Window) -> None:
        if not window.is_reading:
            window.is_reading = True
            self._wanting.append(session)
            self._read_soon()

    def _read_soon(self) -> None:
        if not self._is_reading:
            self._is_reading = True
            self._tasks.start(self._read(), "reading inboxes")

    async def _read(self) -> None:
        try:
            while self._wanting or self._repeating:
                try:
                    await self._catch_up()
                    await self._repeat()
                except StoreUnavailable:
                    # Everything asked for is still in the lists; the store comes back or the node stops.
                    await asyncio.sleep(_STORE_RETRY_S)
        finally:
            self._is_reading = False

    async def _catch_up(self) -> None:
        asked: list[tuple[Session, Window, int]] = []
        taken = rows = 0
        for session in self._wanting[:_SESSIONS_A_READ]:
            if rows >= _ROWS_A_READ:
                break
            taken += 1
            window = session.window
            if window is not None:
                window.has_more = False
                limit = max(1, min(self._limits.window - len(window.unacked), _MESSAGES_A_READ))
                if self._is_shared:
                    limit += len(window.unacked)  # they may be among what is found
                rows += limit
                asked.append((session, window, limit))
        queries = [InboxQuery(s.device_no, window.last_seq, limit) for s, window, limit in asked]
        found = await self._store.waiting(queries, self._clock.now_ms()) if queries else []
        del self._wanting[:taken]
        for (session, window, limit), messages in zip(asked, found, strict=True):
            window.is_reading = False
            if session.window is not window or session.connection.is_closing:
                continue
            try:
                self._hand_out(session, window, messages, limit)
            except Exception:
                log.exception("what waits for device %d was not handed out; its connection closes", session.device_no)
                session.connection.close(CloseCode.INTERNAL_ERROR)

    def _hand_out(self, session: Session, window: Window, messages: list[Waiting], limit: int) -> None:
        under_way = _under_way(window) if self._is_shared else ()
        for message in messages:
            if message.seq in under_way:
                window.last_seq = message.seq
                continue
            # Pushes may have taken the room meanwhile.
            if session.connection.is_clogged or len(window.unacked) >= self._limits.window:
                window.has_more = True
                break
            window.last_seq = message.seq
            self._write(session.connection, window, push_of(message), message.seq, message.trace)
        if len(messages) < limit and not window.has_more:
            window.is_catching_up = False
        else:
            self.fill(session)

    async def _repeat(self) -> None:
        due = self._repeating[: _SESSIONS_A_READ * _MESSAGES_A_READ]
        if not due:
            return
        wanted = [(session.device_no, seq) for session, _, seq in due]
        found = await self._store.still_waiting(wanted, self._clock.now_ms())
        del self._repeating[: len(due)]
        for (session, handle, seq), message in zip(due, found, strict=True):
            window = session.window
            if window is None or session.connection.is_closing or handle not in window.unacked:
                continue
            if message is None:
                del window.unacked[handle]
                self.fill(session)
                continue
            if session.connection.is_clogged:
                continue
            self._counters.repeated += 1
            window.unacked[handle] = (seq, self._wheel.tick, 0)  # of which copy the ACK is, nobody will know
            packet, trace = push_of(message), message.trace
            if (trace and trace[23] & SAMPLED) or self._traces.has_marks:
                trace = self._tell_written(session, packet, handle, seq, trace)
            session.connection.send(packet, handle, FLAG_RECEIPT, trace)

    async def _look_after(self) -> None:
        try:
            await self.look()
        except StoreUnavailable:
            return  # the next look comes in a minute


def _under_way(window: Window) -> set[int]:
    """The places that were written, and are not acknowledged or were just now."""
    places = {place for handle, (place, _, _) in window.unacked.items() if not handle & 1}
    places.update(window.recent or ())
    return places


def _owes(session: Session) -> bool:
    """Whether a committed message was offered to the session, and its device is not known to have it."""
    window = session.window
    if session.arrival is Arrival.MISSED_ONE:
        return True
    return window is not None and (window.is_catching_up or any(not handle & 1 for handle in window.unacked))


def told(push: Push, trace: bytes) -> PushMessage:
    """A message that goes at most once, as it travels to other nodes."""
    return PushMessage(
        push.message_id,
        push.kind,
        push.payload,
        push.sent_at_ms,
        push.sender,
        push.to,
        push.collapse_key,
        trace,
    )


def push_of(message: Waiting | Envelope | PushMessage) -> Push:
    """A message as its receivers see it."""
    return Push(
        message.message_id,
        message.kind,
        message.sender,
        message.payload,
        message.sent_at_ms,
        message.collapse_key,
        message.to,
    )


def relayed(session: Session, packet: Send, to: str, sent_at_ms: int) -> Push:
    """A SEND of the session's device as its receivers see it."""
    return Push(
        packet.message_id,
        packet.kind,
        session.address,
        packet.payload,
        sent_at_ms,
        packet.collapse_key,
        to,
    )
