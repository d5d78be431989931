"""Keeps a device attached to a node (PROTOCOL §4, §7): one task that connects, stays, waits and comes again.

    locate ─► connect ─► CONNECT ─► CONNECTED ─► (stays) ─► ended ─► how long to wait? ─► locate ...
                                        │                              └─ never: STOPPED until told
                                        └─ MOVE ─► the same to another node beside it, which takes over

Exactly one session is the device's at a time: the last that was CONNECTED. What another one says, its CLOSE
above all, is ignored.
"""

import asyncio
import logging
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from longwire.client.account import Account, CredentialsRefused, Node, Unavailable
from longwire.client.address import endpoint_of, parse_address
from longwire.client.backoff import STABLE_AFTER_S, Backoff
from longwire.client.calls import Calls
from longwire.client.errors import DeviceStopped
from longwire.client.inbox import Inbox
from longwire.client.outbox import Outbox
from longwire.client.session import End, Session
from longwire.client.state import Closed, State, Watch
from longwire.client.timers import Deadline, Timers, pause
from longwire.client.transport import connect
from longwire.errors import LocalProtocolError
from longwire.reasons import CloseCode
from longwire.wire.packets import Connect, Connected, Move, Push, Received, Renewed, Reply, Request, Sent

_log = logging.getLogger("longwire.client")

_CREDENTIAL_CODES = frozenset((CloseCode.TOKEN_EXPIRED, CloseCode.BAD_CREDENTIALS))
_FAULT_CODES = frozenset((CloseCode.PROTOCOL_ERROR, CloseCode.TOO_LARGE, CloseCode.UNSUPPORTED))
# The node says of itself that another one would serve better.
_AVOID_CODES = frozenset(
    (
        CloseCode.DRAINING,
        CloseCode.REBALANCED,
        CloseCode.OVERLOADED,
        CloseCode.INTERNAL_ERROR,
        CloseCode.SESSION_LOST,
    )
)
_MAX_REFUSED_TOKENS = 3


@dataclass(frozen=True, slots=True)
class Terms:
    """What a device tells the node, and how it reaches it."""

    device_id: str
    transport: str
    tls: ssl.SSLContext | None
    heartbeat_s: int
    platform: str
    app_version: str
    connect_timeout_s: float


