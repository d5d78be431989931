"""Live pushes for devices that come back: those that target them and that they have not acknowledged, oldest first.

    attached, drained, resumed, the safety net ─► go_on ─► one read for many sessions ─► PUSH, into the window
    acked ─► fill ─────────────────────────────────────┘

The window of 64 is the one of one-to-one messages, which come first. What is broadcast live does not enter it; a
device that does not acknowledge such a push for half a minute gets it this way. Which pushes wait is the store's to
say; a session remembers one number of a push, and that only while it catches up.
"""

import asyncio
import logging

from pyroaring import BitMap

from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.gateway.broadcasts import Broadcast, Broadcasts
from longwire.gateway.counters import Counters
from longwire.gateway.delivery import Delivery
from longwire.gateway.hub import Hub
from longwire.gateway.session import Session, Window
from longwire.gateway.tasks import Tasks
from longwire.limits import Limits
from longwire.ports.push_waiting import PushWaiting
from longwire.push_model import LivePush, PushQuery
from longwire.reasons import CloseCode

log = logging.getLogger(__name__)

# What one read asks for: bitmaps of segments are read once for all of its sessions.
_SESSIONS_A_READ = 256
_PUSHES_A_READ = 16
_SLICE = 1_000
_STORE_RETRY_S = 1.0


