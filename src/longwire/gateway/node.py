"""A gateway node: its parts put together, its start and its stop.

Start: tick ─► listen ─► register.   Stop: leave ─► stop listening ─► tell the devices ─► wait ─► end the tasks.
"""

import asyncio
import logging
from dataclasses import dataclass

from longwire.accounts.tokens import Tokens
from longwire.application import Longwire
from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.gateway.admission import Admission
from longwire.gateway.collector import Collector
from longwire.gateway.counters import Counters
from longwire.gateway.delivery import Delivery, push_of
from longwire.gateway.directory import Directory
from longwire.gateway.dispatch import Dispatch
from longwire.gateway.handshake import Handshake
from longwire.gateway.hub import Hub
from longwire.gateway.lag import LoopWatch
from longwire.gateway.renewal import Renewal
from longwire.gateway.requests import Requests
from longwire.gateway.sending import Sending
from longwire.gateway.session import Session
from longwire.gateway.tasks import Tasks
from longwire.limits import Limits
from longwire.model import APPLICATION_NO, Committed, Envelope, NodeInfo
from longwire.net.connection import DevicePort
from longwire.net.listener import Listener, tls_context
from longwire.net.wheel import TICK_S, Wheel, ticks
from longwire.ports.accounts import AccountStore
from longwire.ports.messages import MessageStore
from longwire.ports.registry import Registry
from longwire.ports.routes import RouteTable
from longwire.ports.uplink import UplinkLog
from longwire.reasons import CloseCode, Status

log = logging.getLogger(__name__)

_LOOK_AFTER_TICKS = ticks(60.0)
_SLICE = 200
_LINGER_S = 1.5
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
        self._tasks = Tasks()
        self._collector = Collector()
        self._wheel = wheel = Wheel(clock.monotonic)
        counters, hub, tasks, node_id = self.counters, self.hub, self._tasks, self.node_id
        self._delivery = Delivery(node_id, hub, engines.messages, wheel, clock, limits, counters, tasks)
        self._handshake = Handshake(
            node_id,
            hub,
            engines.accounts,
            engines.routes,
            engines.messages,
            self._delivery,
            app.hooks,
            clock,
            limits,
            counters,
            tasks,
        )
        directory = Directory(engines.accounts, clock)
        self._sending = Sending(
            app, hub, directory, engines.messages, engines.uplink, self._delivery, clock, limits, counters, tasks
        )
        requests = Requests(app, self._sending, clock, limits, counters, tasks)
        dispatch = Dispatch(
            self._handshake,
            self._sending,
            self._delivery,
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
        if self._wheel.tick // _LOOK_AFTER_TICKS != before // _LOOK_AFTER_TICKS:
            self._delivery.look_after()

    # -- sessions ----------------------------------------------------------------------------------------------------

    def _session_ended(self, session: Session, code: CloseCode | None) -> None:
        self.hub.unbind(session)
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

    async def send(self, envelope: Envelope) -> Status:
        """Commits a message of the application and delivers it to the receivers that are here."""
        if envelope.expires_at_ms <= envelope.sent_at_ms:  # a TTL of 0
            return self._sending.for_now(APPLICATION_NO, push_of(envelope), envelope.receivers, envelope.trace)
        if self._sending.is_overloaded:
            return Status.OVERLOADED
        envelope.online = tuple(no for no in envelope.receivers if self.hub.find(no) is not None)
        outcome: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()

        def committed(envelope: Envelope, result: Committed) -> None:
            self._sending.deliver(envelope, result)
            if not outcome.done():
                outcome.set_result(result)

        self._engines.messages.commit(envelope, committed)
        return (await outcome).status
