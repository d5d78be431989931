"""The device as an application sees it: the public face of this package."""

import asyncio
import os
import random
import ssl
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self, TypeVar

import httpx

from longwire.client.assembly import make_account, own_client, tls_context
from longwire.client.attachment import Attachment, Terms
from longwire.client.calls import Calls
from longwire.client.entry import Outcome, check_size
from longwire.client.errors import DeviceClosed, DeviceStopped, NotConnected, Overloaded, RequestTimeout
from longwire.client.handlers import message_handler, method_handler
from longwire.client.inbox import Inbox
from longwire.client.message import (
    Message,
    Payload,
    Reply,
    SendResult,
    SetAsideMessage,
    check_message,
    payload_bytes,
)
from longwire.client.outbox import Outbox
from longwire.client.outbox_limits import OutboxLimits
from longwire.client.reports import Reports
from longwire.client.session import Session
from longwire.client.state import Closed, State, Watch
from longwire.client.state_file import StateFile
from longwire.client.storage import MemoryStorage, Storage
from longwire.client.timers import Deadline, LoopTimers, Timers
from longwire.errors import LocalProtocolError
from longwire.ids import is_device_id, new_message_id
from longwire.reasons import Status
from longwire.wire.packets import Send

F = TypeVar("F", bound=Callable[..., object])


