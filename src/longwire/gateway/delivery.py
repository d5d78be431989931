"""Reliable messages on their way to a device: live behind the commit, or from the store when it comes back.

    commit done ─► offer ──┬─ in step ───────────────────────► PUSH, into the window
                           └─ behind (catching up, full, slow) ─► stays in the store
    attached, acked, drained ─► want ─► one read for many sessions ─► PUSH, oldest first

A window holds at most ``limits.window`` unacknowledged messages. While a session catches up, new messages reach it
through the store, so that none overtakes an older one. What is not acknowledged is written again after a while.
"""

import asyncio
import logging
import random

from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.gateway.counters import Counters
from longwire.gateway.hub import Hub
from longwire.gateway.session import Arrival, DeviceConnection, Session, Window
from longwire.gateway.tasks import Tasks
from longwire.limits import Limits
from longwire.model import Envelope, InboxQuery, Receipt, Waiting
from longwire.net.wheel import Wheel, ticks
from longwire.ports.messages import MessageStore
from longwire.reasons import CloseCode
from longwire.wire.packets import FLAG_RECEIPT, Ack, Push, Received

log = logging.getLogger(__name__)

# Bounds what one read brings into memory: 64 sessions of at most 16 messages.
_SESSIONS_A_READ = 64
_MESSAGES_A_READ = 16
_STORE_RETRY_S = 1.0
_SLICE = 1_000


class Delivery:
    """The windows of this node's sessions."""

    def __init__(
        self,
        node_id: str,
        hub: Hub,
        store: MessageStore,
        wheel: Wheel,
        clock: Clock,
        limits: Limits,
        counters: Counters,
        tasks: Tasks,
    ) -> None:
        self._node_id = node_id
        self._hub = hub
        self._store = store
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
            window = self._open_window(session)
            window.is_catching_up = True
            self._want(session, window)

    def offer(self, session: Session, envelope: Envelope, seq: int) -> None:
        """A message for the session's device is durable: writes it now, or leaves it to the catching up."""
        if session.arrival is not Arrival.OVER:
            session.arrival = Arrival.MISSED_ONE
            return
        window = session.window
        if window is None:
            window = self._open_window(session)
        elif seq <= window.last_seq:
            return
        if window.is_catching_up:
            window.has_more = True
            return
        connection = session.connection
        if connection.is_clogged or len(window.unacked) >= self._limits.window:
            window.is_catching_up = window.has_more = True
            return
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

    def acked(self, connection: DeviceConnection, frame: Received) -> None:
        """ACK: the device's application has these messages."""
        session = connection.session
        packet = frame.packet
        assert session is not None
        assert isinstance(packet, Ack)
        window = session.window
        if window is None:
            self._counters.stray_acks += 1 + len(packet.handles)
            return
        now_ms = self._clock.now_ms()
        receipts: list[Receipt] = []
        for handle in (frame.correlation, *packet.handles):
            entry = window.unacked.pop(handle, None)
            if entry is None:
                self._counters.stray_acks += 1
            else:
                receipts.append(Receipt(session.device_no, entry[0], now_ms, self._node_id))
        if not receipts:
            return
        self._counters.acks += len(receipts)
        self._store.acknowledge(receipts)
        window.is_full = False
        self.fill(session)

    def fill(self, session: Session) -> None:
        """Goes on with what waits in the store, where the window has room and the connection takes it."""
        window = session.window
        if window is None or not window.is_catching_up or window.is_reading:
            return
        if len(window.unacked) <= self._limits.window // 2 and not session.connection.is_clogged:
            self._want(session, window)

    def look_after(self) -> None:
        """The safety net: asks the store for whom of the idle sessions something waits after all."""
        idle = [s.device_no for s in self._hub.sessions() if s.window is None and s.arrival is Arrival.OVER]
        if idle:
            self._tasks.start(self._look_after(idle), "the look for waiting messages")

    # Writing

    def next_handle(self) -> int:
        """A handle that no broadcast has: even, rising, never 0."""
        self._handle = self._handle + 2 & 0xFFFF_FFFF or 2
        return self._handle

    def _write(self, connection: DeviceConnection, window: Window, packet: Push, seq: int, trace: bytes) -> None:
        handle = self.next_handle()
        while handle in window.unacked:
            handle = self.next_handle()
        window.unacked[handle] = (seq, self._wheel.tick)
        self._counters.delivered += 1
        connection.send(packet, handle, FLAG_RECEIPT, trace)

    def _open_window(self, session: Session) -> Window:
        window = session.window
        if window is None:
            window = session.window = Window(session, self._on_due)
            self._wheel.add(window, self._redeliver_ticks)
        return window

    def close(self, session: Session) -> None:
        """The session has ended; what it did not acknowledge is in the store."""
        if session.window is not None:
            self._wheel.remove(session.window)
            session.window = None

    def _due(self, session: Session) -> int:
        """Once in a while for every window: repeats what was not acknowledged, forgets a window that is done."""
        window = session.window
        if window is None or session.connection.is_closing:
            return 0
        window.is_full = False
        if not window.unacked and not window.is_catching_up:
            session.window = None
            return 0
        oldest = self._wheel.tick
        for handle, (seq, tick) in window.unacked.items():
            if self._wheel.tick - tick >= self._redeliver_ticks:
                self._repeating.append((session, handle, seq))
                window.unacked[handle] = (seq, self._wheel.tick)
            else:
                oldest = min(oldest, tick)
        if self._repeating:
            self._read_soon()
        if window.is_catching_up and not window.is_reading and not window.unacked:
            self._want(session, window)
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
        sessions = self._wanting[:_SESSIONS_A_READ]
        asked: list[tuple[Session, Window, int]] = []
        for session in sessions:
            window = session.window
            if window is not None:
                window.has_more = False
                room = min(self._limits.window - len(window.unacked), _MESSAGES_A_READ)
                asked.append((session, window, max(room, 1)))
        queries = [InboxQuery(s.device_no, window.last_seq, room) for s, window, room in asked]
        found = await self._store.waiting(queries, self._clock.now_ms()) if queries else []
        del self._wanting[: len(sessions)]
        for (session, window, room), messages in zip(asked, found, strict=True):
            window.is_reading = False
            if session.window is not window or session.connection.is_closing:
                continue
            try:
                self._hand_out(session, window, messages, room)
            except Exception:
                log.exception("what waits for device %d was not handed out; its connection closes", session.device_no)
                session.connection.close(CloseCode.INTERNAL_ERROR)

    def _hand_out(self, session: Session, window: Window, messages: list[Waiting], room: int) -> None:
        for message in messages:
            if session.connection.is_clogged:
                window.has_more = True
                break
            window.last_seq = message.seq
            self._write(session.connection, window, push_of(message), message.seq, message.trace)
        if len(messages) < room and not window.has_more:
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
            window.unacked[handle] = (seq, self._wheel.tick)
            session.connection.send(push_of(message), handle, FLAG_RECEIPT, message.trace)

    async def _look_after(self, device_nos: list[int]) -> None:
        for at in range(0, len(device_nos), _SLICE):
            try:
                waiting = await self._store.who_waits(device_nos[at : at + _SLICE], self._clock.now_ms())
            except StoreUnavailable:
                return  # the next look comes in a minute
            for device_no in waiting:
                session = self._hub.find(device_no)
                if session is not None and session.window is None:
                    self.go_on(session, has_waiting=True)


def push_of(message: Waiting | Envelope) -> Push:
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
