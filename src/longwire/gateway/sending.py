"""SEND: judged, resolved to receivers, committed or relayed, answered.

    SEND ─► judge (form, size, rate) ─► application ─► uplink log, or a handler in place
                                    └─► device: user: ─► commit ─► SENT and delivery
                                    │                └─► without receipt, or TTL 0: relay to who is online
                                    └─► group: ─► as user:, a fan-out, or a push (groups.py)

Everything that is known at once is done at once, by plain calls. Where something must be waited for (a user's
devices, a device this node has not seen, the application's leave), this send and every later one of the session
join its backlog, so that they stay in order. Receivers whose session is not here are the other nodes' (ports/across);
where there are none, they are offline.
"""

import contextlib
from collections import deque
from collections.abc import Iterable
from functools import partial

from longwire.application import Context, Longwire, call
from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.gateway.answer import BUSY_RETRY_MS, Answer, TracedAnswer, traced
from longwire.gateway.counters import Counters
from longwire.gateway.delivery import Delivery, relayed, told
from longwire.gateway.directory import Directory
from longwire.gateway.groups import Groups
from longwire.gateway.hub import Hub
from longwire.gateway.session import Backlog, DeviceConnection, Session, Work
from longwire.gateway.tasks import Tasks
from longwire.ids import MESSAGE_ID_BYTES, is_device_id
from longwire.limits import MAX_KIND_CHARACTERS, MAX_TTL_S, Limits
from longwire.model import Committed, Envelope, UplinkRecord
from longwire.ports.across import Across
from longwire.ports.messages import MessageStore
from longwire.ports.uplink import UplinkWriter
from longwire.push_model import push_message_of
from longwire.reasons import CloseCode, Status
from longwire.traces import CALL, NO_TRACES, SAMPLED, Call, Traces
from longwire.wire.packets import FLAG_RECEIPT, Push, Received, Send

MAX_COLLAPSE_KEY_CHARACTERS = 255
_MAX_BACKLOG = 1_000
_RECENT = 65_536
_MAX_FULL = 10_000
_NOT_NOW = {
    Status.OFFLINE: ("nobody of the target is online", 0),
    Status.OVERLOADED: ("the target does not read", BUSY_RETRY_MS),
}