class Attachment:
    """See the module. ``run`` is the task; the other methods are called from the event loop."""

    def __init__(
        self,
        terms: Terms,
        account: Account,
        outbox: Outbox,
        inbox: Inbox,
        calls: Calls,
        watch: Watch,
        timers: Timers,
        rng: random.Random,
        report: Callable[[Exception], None],
    ) -> None:
        self.connected_as = Connected("", 0, "", 0, 0, 0, 0)
        """What the last CONNECTED said; before the first one, nothing."""
        self.last_close: Closed | None = None
        self.first_attempt = asyncio.Event()
        """Set once it is known how the first attempt went."""
        self._terms = terms
        self._account = account
        self._outbox = outbox
        self._inbox = inbox
        self._calls = calls
        self._watch = watch
        self._timers = timers
        self._random = rng
        self._report = report
        self._backoff = Backoff(rng)
        self._session: Session | None = None
        self._successor: Session | None = None  # the session that a MOVE is about to make
        self._may_have_moved = False
        self._move: asyncio.Task[None] | None = None
        self._avoid = ""
        self._refused_tokens = 0
        self._told = asyncio.Event()
        self._is_closing = False

    @property
    def session(self) -> Session | None:
        """The session there is now."""
        session = self._session
        return session if session is not None and session.is_live else None

    def reconnect(self, token: str | None) -> None:
        """Ends STOPPED; with another token where one is given."""
        if token is not None:
            self._account.use_token(token)
        self._told.set()

    async def run(self) -> None:
        """Keeps the device attached until it is cancelled."""
        while True:
            self._watch.set(State.CONNECTING)
            try:
                end = await self._attempt()
            except Exception as error:  # noqa: BLE001 - the root of a task: this device must come back
                self._report(error)
                end = End(0, f"attempt failed: {error}")
            self.last_close = Closed(end.code, end.reason)
            delay_s = self._next_delay_s(end)
            self._watch.set(State.STOPPED if delay_s is None else State.WAITING)
            self.first_attempt.set()
            _log.info("device %s: %s %s; next: %s", self._terms.device_id, end.code, end.reason, delay_s)
            if delay_s is None:
                await self._stay_stopped(DeviceStopped(end.code, end.reason))
            else:
                await pause(self._timers, delay_s)

    async def close(self) -> None:
        """Ends the session, once its last bytes are out or after a second. After ``run`` was cancelled."""
        self._is_closing = True
        move, self._move = self._move, None
        if move is not None and move is not asyncio.current_task():
            move.cancel()
            await asyncio.wait([move])
        session = self._session
        if session is not None:
            session.finish(End(0, "closed by the application"))
            try:
                async with Deadline(self._timers, 1.0):
                    await asyncio.wait([session.gone])
            except TimeoutError:
                session.abort(End(0, "closed by the application"))

    # One attempt, from the api to the session's end.

    async def _attempt(self) -> End:
        self._session = None
        try:
            node = await self._account.locate(self._avoid)
        except CredentialsRefused as error:
            return End(CloseCode.BAD_CREDENTIALS, str(error), may_reconnect=False)
        except Unavailable as error:
            return End(0, str(error), retry_after_ms=error.retry_after_ms)
        self._avoid = node.node_id
        if self._account.backoff_ms is not None:
            base_ms, max_ms = self._account.backoff_ms
            self._backoff.base_s = min(max(base_ms, 100), 60_000) / 1000
            self._backoff.max_s = min(max(max_ms / 1000, self._backoff.base_s), 3_600.0)
        failed = await self._open(self._new_session(node), node)
        return failed if failed is not None else await self._stay()

    def _new_session(self, node: Node) -> Session:
        terms = self._terms
        hello = Connect(self._account.token, terms.device_id, terms.heartbeat_s, terms.platform, terms.app_version)
        return Session(self, hello, node.node_id, self._timers, self._random)

    async def _open(self, session: Session, node: Node) -> End | None:
        """Connects and waits for CONNECTED, which makes the session ours; what went wrong where it did not."""
        where = f"{node.host}:{node.port}"
        timeout_s = self._terms.connect_timeout_s
        try:
            async with Deadline(self._timers, timeout_s):
                await connect(endpoint_of(node, self._terms.transport, self._terms.tls), session, self._terms.tls)
                await asyncio.wait([session.established])
        except TimeoutError:
            session.abort(End(0, f"{where} did not answer within {timeout_s:g} s"))
        except (OSError, LocalProtocolError) as error:
            session.abort(End(0, f"{where}: {error}"))
        except asyncio.CancelledError:
            session.abort(End(0, "canceled"))
            raise
        return None if session.connected_at else session.ended.result()

    async def _stay(self) -> End:
        """Waits for the end of the session, and of each one that took its place."""
        while True:
            session = self._session
            if session is None:
                return End(0, "no session")
            await asyncio.wait([session.ended])
            if self._move is not None and self._session is session:
                if self._successor is not None and self._successor.has_asked:
                    # Our own CONNECT elsewhere may be what ended this one.
                    await asyncio.wait([self._successor.established])
                    self._may_have_moved = self._session is session
                if self._session is session:
                    self._move.cancel()
                    await asyncio.wait([self._move])
            if self._session is not session:
                continue
            end = session.ended.result()
            if end.code == CloseCode.TAKEN_OVER and self._may_have_moved:
                return End(0, f"moved, but not arrived: {end.reason}")
            return end

    def _next_delay_s(self, end: End) -> float | None:
        """How long to wait after this end; None: until told."""
        session = self._session
        lasted_s = 0.0
        if session is not None and session.connected_at:
            lasted_s = self._timers.monotonic() - session.connected_at
        self._backoff.settle(lasted_s)
        if end.code not in _AVOID_CODES and (lasted_s >= STABLE_AFTER_S or end.code):
            self._avoid = ""
        if end.is_from_node and end.code in _FAULT_CODES:
            return self._backoff.fault_delay_s(end.retry_after_ms)
        if end.is_from_node and end.code in _CREDENTIAL_CODES:
            self._refused_tokens += 1
            has_other = self._account.forget_token()
            if not has_other or self._refused_tokens >= _MAX_REFUSED_TOKENS:
                return None
        elif not end.may_reconnect or end.code >= CloseCode.TAKEN_OVER:
            return None
        return self._backoff.next_delay_s(end.retry_after_ms)

    async def _stay_stopped(self, error: DeviceStopped) -> None:
        self._outbox.stop(error)
        self._inbox.stop(error)
        self._told.clear()
        await self._told.wait()
        self._outbox.resume()
        self._inbox.resume()
        self._backoff.settle(STABLE_AFTER_S)
        self._refused_tokens = 0

    # MOVE

    async def _follow(self, session: Session, move: Move) -> None:
        """Goes where the node says, at a random moment; tries again for as long as the session lasts."""
        backoff = Backoff(self._random)
        await pause(self._timers, self._random.uniform(0, max(move.within_ms, 0) / 1000))
        while session is self._session and session.is_live:
            try:
                node = await self._elsewhere(session, move.address)
                self._successor = self._new_session(node)
                failed = await self._open(self._successor, node)
                self._may_have_moved = failed is not None and (self._may_have_moved or self._successor.has_asked)
                if failed is None:
                    return
            except (Unavailable, CredentialsRefused, LocalProtocolError):
                pass  # the session there is goes on; when it ends, its end says what to do
            except Exception as error:  # noqa: BLE001 - the root of a task
                self._report(error)
            finally:
                self._successor = None
            await pause(self._timers, backoff.next_delay_s())

    async def _elsewhere(self, session: Session, address: str) -> Node:
        if address:
            return parse_address(address)
        node = await self._account.locate(session.node_id)
        if node.node_id and node.node_id == session.node_id:
            # There is no other, or the api is away: a session here again would be sent off again.
            raise Unavailable("there is no node to move to")
        return node

    # What sessions report (session.Host).

    def connected(self, session: Session, terms: Connected) -> None:
        before, self._session = self.session, session
        self._refused_tokens = 0
        self._may_have_moved = False
        self.connected_as = terms
        self._avoid = session.node_id
        self._inbox.attach(session)
        self._outbox.attach(session)
        self._watch.set(State.CONNECTED)
        self.first_attempt.set()
        if before is not None:
            before.finish(End(0, "moved to another node"))

    def pushed(self, session: Session, frame: Received, push: Push) -> None:
        if session is self._session:
            self._inbox.pushed(session, frame, push)

    def sent(self, session: Session, correlation: int, sent: Sent) -> None:
        self._outbox.answered(session, correlation, sent)

    def replied(self, session: Session, correlation: int, reply: Reply) -> None:
        self._calls.replied(session, correlation, reply)

    def asked(self, session: Session, correlation: int, request: Request) -> None:
        self._calls.asked(session, correlation, request)

    def told_to_move(self, session: Session, move: Move) -> None:
        if session is self._session and (self._move is None or self._move.done()):
            self._move = asyncio.get_running_loop().create_task(self._follow(session, move))

    def renewed(self, session: Session, renewed: Renewed) -> None:
        if renewed.token:
            self._account.renewed(renewed.token, renewed.expires_in_s)

    def ready(self, session: Session) -> None:
        self._outbox.pump()

    def over(self, session: Session, end: End) -> None:
        self._outbox.detach(session, end)
        self._calls.detach(session, end)
        is_moving = self._successor is not None and self._successor.has_asked
        if session is self._session and session.connected_at and not (is_moving or self._is_closing):
            self._watch.set(State.WAITING)
