"""CONNECT: checks who a device is, in batches, and opens its session.

    connect ─► pending ─► tokens checked (one query) ─► routes attached ─► opened, CONNECTED
                                                    └─► the stores asked for whom anything waits ─► delivery, catch_up

One task serves whatever has come, batch after batch: a storm of connects costs a query for hundreds of them and no
task for any. What a device sends behind CONNECT is held and handled in order once it is in.

Other nodes' messages, and the news that a newer session stands elsewhere, may come between the attach and the opening:
they are noted for the devices that are arriving. A session that takes over one of another node gets its messages from
the store until that node has ended the old one: else one that was written there would be overtaken here.
"""

import asyncio
import contextlib
import hashlib
import logging
from functools import partial
from typing import NamedTuple, TypeGuard

from longwire.accounts.tokens import close_code
from longwire.application import Hooks
from longwire.application import Session as SessionFacts
from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.gateway.catch_up import CatchUp
from longwire.gateway.counters import Counters
from longwire.gateway.delivery import Delivery
from longwire.gateway.hub import Hub
from longwire.gateway.presence import Presences, transport_of
from longwire.gateway.session import Arrival, DeviceConnection, Session
from longwire.gateway.tasks import Tasks
from longwire.limits import Limits
from longwire.model import Credential
from longwire.net.wheel import ticks
from longwire.ports.across import Across
from longwire.ports.messages import MessageStore
from longwire.ports.push_waiting import PushWaiting
from longwire.ports.routes import Attached, Route, RouteTable
from longwire.ports.tokens import TokenCheck
from longwire.reasons import CloseCode
from longwire.wire.packets import Connect, Connected, Received

log = logging.getLogger(__name__)

_BATCH = 256
_WORTHWHILE = 16
_PACE_S = 0.002


class _Pending(NamedTuple):
    connection: DeviceConnection
    packet: Connect
    correlation: int
    token_hash: bytes
    began_s: float
    """clock.monotonic()."""