class Device:
    """One device and its connection, kept up for as long as the ``async with`` block lasts.

    Entering opens the state and waits for the outcome of the first attempt to connect: a device that is
    offline is entered all the same and goes on trying; one whose credentials are refused raises DeviceStopped.

    Either ``http_url`` with ``app_key`` and ``app_secret`` (registers itself; ``credentials`` go to the
    application's own ``authenticate``, and may stand for the secret) or with ``token``; or, for a device that
    was provisioned, ``token`` and ``address`` (``host:port`` or a WebSocket URL) and no HTTP.

    - ``transport``: ``"tcp"`` or ``"websocket"``.
    - ``tls``: a context, True for the platform's default one, False for none; by default as ``http_url``.
    - ``state``: the SQLite file that outbox, handled messages and tokens are kept in; None: in memory.
    - ``http``: an ``httpx.AsyncClient`` to share among devices; the caller closes it.
    - ``heartbeat_s``: what to announce; the node clamps it to 10-900.
    - ``connect_timeout_s``: for connection, TLS, handshake and CONNECTED together.
    - ``on_error``: told what callbacks raise and what else goes wrong beside a call; it is logged as well.
    - ``on_sent``: told the outcome of messages that no ``send`` waits for: of an earlier process, or timed out.
    - ``timers``, ``rng``: time and chance, for tests.

    All methods belong to the event loop it was entered in; any number of tasks may send, ask, iterate at once.
    """

    def __init__(
        self,
        http_url: str | None = None,
        device_id: str = "",
        *,
        app_key: str = "",
        app_secret: str = "",
        credentials: str = "",
        token: str = "",
        address: str | None = None,
        transport: str = "tcp",
        tls: ssl.SSLContext | bool | None = None,
        state: str | os.PathLike[str] | None = None,
        http: httpx.AsyncClient | None = None,
        platform: str = "",
        app_version: str = "",
        heartbeat_s: int = 60,
        connect_timeout_s: float = 10.0,
        outbox: OutboxLimits | None = None,
        on_error: Callable[[Exception], object] | None = None,
        on_sent: Callable[[bytes, Outcome], object] | None = None,
        timers: Timers | None = None,
        rng: random.Random | None = None,
    ) -> None:
        if not is_device_id(device_id):
            raise LocalProtocolError(f"device id {device_id!r} is not 1-64 characters of A-Z a-z 0-9 . _ : @ -")
        if transport not in ("tcp", "websocket"):
            raise LocalProtocolError(f"transport {transport!r} is not tcp or websocket")
        self.device_id = device_id
        self._watch = Watch()
        self._reports = Reports(device_id, on_error, on_sent)
        report = self._reports.error
        self._timers = timers or LoopTimers()
        rng = rng or random.Random()  # noqa: S311 - jitter, not secrets
        context = tls_context(tls, http_url)
        self._storage: Storage = StateFile(state, self._timers) if state is not None else MemoryStorage()
        self._own_http: httpx.AsyncClient | None = None
        if http_url is not None and address is None and http is None:
            http = self._own_http = own_client(http_url, context)
        self._account = make_account(
            http,
            http_url,
            device_id,
            app_key=app_key,
            app_secret=app_secret,
            credentials=credentials,
            token=token,
            address=address,
            about={"platform": platform, "app_version": app_version},
            storage=self._storage,
            timers=self._timers,
        )
        self._outbox = Outbox(self._storage, self._timers, rng, outbox or OutboxLimits(), self._reports.unclaimed)
        self._inbox = Inbox(self._storage, report)
        self._calls = Calls(self._timers, report)
        terms = Terms(device_id, transport, context, heartbeat_s, platform, app_version, connect_timeout_s)
        self._attachment = Attachment(
            terms,
            self._account,
            self._outbox,
            self._inbox,
            self._calls,
            self._watch,
            self._timers,
            rng,
            report,
        )
        self._run: asyncio.Task[None] | None = None
        self._is_closing = False

    def __repr__(self) -> str:
        return f"<Device {self.device_id} {self.state.value}>"

    # Coming and going.

    async def __aenter__(self) -> Self:
        if self._run is not None or self._is_closing:
            raise RuntimeError("a device is entered once")
        try:
            kept = await self._storage.open(self.device_id)
            self._account.load(kept.values)
            self._outbox.load(kept.outbox)
            self._inbox.load(kept.handled)
            self._run = asyncio.get_running_loop().create_task(self._attachment.run())
            await self._attachment.first_attempt.wait()
            self._check_not_stopped()
        except BaseException:
            await self.close(is_clean=False)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(is_clean=kind is None)

    async def close(self, *, is_clean: bool = True) -> None:
        """Ends the session and closes the state; what the outbox file holds goes out another time.

        ``is_clean``: the message that the calling task got last counts as taken. Calls that wait raise
        DeviceClosed. Closing again does nothing.
        """
        if self._is_closing:
            return
        self._is_closing = True
        error = DeviceClosed("the device is closed")
        self._outbox.stop(error)
        run = self._run
        if run is not None and run is not asyncio.current_task():
            run.cancel()
            await asyncio.wait([run])
        await self._calls.close()
        await self._inbox.close(error, is_clean=is_clean)
        await self._attachment.close()
        self._outbox.close(error)
        await self._storage.close()
        if self._own_http is not None:
            await self._own_http.aclose()
        self._watch.set(State.CLOSED)

    def reconnect(self, token: str | None = None) -> None:
        """Tries again after STOPPED, with this token where one is given; nothing in any other state."""
        if self.state is State.STOPPED:
            self._attachment.reconnect(token)

    # Sending.

    async def send(
        self,
        to: str,
        payload: Payload,
        kind: str = "message",
        *,
        ttl_s: int = -1,
        collapse_key: str = "",
        receipt: bool = True,
        message_id: bytes | None = None,
        timeout_s: float | None = None,
    ) -> SendResult:
        """Sends a message and waits until the node has it.

        ``to``: "" the application, ``device:ID``, ``user:ID``, ``group:ID``. ``payload``: bytes, str (UTF-8),
        or anything that JSON can say. ``ttl_s``: how long it is worth delivering, from now on; -1: the node's
        default; 0: only to who is online now, and only if this device is. ``message_id``: 16 bytes that name
        the message, by default new ones; the same id again is the same message.

        With ``receipt`` the message goes to the outbox first and is repeated until SENT answers, over any
        number of connections and, with a state file, of processes. 13, 14 and 20 are tried again after the
        time that the node names, for as long as the TTL lasts, and hold back the messages behind them. Many
        calls may wait at once; their messages leave in the order of the calls. After ``timeout_s``, or when
        the call is cancelled, only the waiting ends: the message stays in the outbox (``discard``).

        Without ``receipt`` it is written once, if there is a session, and nobody says what became of it.

        Raises Refused (by its subclass), OutboxFull, Expired, SetAside, SendTimeout, DeviceStopped,
        DeviceClosed, StateError, without ``receipt`` NotConnected; LocalProtocolError and TypeError for
        arguments that cannot be.
        """
        data = payload_bytes(payload)
        message_id = message_id if message_id is not None else new_message_id()
        check_message(to, kind, ttl_s, collapse_key, message_id)
        if not receipt:
            return self._send_once(Send(message_id, to, kind, data, ttl_s, collapse_key))
        entry = self._outbox.take(message_id, to, kind, data, ttl_s, collapse_key)
        return await self._outbox.wait(entry, timeout_s)

    def _send_once(self, packet: Send) -> SendResult:
        session = self._attachment.session
        if session is None:
            raise NotConnected(f"device {self.device_id} is {self.state.value}")
        if not session.is_writable:
            raise Overloaded(Status.OVERLOADED, "the connection does not drain")
        check_size(packet, session.max_body_bytes)
        session.ask_other(packet)
        self._outbox.pace.spend()
        return SendResult(Status.OK, packet.message_id, is_confirmed=False)

    async def drained(self, timeout_s: float | None = None) -> None:
        """Waits until the outbox is empty. Raises TimeoutError, DeviceStopped, DeviceClosed."""
        async with Deadline(self._timers, timeout_s):
            await self._outbox.drained()

    def discard(self, message_id: bytes) -> bool:
        """Takes a message out of the outbox; what was written may still arrive. Whether it was there."""
        return self._outbox.discard(message_id)

    def set_aside_messages(self) -> list[SetAsideMessage]:
        """Messages that the node closed connections over (4009-4011): at most 100, the oldest go first."""
        return [
            SetAsideMessage(m.message_id, m.to, m.kind, m.payload, m.why_aside) for m in self._outbox.aside.values()
        ]

    def retry(self, message_id: bytes) -> bool:
        """Sends a message again that was set aside. Whether it was."""
        return self._outbox.retry(message_id)

    async def request(self, method: str, payload: Payload = b"", timeout_s: float = 10.0) -> Reply:
        """Calls a method of the application and waits for its answer; waits for a session first.

        Raises Refused (by its subclass), RequestTimeout, ConnectionLost (both: whether it ran is unknown),
        DeviceStopped, DeviceClosed. It is not repeated.
        """
        data = payload_bytes(payload)
        asked_at = self._timers.monotonic()
        try:
            async with Deadline(self._timers, timeout_s):
                session = await self._session()
        except TimeoutError as error:
            raise RequestTimeout(f"no session within {timeout_s:g} s") from error
        self._outbox.pace.spend()
        left_s = timeout_s - (self._timers.monotonic() - asked_at)
        return await self._calls.request(session, method, data, left_s)

    # Receiving.

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        """The next message that no callback is for; the one that this task got before counts as taken."""
        try:
            return await self._inbox.next()
        except DeviceClosed:
            raise StopAsyncIteration from None

    async def receive(self, timeout_s: float | None = None) -> Message:
        """One step of the iteration. Raises TimeoutError, DeviceStopped, DeviceClosed."""
        async with Deadline(self._timers, timeout_s):
            return await self._inbox.next()

    def give_back(self) -> bool:
        """The calling task's message is not taken: the node repeats it. Whether the task had one."""
        return self._inbox.give_back()

    def on(self, kind: str | None = None) -> Callable[[F], F]:
        """``@device.on("kind")``: a function, sync or async, for messages of this kind; ``on()``: for the rest.

        Its arguments are decoded as annotated: Message or nothing (the message), bytes, str, or any type that
        JSON decodes to. Messages are handled one after the other, in order; one is acknowledged when its
        function has returned. If it raises, ``on_error`` is told and the message comes again; if its payload
        does not decode, ``on_error`` is told and it does not. Raises TypeError for a function that cannot be.
        """

        def register(function: F) -> F:
            self._inbox.add_callback(kind, message_handler(function))
            return function

        return register

    def method(self, name: str) -> Callable[[F], F]:
        """``@device.method("name")``: answers REQUESTs of the application with what the function returns.

        At most 64 run at a time, side by side. It takes the payload, decoded as annotated, or nothing; raise
        ``MethodRefused`` to answer with a status. Raises TypeError for a function that cannot be.
        """

        def register(function: F) -> F:
            self._calls.methods[name] = method_handler(function)
            return function

        return register

    # Watching.

    @property
    def state(self) -> State:
        """What the device is doing now."""
        return self._watch.state

    @property
    def last_close(self) -> Closed | None:
        """How the last connection, or attempt at one, ended."""
        return self._attachment.last_close

    @property
    def missed(self) -> int:
        """Messages that the node had to let go while this device was away, as the last CONNECTED told it."""
        return self._attachment.connected_as.missed

    @property
    def node_id(self) -> str:
        """The node of the last session; "" before the first."""
        return self._attachment.connected_as.node_id

    @property
    def session_id(self) -> str:
        """The last session's id, as the node calls it; "" before the first one."""
        return self._attachment.connected_as.session_id

    @property
    def token(self) -> str:
        """The token in use; it changes when it is renewed."""
        return self._account.token

    @property
    def unsent(self) -> int:
        """Messages in the outbox: not answered by SENT yet."""
        return len(self._outbox)

    @property
    def dropped(self) -> int:
        """Messages that came while the application had left too many untaken; the reliable ones come again."""
        return self._inbox.dropped

    def states(self) -> AsyncIterator[State]:
        """``async for state in device.states()``: the state now, then each change, CLOSED the last."""
        return self._watch.changes()

    def on_state(self, callback: Callable[[State], object]) -> Callable[[], None]:
        """Calls ``callback`` at each change; returns what ends that."""
        return self._watch.add(self._reports.guarded(callback))

    async def connected(self, timeout_s: float | None = None) -> None:
        """Waits for a session. Raises DeviceStopped, DeviceClosed, TimeoutError."""
        async with Deadline(self._timers, timeout_s):
            await self._session()

    async def _session(self) -> Session:
        while (session := self._attachment.session) is None:
            state = await self._watch.wait_for(State.CONNECTED, State.STOPPED)
            self._check_not_stopped()
            if state is State.CLOSED:
                raise DeviceClosed("the device is closed")
        return session

    def _check_not_stopped(self) -> None:
        if self.state is State.STOPPED:
            raise DeviceStopped(*(self.last_close or Closed(0, "")))
