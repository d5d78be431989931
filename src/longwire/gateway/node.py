"""A gateway node: its parts put together, its start and its stop.

Start: tick ─► listen ─► register.
Stop: (send the devices elsewhere) ─► stop listening ─► tell the devices ─► wait ─► flush acknowledgements ─► end the
tasks ─► detach ─► leave. It leaves last: the devices of a node that is not listed count as offline.

Alone or one of several: ``Engines.across`` is what it needs of the others, and None where there are none.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
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
from longwire.gateway.drain import Drain
from longwire.gateway.facts import NodeFacts
from longwire.gateway.fan_out import FanOut
from longwire.gateway.groups import Groups
from longwire.gateway.handshake import Handshake
from longwire.gateway.hub import Hub
from longwire.gateway.lag import LoopWatch
from longwire.gateway.load import Load
from longwire.gateway.looks import Looks
from longwire.gateway.presence import Presences, transport_of, version_of
from longwire.gateway.reconcile import Reconcile
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
from longwire.net.trusted import TrustedProxies
from longwire.net.wheel import TICK_S, Wheel, ticks
from longwire.operations_model import NodeReport, SessionView
from longwire.ports.accounts import AccountStore
from longwire.ports.across import Across
from longwire.ports.audiences import AudienceStore
from longwire.ports.commands import CommandStore
from longwire.ports.events import EventLog
from longwire.ports.link import Called, Forward, Sent, Taken
from longwire.ports.messages import MessageStore
from longwire.ports.presence import PresenceStore
from longwire.ports.push_waiting import PushWaiting
from longwire.ports.pushes import PushStore
from longwire.ports.receipts import ReceiptLog
from longwire.ports.registry import Registry
from longwire.ports.routes import RouteTable
from longwire.ports.tokens import TokenCheck
from longwire.ports.uplink import UplinkWriter
from longwire.push_model import Broadcasted, BroadcastOrder, PushMessage, SegmentReceipts
from longwire.reasons import CloseCode, Status
from longwire.traces import NO_TRACES, SAMPLED, Traces

log = logging.getLogger(__name__)

_LOOK_AFTER_TICKS = ticks(60.0)
# So that what was not acknowledged for half a minute goes out again within the next.
_LOOK_AFTER_PUSHES_TICKS = ticks(30.0)
_SLICE = 200
_NUDGES = 1_000
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
    proxy_protocol: bool = False
    """Whether trusted proxies begin connections with a PROXY header."""
    trusted_proxies: frozenset[str] = frozenset()
    weight: float = 1.0
    """The share of new devices that this node is given, against the other nodes'."""
    internal_url: str = ""
    """Where other nodes reach it; "" where there are none, or where ``Node.register`` is told."""
    reuse_port: bool = False
    """Whether several processes listen on the same ports."""


@dataclass(frozen=True, slots=True)
class Engines:
    """The ports a node stands on."""

    accounts: AccountStore
    messages: MessageStore
    uplink: UplinkWriter
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
    across: Across | None = None
    """The way to the other nodes; None: there are none."""
    tokens: TokenCheck | None = None
    """What checks tokens at CONNECT; None: the accounts themselves."""


