"""A gateway node: its parts put together, its start and its stop.

Start: tick ─► listen ─► register.
Stop: leave ─► stop listening ─► tell the devices ─► wait ─► flush acknowledgements ─► end the tasks.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from pyroaring import BitMap

from longwire.accounts.tokens import Tokens
from longwire.application import Longwire
from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.gateway.admission import Admission
from longwire.gateway.broadcasts import Broadcasts
from longwire.gateway.catch_up import CatchUp
from longwire.gateway.collector import Collector
from longwire.gateway.commands import Commands
from longwire.gateway.counters import Counters
from longwire.gateway.delivery import Acks, Delivery, push_of
from longwire.gateway.directory import Directory
from longwire.gateway.dispatch import Dispatch
from longwire.gateway.fan_out import FanOut
from longwire.gateway.groups import Groups
from longwire.gateway.handshake import Handshake
from longwire.gateway.hub import Hub
from longwire.gateway.lag import LoopWatch
from longwire.gateway.presence import Presences, transport_of, version_of
from longwire.gateway.renewal import Renewal
from longwire.gateway.report import Reporter
from longwire.gateway.requests import Requests
from longwire.gateway.sending import Sending
from longwire.gateway.session import Session
from longwire.gateway.tasks import Tasks
from longwire.limits import Limits
from longwire.model import APPLICATION_NO, Committed, Envelope, NodeInfo
from longwire.net.connection import DevicePort
from longwire.net.listener import Listener, tls_context
from longwire.net.wheel import TICK_S, Wheel, ticks
from longwire.operations_model import NodeReport, SessionView
from longwire.ports.accounts import AccountStore
from longwire.ports.audiences import AudienceStore
from longwire.ports.commands import CommandStore
from longwire.ports.events import EventLog
from longwire.ports.link import Called, Sent
from longwire.ports.messages import MessageStore
from longwire.ports.presence import PresenceStore
from longwire.ports.push_waiting import PushWaiting
from longwire.ports.pushes import PushStore
from longwire.ports.receipts import ReceiptLog
from longwire.ports.registry import Registry
from longwire.ports.routes import RouteTable
from longwire.ports.uplink import UplinkLog
from longwire.push_model import Broadcasted, BroadcastOrder, SegmentReceipts
from longwire.reasons import CloseCode, Status

log = logging.getLogger(__name__)

_LOOK_AFTER_TICKS = ticks(60.0)
# So that what was not acknowledged for half a minute goes out again within the next.
_LOOK_AFTER_PUSHES_TICKS = ticks(30.0)
_SLICE = 200
_LINGER_S = 1.5
_FLUSHED_WITHIN_S = 1.0
_TASKS_END_WITHIN_S = 2.0


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Where a node listens and how clients are told to reach it."""

    node_id: str
    host: str = "127.0.0.1"
    port: int = 7300
    tls_port: int = 7301
    certificate: str | None = None
    """Path of a PEM chain; TLS is offered only with one."""
    certificate_key: str | None = None
    public_host: str = "127.0.0.1"
    allowed_origins: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Engines:
    """The ports a node stands on."""

    accounts: AccountStore
    messages: MessageStore
    uplink: UplinkLog
    routes: RouteTable
    registry: Registry
    pushes: PushStore
    push_waiting: PushWaiting
    receipts: ReceiptLog
    sets: AudienceStore
    presence: PresenceStore
    commands: CommandStore
    events: EventLog | None = None
    """The outbox of webhooks; None: nobody is told of presence."""