class Handshake:
    """Opens sessions on this node."""

    def __init__(
        self,
        node_id: str,
        hub: Hub,
        tokens: TokenCheck,
        routes: RouteTable,
        store: MessageStore,
        pushes: PushWaiting,
        delivery: Delivery,
        catch_up: CatchUp,
        presences: Presences,
        hooks: Hooks,
        clock: Clock,
        limits: Limits,
        counters: Counters,
        tasks: Tasks,
        across: Across | None = None,
    ) -> None:
        self._across = across
        self._node_id = node_id
        self._hub = hub
        self._tokens = tokens
        self._routes = routes
        self._store = store
        self._pushes = pushes
        self._delivery = delivery
        self._catch_up = catch_up
        self._presences = presences
        self._hooks = hooks
        self._tells = hooks.on_connect is not None or hooks.on_disconnect is not None
        self._keeps_facts = self._tells or hooks.authorize_send is not None
        self._clock = clock
        self._limits = limits
        self._counters = counters
        self._tasks = tasks
        self._pending: list[_Pending] = []
        self._struck: dict[int, tuple[CloseCode, str]] = {}
        self._is_running = False
        self.arriving: dict[int, bool] = {}
        """Devices between their attach and their session; True: a message for them came meanwhile."""
        self.superseded: dict[int, int] = {}
        """Of those, the ones that have a newer session on another node, and its epoch."""

    def connect(self, connection: DeviceConnection, frame: Received) -> None:
        """The first frame of a connection: CONNECT, or the end of it."""
        packet = frame.packet
        if not isinstance(packet, Connect):
            connection.close(CloseCode.PROTOCOL_ERROR, "the first frame is not CONNECT")
            return
        connection.held = []
        token_hash = hashlib.sha256(packet.token.encode()).digest()
        self._pending.append(_Pending(connection, packet, frame.correlation, token_hash, self._clock.monotonic()))
        if not self._is_running:
            self._is_running = True
            self._tasks.start(self._run(), "opening sessions")

    def hold(self, connection: DeviceConnection, frame: Received) -> None:
        """A frame behind a CONNECT that is being checked: kept; the connection bounds how much that may be."""
        assert connection.held is not None
        connection.held.append(frame)

    def strike(self, device_no: int, code: CloseCode, reason: str) -> None:
        """A device is cut off: also where its token was read just before and its session does not stand yet."""
        if self._is_running:
            self._struck[device_no] = (code, reason)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._pending:
                began = loop.time()
                batch = self._pending[:_BATCH]
                del self._pending[:_BATCH]
                try:
                    await self._settle(batch)
                except StoreUnavailable as error:
                    log.warning("connects are refused: %s", error)
                    _refuse_all(batch, CloseCode.OVERLOADED, "the store does not answer")
                except Exception:
                    log.exception("a batch of connects failed")
                    _refuse_all(batch, CloseCode.INTERNAL_ERROR, "")
                if 0 < len(self._pending) < _WORTHWHILE:
                    # A storm: a query costs the same for three as for fifty.
                    await asyncio.sleep(began + _PACE_S - loop.time())
        finally:
            self._is_running = False

    async def _settle(self, batch: list[_Pending]) -> None:
        now_ms = self._clock.now_ms()
        self._struck.clear()
        credentials = await self._tokens.check_tokens([p.token_hash for p in batch], now_ms)
        admitted: list[tuple[_Pending, Credential]] = []
        for pending, credential in zip(batch, credentials, strict=True):
            if isinstance(credential, StoreUnavailable):
                pending.connection.close(CloseCode.OVERLOADED, "the store does not answer")
                continue
            code = close_code(credential, pending.packet.device_id, now_ms)
            if code is not None:
                pending.connection.close(code)
            elif credential is not None and not pending.connection.is_closing:
                admitted.append((pending, credential))
        if not admitted:
            return
        device_nos = [credential.device_no for _, credential in admitted]
        self.arriving.update(dict.fromkeys(device_nos, False))
        opened: list[tuple[Session, Attached]] = []
        gone: list[tuple[int, int]] = []
        try:
            attached = await self._routes.attach(self._node_id, device_nos)
            since_ms = self._clock.now_ms()
            for (pending, credential), route in zip(admitted, attached, strict=True):
                self._judge_again(pending.connection, credential.device_no, route.epoch)
                if pending.connection.is_closing:
                    gone.append((credential.device_no, route.epoch))
                else:
                    opened.append((self._open(pending, credential, route.epoch, since_ms), route))
                if self._across is not None:
                    self._tell_nodes(self._across, pending.connection.session, credential.device_no, route)
        finally:
            self.arriving.clear()
            self.superseded.clear()
        await self._begin_delivery(opened)
        if gone:
            await self._routes.detach(self._node_id, gone)

    def expects(self, device_no: int) -> bool:
        """Something came for a device; whether a session of it is about to stand, which then asks the store for it."""
        if device_no not in self.arriving:
            return False
        self.arriving[device_no] = True
        # A newer session may stand elsewhere: what comes from now on is to go there, and not be left to a nudge.
        return device_no not in self.superseded

    def _judge_again(self, connection: DeviceConnection, device_no: int, epoch: int) -> None:
        """Closes the connection where its device was cut off, or connected elsewhere, while its route was set."""
        struck = self._struck.get(device_no)
        if struck is not None:
            connection.close(*struck)
        elif self.superseded.get(device_no, 0) > epoch:
            connection.close(CloseCode.TAKEN_OVER)

    def _is_elsewhere(self, previous: Route | None) -> TypeGuard[Route]:
        return previous is not None and previous.node_id != self._node_id

    def _tell_nodes(self, across: Across, session: Session | None, device_no: int, route: Attached) -> None:
        """The device's route leads here: what came meanwhile, or is under way, is read from the store."""
        if self._is_elsewhere(route.previous):
            go_on = _nothing if session is None else partial(self._delivery.go_on, session, has_waiting=True)
            across.end_older(route.previous.node_id, device_no, route.epoch, go_on)
        has_missed = self.arriving[device_no] or across.is_under_way(device_no)
        if session is None:
            if has_missed:
                across.nudge((device_no,))
            return
        across.came(device_no)
        if has_missed:
            session.arrival = Arrival.MISSED_ONE

    def _open(self, pending: _Pending, credential: Credential, epoch: int, since_ms: int) -> Session:
        connection, packet, correlation, _, began_s = pending
        limits = self._limits
        heartbeat_s = min(max(packet.heartbeat_s, limits.heartbeat_min_s), limits.heartbeat_max_s)
        silent_ticks = ticks(heartbeat_s * 1.5)
        session = Session(credential.device_no, credential.device_id, epoch, connection, silent_ticks)
        session.since_ms = since_ms
        session.expires_at_ms = credential.expires_at_ms
        session.user = credential.user
        connection.session = session
        previous = self._hub.bind(session)
        if previous is not None:
            previous.connection.close(CloseCode.TAKEN_OVER)
        self._counters.connects += 1
        self._counters.connected[connection.flavour] += 1
        self._counters.handshake_ms.add((self._clock.monotonic() - began_s) * 1000)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s connected", session.device_id, extra={"labels": {"device_id": session.device_id}})
        self._delivery.begin(session)
        # Its token may have ended while it was checked: then this closes it.
        connection.port.wheel.add(connection, connection.port.receiver.due(connection))
        if connection.is_closing:
            return session
        connection.send(
            Connected(
                session.session_id,
                heartbeat_s,
                self._node_id,
                since_ms,
                credential.missed,
                limits.max_body_bytes,
                max(0, (credential.expires_at_ms - since_ms) // 1000),
            ),
            correlation,
        )
        if self._keeps_facts:
            session.facts = self._facts(session, packet)
        if self._tells and session.facts is not None:
            self._tasks.start(self._hooks.tell_connected(session.facts), "on_connect")
        self._presences.came(session)
        held, connection.held = connection.held, None
        if held:
            connection.deliver(held)
        connection.proved()
        # What came before CONNECTED was written cannot say that the device has read it.
        session.told_missed = credential.missed
        return session

    async def _begin_delivery(self, opened: list[tuple[Session, Attached]]) -> None:
        """Asks for whom something waits only now that the sessions stand, of those of whom their routes say it may.

        Whatever is committed from here on finds them, and what was committed before is found here.
        """
        asked: list[Session] = []
        taking_over: set[Session] = set()
        for session, route in opened:
            if self._across is not None and self._is_elsewhere(route.previous):
                taking_over.add(session)  # goes on when the other node has answered
            elif not route.waits:
                self._delivery.go_on(session, has_waiting=False)
            if route.waits:
                asked.append(session)
        if not asked:
            return
        device_nos = [session.device_no for session in asked]
        waiting = pushes = set(device_nos)  # where a store does not answer, it is asked again until it does
        with contextlib.suppress(StoreUnavailable):
            waiting = await self._store.who_may_wait(device_nos)
        with contextlib.suppress(StoreUnavailable):
            pushes = await self._pushes.who_may_wait(device_nos)
        for session in asked:
            if session not in taking_over:
                self._delivery.go_on(session, session.device_no in waiting)
            if session.device_no in pushes:
                self._catch_up.go_on(session, has_waiting=True)

    def _facts(self, session: Session, packet: Connect) -> SessionFacts:
        connection = session.connection
        return SessionFacts(
            device_id=session.device_id,
            device_no=session.device_no,
            session_id=session.session_id,
            node_id=self._node_id,
            user=session.user,
            platform=packet.platform,
            app_version=packet.app_version,
            transport=transport_of(session),
            address=connection.peer_address,
            connected_at_ms=self._clock.now_ms(),
        )


def _nothing() -> None:
    """Nobody waits for it."""


def _refuse_all(batch: list[_Pending], code: CloseCode, reason: str) -> None:
    for pending in batch:
        session = pending.connection.session
        # One that stands and was not told what waits for it would wait for good.
        if session is None or session.arrival is not Arrival.OVER:
            pending.connection.close(code, reason)