class Node:
    """One gateway node of this process.

    It is ports.link.LinkedNode for the other processes of a cluster, and ports.link.Link where there are no others.
    """

    def __init__(
        self,
        settings: NodeSettings,
        engines: Engines,
        tokens: Tokens,
        app: Longwire,
        clock: Clock,
        limits: Limits,
        traces: Traces = NO_TRACES,
    ) -> None:
        self._traces = traces
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
        self._limits = limits
        self._started_at_ms = clock.now_ms()
        self._load = Load(engines.registry, self.info, clock)
        self._tasks = Tasks()
        self._collector = Collector()
        self._wheel = wheel = Wheel(clock.monotonic)
        counters, hub, tasks, node_id = self.counters, self.hub, self._tasks, self.node_id
        self._across = across = engines.across
        self._internal_url = settings.internal_url
        self._broadcasts = Broadcasts(hub, engines.receipts, clock, counters, traces)
        self._fan_out = FanOut(hub, self._broadcasts, counters, tasks, traces)
        self._delivery = Delivery(
            node_id, hub, engines.messages, self._broadcasts, wheel, clock, limits, counters, tasks, across, traces
        )
        self._catch_up = CatchUp(
            hub, self._broadcasts, engines.push_waiting, self._delivery, clock, limits, counters, tasks
        )
        self._delivery.pushes = self._catch_up
        self._presences = Presences(node_id, engines.presence, engines.events, app.hooks, clock, tasks)
        self._commands = Commands(hub, engines.commands, clock, limits, counters, tasks, traces)
        self._handshake = Handshake(
            node_id,
            hub,
            engines.tokens or engines.accounts,
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
            across,
        )
        self._reconcile = Reconcile(node_id, hub, engines.routes, self._handshake.arriving, clock)
        self.looks = Looks(
            {"routes": self._reconcile.look, "inboxes": self._delivery.look, "pushes": self._catch_up.look},
            engines.registry,
            clock,
            tasks,
        )
        directory = Directory(engines.accounts, engines.sets, clock)
        groups = Groups(directory, self._fan_out, self._delivery, engines.pushes, clock, limits, across, traces)
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
            across,
            traces,
        )
        requests = Requests(app, self._sending, clock, limits, tasks, traces)
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
        self.device_port.admit_client = self._admission.judge_client
        self.device_port.trusted_proxies = TrustedProxies(settings.trusted_proxies)
        self._drain = Drain(node_id, hub, engines.registry, self._admission, clock, self._changed)
        self._reporter = Reporter(
            node_id,
            hub,
            counters,
            self.device_port,
            self.watch,
            self._broadcasts,
            engines.messages,
            engines.uplink,
            self._drain,
            self._reconcile,
            across,
            clock,
            limits,
        )
        self._listeners: list[Listener] = []
        self._timer: asyncio.TimerHandle | None = None
        self._detaching: list[tuple[int, int]] = []

    # -- start and stop ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """``listen`` and ``register``."""
        await self.listen()
        await self.register()

    async def listen(self) -> None:
        """Takes connections. Raises OSError where a port cannot be had, ssl.SSLError."""
        settings = self.settings
        self._collector.start()
        self._tick()
        proxied, reused = settings.proxy_protocol, settings.reuse_port
        listener = await Listener.open(
            self.device_port, settings.host, settings.port, takes_proxy_header=proxied, reuse_port=reused
        )
        self._listeners.append(listener)
        self.port_number = listener.port
        if settings.certificate is not None:
            context = tls_context(settings.certificate, settings.certificate_key)
            secured = await Listener.open(
                self.device_port,
                settings.host,
                settings.tls_port,
                context,
                takes_proxy_header=proxied,
                reuse_port=reused,
            )
            self._listeners.append(secured)
            self.tls_port_number = secured.port

    async def register(self, internal_url: str = "") -> None:
        """Lets itself be chosen. ``internal_url``: where other nodes reach it, if that was not known before.

        Raises RegistryUnavailable.
        """
        self._internal_url = internal_url or self._internal_url
        await self._engines.registry.register(self.info())

    async def stop(self, drain_s: float = 0.0) -> None:
        """Leaves in order; within ten seconds and ``drain_s``, whatever the peers do.

        With ``drain_s`` the devices are sent to other nodes first, where others take devices.
        """
        for listener in self._listeners:
            listener.stop_accepting()
        self._drain.begin(drain_s, is_stopping=True)
        if drain_s > 0:
            await self._drain.wait()
        await self._tell_devices()
        self._delivery.stop_waiting()
        await self._broadcasts.drain(_FLUSHED_WITHIN_S)
        await self._tasks.stop(_TASKS_END_WITHIN_S)
        await self._detach()
        await self._engines.registry.leave(self.node_id)
        if self._timer is not None:
            self._timer.cancel()
        self.watch.stop()
        log.info(
            "node %s stopped; the loop was held for %d ms at the longest, the collector took %d ms at the longest",
            self.node_id,
            self.watch.longest_s * 1000,
            self.watch.longest_pause_s * 1000,
        )

    def hurry(self) -> None:
        """A stop that waits for devices to go elsewhere waits no longer."""
        self._drain.hurry()

    def _changed(self) -> None:
        self._engines.registry.update(self.info())

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
            capacity=self._limits.max_connections,
            weight=self.settings.weight,
            cpu_share=self._load.cpu_share,
            loop_lag_ms=self._load.loop_lag_ms,
            started_at_ms=self._started_at_ms,
            internal_url=self._internal_url,
        )

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        before = self._wheel.tick
        self._wheel.advance()
        self._load.tick()
        self._drain.tick()
        self._collector.settle(self.counters.connects)
        self._broadcasts.flush()
        is_alone = self._across is None
        if not is_alone:
            self.looks.tick()
        if is_alone and self._wheel.tick // _LOOK_AFTER_PUSHES_TICKS != before // _LOOK_AFTER_PUSHES_TICKS:
            self._catch_up.look_after()
        if self._wheel.tick // _LOOK_AFTER_TICKS != before // _LOOK_AFTER_TICKS:
            self._broadcasts.sweep()
            if is_alone:
                self._delivery.look_after()

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
            log.warning("%d routes were not detached; the next look finds them: %s", len(ended), error)
            self.looks.owe()

    # -- ports.link.Link ---------------------------------------------------------------------------------------------

    async def close_session(self, device_no: int, code: CloseCode, reason: str) -> bool:
        """Closes the device's session if it is here; whether it was."""
        return self.strike(device_no, code, reason)

    async def send(self, envelope: Envelope, wait_ack_s: float = 0.0) -> Sent:
        """Commits a message of the application and delivers it to the receivers that are here."""
        refused = self._send_now(envelope)
        if refused is not None:
            return refused
        acks = Acks(envelope.receivers) if wait_ack_s > 0 else None
        outcome: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()

        def committed(envelope: Envelope, result: Committed) -> None:
            if envelope.trace and envelope.trace[23] & SAMPLED:
                self._traces.committed(envelope, result)
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
            if envelope.trace and envelope.trace[23] & SAMPLED:
                self._traces.committed(envelope, result)
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

    async def call(
        self, device_no: int, command_id: bytes, method: str, payload: bytes, timeout_ms: int, trace: bytes = b""
    ) -> Called:
        """Asks a method of a device that is here."""
        return await self._commands.call(device_no, command_id, method, payload, timeout_ms, trace)

    async def sessions(self, device_nos: Sequence[int]) -> list[SessionView | None]:
        """The live session of each device, if it is here."""
        return [None if session is None else self._view(session) for session in map(self.hub.find, device_nos)]

    async def drain(self, node_id: str, within_s: float) -> bool:
        """Sends the devices of this node elsewhere; False for another node."""
        if node_id == self.node_id:
            self.begin_drain(within_s)
        return node_id == self.node_id

    async def undrain(self, node_id: str) -> bool:
        """Takes devices again; False for another node."""
        if node_id == self.node_id:
            self.end_drain()
        return node_id == self.node_id

    async def move(self, node_id: str, count: int, within_s: float) -> int:
        """Sends so many devices of this node elsewhere; how many are told, 0 for another node."""
        return self.move_away(count, within_s) if node_id == self.node_id else 0

    async def report(self, node_id: str) -> NodeReport | None:
        """What this node says of itself; None for another."""
        return self._reporter.look() if node_id == self.node_id else None

    def session_count(self) -> int:
        return len(self.hub)

    # -- ports.link.LinkedNode, beside what is Link's too ------------------------------------------------------------

    def has(self, device_no: int) -> bool:
        """Whether a session of the device stands here."""
        return self.hub.find(device_no) is not None

    def arrive(self, forwards: Sequence[Forward]) -> list[Taken]:
        """Offers messages of other nodes to the sessions here, in their order; what became of each."""
        return [self._offer(forward) if forward.seq else self._write_once(forward) for forward in forwards]

    def _offer(self, forward: Forward) -> Taken:
        gone: list[int] = []
        for device_no in forward.receivers:
            session = self.hub.find(device_no)
            if session is not None:
                try:
                    self._delivery.offer(session, forward.message, forward.seq)
                except Exception:
                    log.exception("a message was not offered to device %d; its connection closes", device_no)
                    session.connection.close(CloseCode.INTERNAL_ERROR)
            elif not self._handshake.expects(device_no):
                gone.append(device_no)
        return Taken(gone=tuple(gone))

    def _write_once(self, forward: Forward) -> Taken:
        message = push_of(forward.message)
        gone: list[int] = []
        written: list[int] = []
        for device_no in forward.receivers:
            session = self.hub.find(device_no)
            if session is None:
                gone.append(device_no)
                continue
            try:
                if self._sending.write_once(session, message, forward.message.trace):
                    written.append(device_no)
            except Exception:
                log.exception("a message was not written to device %d; its connection closes", device_no)
                session.connection.close(CloseCode.INTERNAL_ERROR)
        return Taken(gone=tuple(gone), written=tuple(written))

    def spread(self, message: PushMessage, receivers: BitMap) -> None:
        """Writes a message of another node at most once to those of the receivers who are here."""
        here = receivers & self.hub.online
        if self._fan_out.is_full:
            self.counters.dropped += len(here)
        elif here:
            self._fan_out.spread(push_of(message), self._delivery.next_handle(), here, message.trace)

    def end_older(self, sessions: Sequence[tuple[int, int]]) -> None:
        """Ends the sessions of these (device_no, epoch) that are older than the epoch: they are taken over."""
        for device_no, epoch in sessions:
            session = self.hub.find(device_no)
            if session is not None and session.epoch < epoch:
                session.connection.close(CloseCode.TAKEN_OVER)
            if device_no in self._handshake.arriving:
                self._handshake.superseded[device_no] = epoch

    def nudge(self, devices: BitMap) -> BitMap:
        """Has the devices' sessions read their inboxes; gives those who are not here."""
        here = devices & self.hub.online
        if len(here) > _NUDGES:
            self._tasks.start(self._nudge_all(here), "a look into many inboxes")
        else:
            self._nudge(here)
        rest = devices - here
        return rest - BitMap(filter(self._handshake.expects, rest & BitMap(self._handshake.arriving)))

    async def _nudge_all(self, devices: BitMap) -> None:
        numbers = devices.to_array()
        for at in range(0, len(numbers), _NUDGES):
            self._nudge(numbers[at : at + _NUDGES])
            await asyncio.sleep(0)

    def _nudge(self, device_nos: Iterable[int]) -> None:
        for device_no in device_nos:
            session = self.hub.find(device_no)
            if session is not None:
                self._delivery.nudge(session)
            elif self._across is not None:
                self._across.nudge((device_no,))  # it has left since

    def strike(self, device_no: int, code: CloseCode, reason: str) -> bool:
        """Closes the device's session, also one that is about to stand; whether one stood."""
        self._handshake.strike(device_no, code, reason)
        session = self.hub.find(device_no)
        if session is not None:
            session.connection.close(code, reason)
        return session is not None

    def begin_drain(self, within_s: float) -> None:
        """Begins to send the devices elsewhere, all within this time."""
        self._drain.begin(within_s)

    def end_drain(self) -> None:
        """Takes devices again."""
        self._drain.end()

    def move_away(self, count: int, within_s: float) -> int:
        """Sends so many devices elsewhere; how many are told."""
        return self._drain.move(count, within_s)

    @property
    def facts(self) -> NodeFacts:
        """Where the node's numbers stand."""
        engines = self._engines
        return NodeFacts(
            self.counters,
            self.hub,
            self.device_port,
            self.watch,
            self._broadcasts,
            self._fan_out,
            self._reconcile,
            self._drain,
            engines.messages,
            engines.uplink,
            self._across,
            self._limits,
        )

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