class Sending:
    """Takes the SENDs of this node's sessions."""

    def __init__(
        self,
        app: Longwire,
        hub: Hub,
        directory: Directory,
        groups: Groups,
        store: MessageStore,
        uplink: UplinkWriter,
        delivery: Delivery,
        clock: Clock,
        limits: Limits,
        counters: Counters,
        tasks: Tasks,
        across: Across | None = None,
        traces: Traces = NO_TRACES,
    ) -> None:
        self._across = across
        self._traces = traces
        self._app = app
        self._hub = hub
        self._directory = directory
        self._groups = groups
        self._store = store
        self._uplink = uplink
        self._delivery = delivery
        # The calls of every message, bound once.
        self._find_by_address = hub.find_by_address
        self._next_handle = delivery.next_handle
        self._clock = clock
        self._limits = limits
        self._counters = counters
        self._tasks = tasks
        self._waiting_bytes = 0
        self._calls = 0
        self._recent: dict[tuple[int, bytes], None] = {}
        self._full: deque[tuple[Answer, Envelope]] = deque()
        """Messages refused for a full inbox, whose receivers were taken for online and may not be."""
        self._is_trying_full = False
        self._now_ms = clock.now_ms
        self._ms_per_send = 1000 / limits.sends_per_s
        self._burst_ms = (limits.send_burst - 1) * self._ms_per_send
        self._max_payload_bytes = limits.max_payload_bytes
        self._is_judged = app.hooks.authorize_send is not None

    def sent(self, connection: DeviceConnection, frame: Received) -> None:
        """SEND."""
        session = connection.session
        packet = frame.packet
        assert session is not None
        assert isinstance(packet, Send)
        counters = self._counters
        counters.sends += 1
        now_ms = self._now_ms()
        wait_ms = self._spend(session, now_ms)
        fault = self._fault(packet)
        trace = frame.trace
        if trace or self._traces.has_marks:
            trace = self._enter(session, packet, trace)
        if not (wait_ms or fault or trace or frame.flags & FLAG_RECEIPT or self._is_judged) and session.backlog is None:
            # The shortest way, and the most travelled one: device to device, nothing to answer.
            target = self._find_by_address(packet.to)
            if target is not None:
                connection = target.connection
                if connection.is_clogged:
                    counters.dropped += 1
                    return
                connection.send(relayed(session, packet, "", now_ms), self._next_handle())
                counters.pushes += 1
                return
        answer = Answer(connection, frame, counters)
        if trace and trace[23] & SAMPLED:
            answer = TracedAnswer(answer, self._traces, trace, packet, frame.trace[16:])
        if wait_ms:
            answer.give(Status.RATE_LIMITED, f"more than {self._limits.sends_per_s} a second", wait_ms)
            return
        if fault is not None:
            answer.give(*fault)
            return
        if session.backlog is not None or (self._is_judged and packet.to):
            self._wait(session, packet, answer, partial(self._judge_and_route, session, packet, answer, trace))
            return
        self._route(session, packet, answer, trace)

    def _enter(self, session: Session, packet: Send, given: bytes) -> bytes:
        """The context with which the message goes on; b"" for one without that nobody marked."""
        marked = self._traces.marks.devices
        target = self._find_by_address(packet.to) if marked else None
        devices = (session.device_no,) if target is None else (session.device_no, target.device_no)
        if not given and devices[0] not in marked and devices[-1] not in marked:
            return b""  # most messages of all, while a mark stands
        return self._traces.enter(given, devices=devices)

    def spend(self, session: Session) -> int:
        """Takes a token of the session's bucket; 0, or after how many ms there is one again."""
        return self._spend(session, self._now_ms())

    def _spend(self, session: Session, now_ms: int) -> int:
        # A token bucket as one number (GCRA, ITU-T I.371): how far ahead of now the sends so far reach.
        spent_until_ms = session.spent_until_ms
        if spent_until_ms < now_ms:
            session.spent_until_ms = now_ms + self._ms_per_send
            return 0
        ahead_ms = spent_until_ms - now_ms
        if ahead_ms > self._burst_ms:
            return 1 + int(ahead_ms - self._burst_ms)
        session.spent_until_ms = spent_until_ms + self._ms_per_send
        return 0

    def _fault(self, packet: Send) -> tuple[Status, str] | None:
        """What is impossible about a SEND whatever the state of the system, or None."""
        if len(packet.payload) > self._max_payload_bytes:
            return Status.TOO_LARGE, f"payload of {len(packet.payload)} bytes exceeds {self._max_payload_bytes}"
        if len(packet.message_id) != MESSAGE_ID_BYTES:
            return Status.BAD_REQUEST, f"message_id of {len(packet.message_id)} bytes is not {MESSAGE_ID_BYTES}"
        if not 0 < len(packet.kind) <= MAX_KIND_CHARACTERS:
            return Status.BAD_REQUEST, f"kind of {len(packet.kind)} characters is not 1 to {MAX_KIND_CHARACTERS}"
        if not -1 <= packet.ttl_s <= MAX_TTL_S:
            return Status.BAD_REQUEST, f"ttl_s is not -1 to {MAX_TTL_S}"
        if len(packet.collapse_key) > MAX_COLLAPSE_KEY_CHARACTERS:
            return Status.BAD_REQUEST, f"collapse_key is longer than {MAX_COLLAPSE_KEY_CHARACTERS} characters"
        if "\0" in packet.kind or "\0" in packet.collapse_key:
            # PostgreSQL keeps no such text; SQLite would, and what a device may send must not depend on that.
            return Status.BAD_REQUEST, "kind or collapse_key holds a NUL"
        return None

    # The backlog: sends that wait, one after another

    def _wait(self, session: Session, packet: Send, answer: Answer, work: Work) -> None:
        if self._waiting_bytes > self._limits.max_commit_queue_bytes:
            answer.give(Status.OVERLOADED, "too many sends wait", BUSY_RETRY_MS)
        elif session.backlog is None:
            session.backlog = deque(((len(packet.payload), work),))
            self._waiting_bytes += len(packet.payload)
            self._tasks.start(self._work_off(session, session.backlog), "a session's sends")
        elif len(session.backlog) < _MAX_BACKLOG:
            session.backlog.append((len(packet.payload), work))
            self._waiting_bytes += len(packet.payload)
        else:
            answer.give(Status.OVERLOADED, f"more than {_MAX_BACKLOG} sends wait", BUSY_RETRY_MS)

    async def _work_off(self, session: Session, backlog: Backlog) -> None:
        try:
            while backlog and not session.connection.is_closing:
                size, work = backlog.popleft()
                self._waiting_bytes -= size
                await work()
        except Exception:
            # Nobody would answer the ones behind it.
            session.connection.close(CloseCode.INTERNAL_ERROR)
            raise
        finally:
            self._waiting_bytes -= sum(size for size, _ in backlog)
            session.backlog = None

    async def _judge_and_route(self, session: Session, packet: Send, answer: Answer, trace: bytes) -> None:
        if self._is_judged and packet.to and session.facts is not None:
            status = await self._app.hooks.judge_send(session.facts, packet.to, packet.kind)
            if status != Status.OK:
                answer.give(status, "authorize_send did not allow it")
                return
        work = self._route_or_wait(session, packet, answer, trace)
        if work is not None:
            await work()

    # Where to

    def _route(self, session: Session, packet: Send, answer: Answer, trace: bytes) -> None:
        work = self._route_or_wait(session, packet, answer, trace)
        if work is not None:
            self._wait(session, packet, answer, work)

    def _route_or_wait(self, session: Session, packet: Send, answer: Answer, trace: bytes) -> Work | None:
        """Does what can be done at once; gives the rest, which must wait for something."""
        if not packet.to:
            self._to_application(session, packet, answer, trace)
            return None
        scheme, _, name = packet.to.partition(":")
        if scheme == "device":
            target = self._hub.find_by_id(name)
            device_no = target.device_no if target is not None else self._directory.find(name)
            if device_no is not None:
                self._to_devices(session, packet, answer, trace, (device_no,), "")
                return None
            if not is_device_id(name):
                answer.give(Status.BAD_REQUEST, "to names no possible device id")
                return None
            return partial(self._to_unseen_device, session, packet, answer, trace, name)
        if scheme == "user":
            if not is_device_id(name):
                answer.give(Status.BAD_REQUEST, "to names no possible user")
                return None
            return partial(self._to_user, session, packet, answer, trace, name)
        if scheme == "group":
            return self._groups.route(session, packet, answer, trace, name, self._to_devices)
        if scheme == "topic" and name:
            answer.give(Status.UNSUPPORTED, "topic: is not built yet")
        else:
            answer.give(Status.BAD_REQUEST, "to is none of device:, user:, group:, topic: or empty")
        return None

    async def _to_unseen_device(
        self, session: Session, packet: Send, answer: Answer, trace: bytes, device_id: str
    ) -> None:
        try:
            device_no = await self._directory.look_up(device_id)
        except StoreUnavailable:
            answer.give(Status.NOT_DURABLE, "the store does not answer", BUSY_RETRY_MS)
            return
        if device_no is None:
            answer.give(Status.UNKNOWN_TARGET, "no such device is registered")
        else:
            self._to_devices(session, packet, answer, trace, (device_no,), "")

    async def _to_user(self, session: Session, packet: Send, answer: Answer, trace: bytes, user: str) -> None:
        try:
            devices = await self._directory.devices_of(user)
        except StoreUnavailable:
            answer.give(Status.NOT_DURABLE, "the store does not answer", BUSY_RETRY_MS)
            return
        if not devices:
            answer.give(Status.UNKNOWN_TARGET, "no such user is registered")
            return
        receivers = tuple(no for no in devices if no != session.device_no)
        self._to_devices(session, packet, answer, trace, receivers, packet.to)

    # To devices

    def _to_devices(
        self, session: Session, packet: Send, answer: Answer, trace: bytes, receivers: tuple[int, ...], to: str
    ) -> None:
        if self._traces.has_marks:
            trace = self._traces.marked(trace, receivers)
            answer = traced(answer, self._traces, trace, packet)
        if not answer.is_wanted:
            if trace and trace[23] & SAMPLED:
                answer.give(Status.OK)
            self._relay(session, packet, receivers, to, trace)
            return
        if packet.ttl_s == 0:
            message = relayed(session, packet, to, self._clock.now_ms())
            far = self._far(receivers)
            if self._across is None or not far:
                _answer_now(answer, self.for_now(session.device_no, message, receivers, trace)[0])
            else:
                self._for_now_across(self._across, session.device_no, message, receivers, far, trace, answer)
            return
        if self.is_overloaded:
            answer.give(Status.OVERLOADED, "too much waits for the store", BUSY_RETRY_MS)
            return
        online = receivers
        has_absent = False
        for device_no in receivers:
            target = self._hub.find(device_no)
            if target is None:
                has_absent = True
            elif target.window is not None and target.window.is_full:
                answer.give(Status.OVERLOADED, f"{self._limits.max_inbox} messages wait already", BUSY_RETRY_MS)
                return
        if has_absent:
            online = tuple(no for no in receivers if self._may_be_online(no))
        now_ms = self._clock.now_ms()
        ttl_s = self._limits.default_ttl_s if packet.ttl_s < 0 else packet.ttl_s
        envelope = Envelope(
            session.device_no,
            session.address,
            packet.message_id,
            to,
            packet.kind,
            packet.payload,
            packet.collapse_key,
            now_ms,
            now_ms + ttl_s * 1000,
            receivers,
            online,
            trace,
        )
        self._store.commit(envelope, partial(self._committed, answer))

    @property
    def is_overloaded(self) -> bool:
        """Whether more waits for the store and the log than the node will keep."""
        return self._store.queued_bytes + self._uplink.queued_bytes > self._limits.max_commit_queue_bytes

    def _may_be_online(self, device_no: int) -> bool:
        if self._hub.find(device_no) is not None:
            return True
        return self._across is not None and self._across.may_be_online(device_no)

    def _far(self, receivers: Iterable[int]) -> list[int]:
        """Those who are not here."""
        return [no for no in receivers if self._hub.find(no) is None]

    def _committed(self, answer: Answer, envelope: Envelope, outcome: Committed) -> None:
        if outcome.status is Status.OVERLOADED and self._across is not None and self._far(envelope.online):
            self._look_whether_full(self._across, answer, envelope)
        else:
            self._settled(answer, envelope, outcome)

    def _look_whether_full(self, across: Across, answer: Answer, envelope: Envelope) -> None:
        """An inbox is full: of a receiver who is online, or of one who was only taken to be."""
        if len(self._full) >= _MAX_FULL or self._waiting_bytes > self._limits.max_commit_queue_bytes:
            self._settled(answer, envelope, Committed(Status.OVERLOADED))
            return
        self._full.append((answer, envelope))
        self._waiting_bytes += len(envelope.payload)
        if not self._is_trying_full:
            self._is_trying_full = True
            self._tasks.start(self._try_full(across), "sends to full inboxes")

    async def _try_full(self, across: Across) -> None:
        try:
            while self._full:
                tried = list(self._full)
                self._full.clear()
                self._waiting_bytes -= sum(len(envelope.payload) for _, envelope in tried)
                far = list({no for _, envelope in tried for no in self._far(envelope.online)})
                away: set[int] = set()
                with contextlib.suppress(StoreUnavailable):  # then all count as online
                    routes = await across.where(far)
                    away = {no for no, route in zip(far, routes, strict=True) if route is None}
                for answer, envelope in tried:
                    self._try_again(answer, envelope, away)
        finally:
            self._is_trying_full = False

    def _try_again(self, answer: Answer, envelope: Envelope, away: set[int]) -> None:
        online = tuple(no for no in envelope.online if no not in away or self._hub.find(no) is not None)
        if len(online) == len(envelope.online):
            self._settled(answer, envelope, Committed(Status.OVERLOADED))
        else:
            envelope.online = online
            self._store.commit(envelope, partial(self._settled, answer))

    def _settled(self, answer: Answer, envelope: Envelope, outcome: Committed) -> None:
        answer.give(outcome.status, retry_after_ms=0 if outcome.status.is_success else BUSY_RETRY_MS)
        if outcome.status is Status.OK:
            self._counters.sent_ms.add(self._now_ms() - envelope.sent_at_ms)
        self.deliver(envelope, outcome)

    def deliver(self, envelope: Envelope, outcome: Committed) -> None:
        """Hands a committed message to the sessions of its receivers."""
        if outcome.status is Status.DUPLICATE and self._across is not None:
            self._have_read(self._across, envelope)
            return
        far: list[int] | None = None
        for device_no in outcome.receivers:
            session = self._hub.find(device_no)
            if session is not None:
                self._delivery.offer(session, envelope, outcome.seq)
            elif far is None:
                far = [device_no]
            else:
                far.append(device_no)
        if far is not None and self._across is not None:
            self._across.deliver(push_message_of(envelope), outcome.seq, far)
        elif far is not None and envelope.trace and envelope.trace[23] & SAMPLED:
            message_id = envelope.message_id.hex()
            self._traces.hop(
                "message.waiting", envelope.trace, message_id=message_id, reason="offline", receivers=len(far)
            )
        if outcome.status is Status.OVERLOADED and len(envelope.receivers) == 1:
            session = self._hub.find(envelope.receivers[0])
            if session is not None and session.window is not None:
                session.window.is_full = True

    def _have_read(self, across: Across, envelope: Envelope) -> None:
        """The first of a repeat may have been committed by a node that died before it delivered it: it waits in the
        inboxes, and what its sender sends next must not overtake it.
        """
        for device_no in envelope.receivers:
            session = self._hub.find(device_no)
            if session is not None:
                self._delivery.nudge(session)
        across.nudge(self._far(envelope.receivers))

    def _relay(self, session: Session, packet: Send, receivers: tuple[int, ...], to: str, trace: bytes) -> None:
        """At most once, to those online now."""
        message = relayed(session, packet, to, self._clock.now_ms())
        self._spread(message, receivers, trace)
        if self._across is not None and (far := self._far(receivers)):
            self._across.relay(told(message, trace), far)

    def _spread(self, message: Push, receivers: tuple[int, ...], trace: bytes) -> tuple[int, ...]:
        """Writes to those online now and reading; who those were."""
        written: list[int] = []
        for device_no in receivers:
            target = self._hub.find(device_no)
            if target is not None and self.write_once(target, message, trace):
                written.append(device_no)
        return tuple(written)

    def write_once(self, target: Session, message: Push, trace: bytes) -> bool:
        """Writes a message at most once; False where the device does not read."""
        connection = target.connection
        if connection.is_clogged:
            self._counters.dropped += 1
            return False
        connection.send(message, self._delivery.next_handle(), 0, trace)
        self._counters.pushes += 1
        if trace and trace[23] & SAMPLED:
            self._traces.hop(
                "message.written",
                trace,
                message_id=message.message_id.hex(),
                device_id=target.device_id,
                session_id=target.session_id,
            )
        return True

    def for_now(
        self, sender_no: int, message: Push, receivers: tuple[int, ...], trace: bytes
    ) -> tuple[Status, tuple[int, ...]]:
        """TTL 0 with a receipt: only who is online now; with the status, who was written to.

        A repeat of what was written is told from a first time.
        """
        key = (sender_no, message.message_id)
        if key in self._recent:
            return Status.DUPLICATE, ()
        if not any(self._hub.find(device_no) is not None for device_no in receivers):
            return Status.OFFLINE, ()
        written = self._spread(message, receivers, trace)
        if not written:
            return Status.OVERLOADED, ()
        self._keep(key)
        return Status.OK, written

    def _for_now_across(
        self,
        across: Across,
        sender_no: int,
        message: Push,
        receivers: tuple[int, ...],
        far: list[int],
        trace: bytes,
        answer: Answer,
    ) -> None:
        """As ``for_now`` where some of the receivers are not here; answered once their nodes have said who was."""
        key = (sender_no, message.message_id)
        if key in self._recent:
            _answer_now(answer, Status.DUPLICATE)
            return
        here = self._spread(message, receivers, trace)

        def done(there: tuple[int, ...]) -> None:
            if here or there:
                self._keep(key)
                _answer_now(answer, Status.OK)
            else:
                _answer_now(answer, Status.OVERLOADED if len(far) < len(receivers) else Status.OFFLINE)

        across.relay(told(message, trace), far, done)

    def _keep(self, key: tuple[int, bytes]) -> None:
        self._recent[key] = None
        if len(self._recent) > _RECENT:
            del self._recent[next(iter(self._recent))]

    # To the application

    def _to_application(self, session: Session, packet: Send, answer: Answer, trace: bytes) -> None:
        if self._app.find_in_place(packet.kind) is not None:
            if not self.begin_call(session):
                answer.give(Status.OVERLOADED, "too many calls run", BUSY_RETRY_MS)
                return
            self._tasks.start(self._run_in_place(session, packet, answer, trace), "an in-place handler")
            return
        if self.is_overloaded:
            answer.give(Status.OVERLOADED, "too much waits for the log", BUSY_RETRY_MS)
            return
        record = UplinkRecord(
            session.device_no,
            session.device_id,
            packet.message_id,
            packet.kind,
            packet.payload,
            self._clock.now_ms(),
            trace,
        )
        self._uplink.append(record, partial(_appended, answer))

    def begin_call(self, session: Session) -> bool:
        """Counts a call of a handler in place; False where as many run as may, for this session or for all."""
        limits = self._limits
        if session.calls >= limits.max_requests_per_session or self._calls >= limits.max_requests:
            return False
        session.calls += 1
        self._calls += 1
        return True

    def end_call(self, session: Session) -> None:
        session.calls -= 1
        self._calls -= 1

    async def _run_in_place(self, session: Session, packet: Send, answer: Answer, trace: bytes) -> None:
        if trace:
            CALL.set(Call(trace=trace))  # of this task
        try:
            handler = self._app.find_in_place(packet.kind)
            assert handler is not None
            context = Context(
                kind=packet.kind,
                device_id=session.device_id,
                device_no=session.device_no,
                sent_at_ms=self._clock.now_ms(),
                services=self._app.services,
                message_id=packet.message_id,
                user=session.user,
                trace=trace,
            )
            result = await call(handler, packet.payload, context)
        finally:
            self.end_call(session)
        answer.give(result.status, result.detail)


def _answer_now(answer: Answer, status: Status) -> None:
    """Answers a message that has no time to wait."""
    detail, retry_after_ms = _NOT_NOW.get(status, ("", 0))
    answer.give(status, detail, retry_after_ms)


def _appended(answer: Answer, _record: UplinkRecord, status: Status) -> None:
    answer.give(status, retry_after_ms=0 if status.is_success else BUSY_RETRY_MS)
