"""REQUEST to a device: the API asks, the device replies, perhaps too late.

    call ──► REQUEST ──► device          waits at most timeout_ms, then the outcome is unknown
    replied ◄── REPLY ◄──┘               in time: to the caller; up to ten minutes late: to the command store

Correlation ids are the node's own and rise; a reply is taken only from the session that was asked.
"""

import asyncio
import logging

from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.gateway.counters import Counters
from longwire.gateway.hub import Hub
from longwire.gateway.session import DeviceConnection, Session
from longwire.gateway.tasks import Tasks
from longwire.limits import Limits
from longwire.operations_model import Command, CommandStatus
from longwire.ports.commands import CommandStore
from longwire.ports.link import Called
from longwire.reasons import Status
from longwire.traces import NO_TRACES, Traces, is_sampled
from longwire.wire.packets import Received, Reply, Request

log = logging.getLogger(__name__)

_LATE_FOR_S = 600.0
_MAX_DETAIL_CHARACTERS = 200
_LAST_CORRELATION = 0xFFFF_FFFF


class Commands:
    """The requests to devices that have no reply yet, by session; nothing of a session that has none."""

    def __init__(
        self,
        hub: Hub,
        store: CommandStore,
        clock: Clock,
        limits: Limits,
        counters: Counters,
        tasks: Tasks,
        traces: Traces = NO_TRACES,
    ) -> None:
        self._traces = traces
        self._hub = hub
        self._store = store
        self._clock = clock
        self._limits = limits
        self._counters = counters
        self._tasks = tasks
        self._open: dict[Session, dict[int, _Open]] = {}
        self._last_correlation = 0

    async def call(
        self, device_no: int, command_id: bytes, method: str, payload: bytes, timeout_ms: int, trace: bytes = b""
    ) -> Called:
        """As ports.link.Link.call: OFFLINE and OVERLOADED (too many wait for this session) mean: not asked."""
        session = self._hub.find(device_no)
        if session is None:
            return Called(Status.OFFLINE)
        mine = self._open.setdefault(session, {})
        if sum(entry.future is not None for entry in mine.values()) >= self._limits.max_requests_per_session:
            return Called(Status.OVERLOADED, detail="too many requests wait for this device")
        self._forget_old(mine)
        correlation = self._next_correlation(mine)
        future: asyncio.Future[Called] = asyncio.get_running_loop().create_future()
        entry = mine[correlation] = _Open(command_id, future, self._clock.monotonic() + timeout_ms / 1000 + _LATE_FOR_S)
        self._counters.commands += 1
        session.connection.send(Request(method, payload, timeout_ms), correlation, 0, trace)
        if is_sampled(trace):
            self._traces.hop(
                "command.sent",
                trace,
                command_id=command_id.hex(),
                device_id=session.device_id,
                session_id=session.session_id,
            )
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                return await future
        except TimeoutError:
            if future.done() and not future.cancelled():
                return future.result()  # it came in the very turn in which the time was up
            return Called(Status.TIMEOUT, detail="the device did not reply")
        finally:
            entry.future = None

    def replied(self, connection: DeviceConnection, frame: Received) -> None:
        """REPLY of a device; one that nobody asked for is counted and ignored."""
        session, packet = connection.session, frame.packet
        assert session is not None
        assert isinstance(packet, Reply)
        mine = self._open.get(session)
        entry = None if mine is None else mine.pop(frame.correlation, None)
        if mine is None or entry is None or entry.until < self._clock.monotonic():
            self._counters.stray_replies += 1
            return
        if not mine:
            del self._open[session]
        called = _called(packet)
        if entry.future is None:
            self._counters.late_replies += 1
            self._tasks.start(self._keep_late(session, entry.command_id, called), "keeping a late reply")
        elif not entry.future.done():
            entry.future.set_result(called)

    def ended(self, session: Session) -> None:
        """The session is over: whoever waits for its replies learns at once that the outcome is unknown."""
        for entry in self._open.pop(session, {}).values():
            if entry.future is not None and not entry.future.done():
                entry.future.set_result(Called(Status.TIMEOUT, detail="the device went away before it replied"))

    async def _keep_late(self, session: Session, command_id: bytes, called: Called) -> None:
        late = Command(
            command_id=command_id,
            device_no=session.device_no,
            device_id=session.device_id,
            method="",
            payload=b"",
            created_at_ms=0,
            timeout_ms=0,
            status=CommandStatus.REPLIED if called.status is Status.OK else CommandStatus.FAILED,
            reply_status=int(called.status),
            reply=called.payload,
            detail=called.detail,
            replied_at_ms=self._clock.now_ms(),
            is_late=True,
        )
        try:
            await self._store.finish(late)
        except StoreUnavailable as error:
            log.warning("the late reply to command %s is lost: %s", command_id.hex(), error)

    def _forget_old(self, mine: "dict[int, _Open]") -> None:
        """Of the requests that are past their time only the newest, and none for more than ten minutes, are known."""
        now = self._clock.monotonic()
        late = [correlation for correlation, entry in mine.items() if entry.future is None]
        surplus = len(late) - self._limits.max_requests_per_session + 1
        for at, correlation in enumerate(late):
            if at < surplus or mine[correlation].until < now:
                del mine[correlation]

    def _next_correlation(self, mine: "dict[int, _Open]") -> int:
        while True:
            self._last_correlation = self._last_correlation % _LAST_CORRELATION + 1
            if self._last_correlation not in mine:
                return self._last_correlation


class _Open:
    """A request that was written and not replied to; ``future`` None: its time is up, and its reply will be late."""

    __slots__ = ("command_id", "future", "until")

    def __init__(self, command_id: bytes, future: asyncio.Future[Called], until: float) -> None:
        self.command_id = command_id
        self.future: asyncio.Future[Called] | None = future
        self.until = until
        """Monotonic seconds from which on a reply is no longer taken."""


def _called(reply: Reply) -> Called:
    """The reply as the link tells it; a status that the protocol does not know is the device's failure."""
    try:
        return Called(Status(reply.status), reply.payload, reply.detail[:_MAX_DETAIL_CHARACTERS])
    except ValueError:
        return Called(Status.HANDLER_FAILED, reply.payload, f"the device answered the unknown status {reply.status}")