class Node:
    """One gateway node of this process; also ports.link.Link for the sessions that are here."""

    def __init__(
        self,
        settings: NodeSettings,
        engines: Engines,
        tokens: Tokens,
        app: Longwire,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self.settings = settings
        self.node_id = settings.node_id
        self.counters = Counters()
        self.hub = Hub()
        self.watch = LoopWatch()
        self.port_number = 0
        self.tls_port_number: int | None = None
        self._engines = engines
        self._app = app
        self._clock = clock
        self._tasks = Tasks()
        self._collector = Collector()
        self._wheel = wheel = Wheel(clock.monotonic)
        counters, hub, tasks, node_id = self.counters, self.hub, self._tasks, self.node_id
        self._broadcasts = Broadcasts(hub, engines.receipts, clock, counters)
        self._fan_out = FanOut(hub, self._broadcasts, counters, tasks)
        self._delivery = Delivery(
            node_id, hub, engines.messages, self._broadcasts, wheel, clock, limits, counters, tasks
        )
        self._catch_up = CatchUp(
            hub, self._broadcasts, engines.push_waiting, self._delivery, clock, limits, counters, tasks
        )
        self._delivery.pushes = self._catch_up
        self._presences = Presences(node_id, engines.presence, engines.events, app.hooks, clock, tasks)
        self._commands = Commands(hub, engines.commands, clock, limits, counters, tasks)
        self._reporter = Reporter(
            node_id,
            hub,
            counters,
            self.watch,
            self._broadcasts,
            engines.messages,
            engines.uplink,
            clock,
            limits,
        )
        self._handshake = Handshake(
            node_id,
            hub,
            engines.accounts,
            engines.routes,
            engines.messages,
            engines.push_waiting,
            self._delivery,
            self._catch_up,
            self._presences,
            app.hooks,
            clock,
            limits,
            counters,
            tasks,
        )
        directory = Directory(engines.accounts, engines.sets, clock)
        groups = Groups(directory, self._fan_out, self._delivery, engines.pushes, clock, limits)
        self._sending = Sending(
            app,
            hub,
            directory,
            groups,
            engines.messages,
            engines.uplink,
            self._delivery,
            clock,
            limits,
            counters,
            tasks,
        )
        requests = Requests(app, self._sending, clock, limits, tasks)
        dispatch = Dispatch(
            self._handshake,
            self._sending,
            self._delivery,
            self._catch_up,
            self._commands,
            requests,
            Renewal(tokens, tasks),
            engines.messages,
            clock,
            counters,
            self._session_ended,
        )
        self.device_port: DevicePort[Session] = DevicePort(dispatch, wheel, limits)
        self.device_port.allowed_origins = settings.allowed_origins
        self._admission = Admission(self.device_port, clock, limits, counters)
        self.device_port.admit = self._admission.judge
        self._listeners: list[Listener] = []
        self._timer: asyncio.TimerHandle | None = None
        self._detaching: list[tuple[int, int]] = []

    # -- start and stop ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listens, and lets itself be chosen. Raises OSError where a port cannot be had, ssl.SSLError."""
        settings = self.settings
        self._collector.start()
        self._tick()
        listener = await Listener.open(self.device_port, settings.host, settings.port)
        self._listeners.append(listener)
        self.port_number = listener.port
        if settings.certificate is not None:
            context = tls_context(settings.certificate, settings.certificate_key)
            secured = await Listener.open(self.device_port, settings.host, settings.tls_port, context)
            self._listeners.append(secured)
            self.tls_port_number = secured.port
        await self._engines.registry.register(self.info())

    async def stop(self) -> None:
        """Leaves in order; within ten seconds, whatever the peers do."""
        await self._engines.registry.leave(self.node_id)
        self._admission.is_draining = True
        for listener in self._listeners:
            listener.stop_accepting()
        await self._tell_devices()
        self._delivery.stop_waiting()
        await self._broadcasts.drain(_FLUSHED_WITHIN_S)
        await self._tasks.stop(_TASKS_END_WITHIN_S)
        await self._detach()
        if self._timer is not None:
            self._timer.cancel()
        self.watch.stop()
        log.info(
            "node %s stopped; the loop was held for %d ms at the longest, the collector took %d ms at the longest",
            self.node_id,
            self.watch.longest_s * 1000,
            self.watch.longest_pause_s * 1000,
        )

    async def _tell_devices(self) -> None:
        for at, connection in enumerate(list(self.device_port.open)):
            connection.dismiss(CloseCode.DRAINING)
            if at % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
        waited = 0.0
        while self.device_port.open and waited < _LINGER_S:
            await asyncio.sleep(TICK_S / 5)
            waited += TICK_S / 5
        for connection in list(self.device_port.open):
            connection.abort()

    def info(self) -> NodeInfo:
        """The node as the registry lists it and clients are told of it."""
        host = self.settings.public_host
        return NodeInfo(
            node_id=self.node_id,
            host=host,
            port=self.port_number,
            tls_port=self.tls_port_number,
            ws_url=f"ws://{host}:{self.port_number}/ws",
            is_draining=self._admission.is_draining,
            connections=len(self.hub),
        )

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        before = self._wheel.tick
        self._wheel.advance()
        self._collector.settle(self.counters.connects)
        self._broadcasts.flush()
        if self._wheel.tick // _LOOK_AFTER_PUSHES_TICKS != before // _LOOK_AFTER_PUSHES_TICKS:
            self._catch_up.look_after()
        if self._wheel.tick // _LOOK_AFTER_TICKS != before // _LOOK_AFTER_TICKS:
            self._delivery.look_after()
            self._broadcasts.sweep()

    # -- sessions ----------------------------------------------------------------------------------------------------

    def _session_ended(self, session: Session, code: CloseCode | None) -> None:
        self.hub.unbind(session)
        self._broadcasts.left(session.device_no)
        self._commands.ended(session)
        self._presences.went(session, code)
        if not self._detaching:
            self._tasks.start(self._detach(), "detaching routes")
        self._detaching.append((session.device_no, session.epoch))
        if session.facts is not None and self._app.hooks.on_disconnect is not None:
            self._tasks.start(self._app.hooks.tell_disconnected(session.facts, code), "on_disconnect")

    async def _detach(self) -> None:
        ended, self._detaching = self._detaching, []
        try:
            await self._engines.routes.detach(self.node_id, ended)
        except StoreUnavailable as error:
            log.warning("%d routes were not detached: %s", len(ended), error)

    # -- ports.link.Link ---------------------------------------------------------------------------------------------

    async def close_session(self, device_no: int, code: CloseCode, reason: str) -> bool:
        """Closes the device's session if it is here; whether it was."""
        self._handshake.strike(device_no, code, reason)
        session = self.hub.find(device_no)
        if session is None:
            return False
        session.connection.close(code, reason)
        return True

    async def send(self, envelope: Envelope, wait_ack_s: float = 0.0) -> Sent:
        """Commits a message of the application and delivers it to the receivers that are here."""
        refused = self._send_now(envelope)
        if refused is not None:
            return refused
        acks = Acks(envelope.receivers) if wait_ack_s > 0 else None
        outcome: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()

        def committed(envelope: Envelope, result: Committed) -> None:
            if acks is not None and result.status is Status.OK and not outcome.done():
                self._delivery.expect(acks, result.seq)
            self._sending.deliver(envelope, result)
            if not outcome.done():
                outcome.set_result(result)

        self._engines.messages.commit(envelope, committed)
        try:
            result = await outcome
            if acks is not None and result.status is Status.OK:
                await asyncio.wait([acks.done], timeout=wait_ack_s)
        finally:
            if acks is not None:
                self._delivery.forget(acks)
        return _sent(envelope, result.status, () if acks is None else tuple(acks.acked_by))

    async def send_many(self, envelopes: Sequence[Envelope]) -> list[Sent]:
        """As ``send``; one future for all of them, for a task and a future each cost as much as the message."""
        sent = [self._send_now(envelope) for envelope in envelopes]
        left = sent.count(None)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def committed(at: int, envelope: Envelope, result: Committed) -> None:
            nonlocal left
            self._sending.deliver(envelope, result)
            sent[at] = _sent(envelope, result.status)
            left -= 1
            if not left and not done.done():
                done.set_result(None)

        for at, envelope in enumerate(envelopes):
            if sent[at] is None:
                self._engines.messages.commit(envelope, partial(committed, at))
        if left:
            await done
        return [one for one in sent if one is not None]

    def _send_now(self, envelope: Envelope) -> Sent | None:
        """Sends what is not stored, refuses what is too much; None for what is to be committed."""
        receivers = envelope.receivers
        if envelope.expires_at_ms <= envelope.sent_at_ms:  # a TTL of 0
            return Sent(*self._sending.for_now(APPLICATION_NO, push_of(envelope), receivers, envelope.trace))
        if self._sending.is_overloaded:
            return Sent(Status.OVERLOADED)
        envelope.online = tuple(no for no in receivers if self.hub.find(no) is not None)
        return None

    def number_of(self, device_id: str) -> int | None:
        """The number of a device whose session is here."""
        session = self.hub.find_by_id(device_id)
        return None if session is None else session.device_no

    async def broadcast(self, node_id: str, order: BroadcastOrder) -> Broadcasted:
        """Writes a push to those of the receivers that are here."""
        if node_id != self.node_id:
            raise StoreUnavailable(f"there is no node {node_id} in this process")
        if self._broadcasts.is_ended(order.push_no):
            return Broadcasted(BitMap(), is_refused=True)
        now_ms = self._clock.now_ms()
        entry = self._broadcasts.enter(order.push_no, order.message, now_ms + order.ttl_left_ms)
        if order.lease_no < entry.leases.get(order.segment, 0):
            return Broadcasted(BitMap(), is_refused=True)
        entry.leases[order.segment] = order.lease_no
        if order.receivers:
            entry.begin(order.segment, order.receivers.min(), now_ms)
        written = await self._fan_out.deliver(entry, order.receivers, order.priority)
        return Broadcasted(written, is_refused=entry.is_ended)

    async def end_push(self, push_no: int) -> list[SegmentReceipts]:
        """Nothing of this push is written here any more; what was gathered."""
        return self._broadcasts.end(push_no)

    async def catch_up(self, devices: BitMap) -> None:
        """Has the sessions of these devices look whether a push waits."""
        self._tasks.start(self._catch_up.look_at(devices), "the look for waiting pushes")

    async def call(self, device_no: int, command_id: bytes, method: str, payload: bytes, timeout_ms: int) -> Called:
        """Asks a method of a device that is here."""
        return await self._commands.call(device_no, command_id, method, payload, timeout_ms)

    async def sessions(self, device_nos: Sequence[int]) -> list[SessionView | None]:
        """The live session of each device, if it is here."""
        return [None if session is None else self._view(session) for session in map(self.hub.find, device_nos)]

    async def report(self, node_id: str) -> NodeReport | None:
        """What this node says of itself; None for another."""
        return self._reporter.look() if node_id == self.node_id else None

    def session_count(self) -> int:
        return len(self.hub)

    def _view(self, session: Session) -> SessionView:
        silent_ms = (self._wheel.tick - session.connection.heard) * TICK_S * 1000
        return SessionView(
            device_no=session.device_no,
            session_id=session.session_id,
            node_id=self.node_id,
            version=version_of(session, is_online=True),
            since_ms=session.since_ms,
            last_seen_ms=max(session.since_ms, self._clock.now_ms() - int(silent_ms)),
            transport=transport_of(session),
        )


def _sent(envelope: Envelope, status: Status, acked_by: tuple[int, ...] = ()) -> Sent:
    """What became of a message that was given to the store."""
    if status is not Status.OK:
        return Sent(status)
    online = envelope.online
    return Sent(status, online, tuple(no for no in envelope.receivers if no not in online), acked_by)