class CatchUp:
    """The pushes in the windows of this node's sessions. A session for whom nothing is found gets no window."""

    def __init__(
        self,
        hub: Hub,
        broadcasts: Broadcasts,
        waiting: PushWaiting,
        delivery: Delivery,
        clock: Clock,
        limits: Limits,
        counters: Counters,
        tasks: Tasks,
    ) -> None:
        self._hub = hub
        self._broadcasts = broadcasts
        self._waiting = waiting
        self._delivery = delivery
        self._clock = clock
        self._limits = limits
        self._counters = counters
        self._tasks = tasks
        self._wanting: list[Session] = []
        self._asked: set[Session] = set()
        """Those in the list, and those whose answer is on its way."""
        self._again: set[Session] = set()
        """Of those, the ones that are to be asked for anew: what is on its way may be older."""
        self._is_reading = False
        self._is_looking = False
        self._aged_at = clock.monotonic()

    # What others tell

    def go_on(self, session: Session, has_waiting: bool) -> None:
        """A push may wait for the session: asks the store, from the oldest one on."""
        if not has_waiting or session.connection.is_closing:
            return
        if session in self._asked:
            self._again.add(session)
            return
        window = session.window
        if window is not None:
            window.is_catching_up_pushes = True
            window.last_push_no = 0
        self._want(session)

    def fill(self, session: Session) -> None:
        """Goes on where the window has room and the connection takes it."""
        window = session.window
        if window is None or not window.is_catching_up_pushes or session in self._asked:
            return
        if len(window.unacked) <= self._limits.window // 2 and not session.connection.is_clogged:
            self._want(session)

    def drained(self, session: Session) -> None:
        """The device reads again."""
        if session.device_no in self._broadcasts.skipped:
            self._broadcasts.skipped.remove(session.device_no)
            self.go_on(session, has_waiting=True)
        else:
            self.fill(session)

    def repeat(self, session: Session, handle: int, push_no: int) -> bool:
        """Writes a push of the window again, under its handle; False where it is not to be written any more."""
        broadcast = self._broadcasts.find(push_no)
        if broadcast is None or broadcast.handle != handle or self._broadcasts.is_over(broadcast):
            return False
        if not session.connection.is_clogged:
            self._counters.repeated += 1
            session.connection.write(broadcast.frames.of(session.connection.flavour))
        return True

    def look_after(self) -> None:
        """The safety net: asks for all of whom the store says that a push may wait."""
        self._age()
        if not self._is_looking and self._hub.online:
            self._is_looking = True
            self._tasks.start(self._look_after(), "the look for waiting pushes")

    async def look(self) -> None:
        """The safety net, to its end. Raises StoreUnavailable."""
        self._age()
        if self._hub.online:
            await self.look_at(await self._waiting.online_waiting(self._hub.online.copy()))

    async def look_at(self, devices: BitMap) -> None:
        """Asks for those of the devices that are online."""
        for at, device_no in enumerate((devices & self._hub.online).to_array()):
            session = self._hub.find(device_no)
            # One that is catching up comes to everything by itself.
            if session is not None and (session.window is None or not session.window.is_catching_up_pushes):
                self.go_on(session, has_waiting=True)
            if at % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)

    async def _look_after(self) -> None:
        try:
            await self.look()
        except StoreUnavailable:
            return  # the next look comes in half a minute
        finally:
            self._is_looking = False

    def _age(self) -> None:
        now = self._clock.monotonic()
        if now - self._aged_at >= self._limits.redeliver_after_s:
            self._aged_at = now
            self._broadcasts.age()

    # Reading

    def _want(self, session: Session) -> None:
        self._asked.add(session)
        self._wanting.append(session)
        if not self._is_reading:
            self._is_reading = True
            self._tasks.start(self._read(), "reading live pushes")

    async def _read(self) -> None:
        try:
            while self._wanting:
                try:
                    await self._catch_up()
                except StoreUnavailable:
                    # Everybody is still in the list; the store comes back or the node stops.
                    await asyncio.sleep(_STORE_RETRY_S)
        finally:
            self._is_reading = False

    async def _catch_up(self) -> None:
        sessions = self._wanting[:_SESSIONS_A_READ]
        queries = [self._query(session) for session in sessions]
        now_ms = self._clock.now_ms()
        found = await self._waiting.waiting(queries, now_ms)
        live = await self._live({push_no for push_nos in found for push_no in push_nos}, now_ms)
        del self._wanting[: len(sessions)]
        self._asked.difference_update(sessions)
        self._broadcasts.settle()
        for session, query, push_nos in zip(sessions, queries, found, strict=True):
            is_stale = session in self._again
            self._again.discard(session)
            if session.connection.is_closing:
                continue
            if is_stale:
                self.go_on(session, has_waiting=True)
                continue
            try:
                self._hand_out(session, push_nos, live, is_all=len(push_nos) < query.limit)
            except Exception:
                log.exception("what waits for device %d was not handed out; its connection closes", session.device_no)
                session.connection.close(CloseCode.INTERNAL_ERROR)

    def _query(self, session: Session) -> PushQuery:
        window = session.window
        if window is None:
            return PushQuery(session.device_no, 0, _PUSHES_A_READ)
        room = min(self._limits.window - len(window.unacked), _PUSHES_A_READ)
        return PushQuery(session.device_no, window.last_push_no, max(1, room))

    async def _live(self, push_nos: set[int], now_ms: int) -> dict[int, LivePush]:
        """The messages of those pushes that the node has no entry of."""
        wanted = sorted(push_no for push_no in push_nos if self._broadcasts.find(push_no) is None)
        found = await self._waiting.messages(wanted, now_ms) if wanted else []
        return {push.push_no: push for push in found if push is not None}

    def _hand_out(self, session: Session, push_nos: list[int], live: dict[int, LivePush], *, is_all: bool) -> None:
        connection = session.connection
        for push_no in push_nos:
            broadcast = self._entered(push_no, live)
            if broadcast is not None and self._is_owed(broadcast, session):
                window = self._open_window(session)
                if connection.is_clogged or len(window.unacked) >= self._limits.window:
                    return  # goes on when the device has read or acknowledged
                self._write(session, window, broadcast)
                if connection.is_closing:
                    return
            if session.window is not None:
                session.window.last_push_no = push_no
        if not is_all:
            window = self._open_window(session)
            window.last_push_no = push_nos[-1]
            self.fill(session)
        elif session.window is not None:
            session.window.is_catching_up_pushes = False

    def _open_window(self, session: Session) -> Window:
        window = self._delivery.open_window(session)
        window.is_catching_up_pushes = True
        return window

    def _write(self, session: Session, window: Window, broadcast: Broadcast) -> None:
        device_no = session.device_no
        began_ms = broadcast.began_at(device_no) if device_no in broadcast.outstanding else None
        session.connection.write(broadcast.frames.of(session.connection.flavour))
        if session.connection.is_closing:
            return  # it did not read
        now_ms = self._clock.now_ms()
        window.unacked[broadcast.handle] = (broadcast.push_no, self._delivery.tick, began_ms or now_ms)
        self._broadcasts.noted(broadcast, device_no)
        self._counters.catch_up_written += 1

    def _entered(self, push_no: int, live: dict[int, LivePush]) -> Broadcast | None:
        """The push's entry; None where nothing of it is to be written."""
        if self._broadcasts.is_ended(push_no):
            return None
        broadcast = self._broadcasts.find(push_no)
        if broadcast is None:
            push = live.get(push_no)
            if push is None:
                return None
            broadcast = self._broadcasts.enter(push_no, push.message, push.expires_at_ms)
        return None if self._broadcasts.is_over(broadcast) else broadcast

    def _is_owed(self, broadcast: Broadcast, session: Session) -> bool:
        """Whether the device is to be written the push: it was not in this session, or so long ago that it repeats."""
        device_no = session.device_no
        if device_no in broadcast.acked or device_no in broadcast.flushing:
            return False
        if session.window is not None and broadcast.handle in session.window.unacked:
            return False  # the window repeats it
        return device_no not in broadcast.outstanding or device_no in broadcast.overdue
