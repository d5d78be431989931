"""Calls with an answer, both ways: the application's methods called from here, this device's called from there."""

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable

from longwire.client.errors import ConnectionLost, RequestTimeout, refused
from longwire.client.handlers import UNDECODABLE, Handler
from longwire.client.message import Reply as Answer
from longwire.client.message import payload_bytes
from longwire.client.session import End, Session
from longwire.client.timers import Deadline, Timers
from longwire.reasons import Status
from longwire.wire.packets import Reply, Request

_MAX_RUNNING = 64
_HEADROOM_BYTES = 128
_MAX_DETAIL_CHARACTERS = 200


class MethodRefused(Exception):
    """Raise it in a method to answer with this status (PROTOCOL §3) and these words."""

    def __init__(self, status: Status, detail: str = "") -> None:
        super().__init__(f"{status.label}: {detail}")
        self.status = status
        self.detail = detail


class Calls:
    """The calls of one device. ``report`` gets what a method raised that was not meant as an answer."""

    def __init__(self, timers: Timers, report: Callable[[Exception], None]) -> None:
        self.methods: dict[str, Handler] = {}
        self._timers = timers
        self._report = report
        self._asked: dict[tuple[Session, int], asyncio.Future[Reply]] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def request(self, session: Session, method: str, payload: bytes, timeout_s: float) -> Answer:
        """Calls a method of the application. Raises Refused, ConnectionLost, RequestTimeout."""
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        correlation = session.ask_other(Request(method, payload, max(1, int(timeout_s * 1000))))
        key = (session, correlation)
        self._asked[key] = answer
        try:
            async with Deadline(self._timers, timeout_s):
                reply = await answer
        except TimeoutError as error:
            raise RequestTimeout(f"no reply to {method!r} within {timeout_s:g} s") from error
        finally:
            self._asked.pop(key, None)
        if reply.status != Status.OK:
            raise refused(reply.status, reply.detail, payload=reply.payload)
        return Answer(reply.payload, reply.detail)

    def replied(self, session: Session, correlation: int, reply: Reply) -> None:
        """REPLY has come; one that nobody waits for any more is ignored."""
        answer = self._asked.get((session, correlation))
        if answer is not None and not answer.done():
            answer.set_result(reply)

    def detach(self, session: Session, end: End) -> None:
        """Calls that stand on this session will get no reply."""
        for (asked_on, _), answer in list(self._asked.items()):
            if asked_on is session and not answer.done():
                answer.set_exception(ConnectionLost(f"connection ended before the reply: {end.reason}"))

    def asked(self, session: Session, correlation: int, request: Request) -> None:
        """REQUEST has come: its method runs now, and in a task of its own where it waits."""
        handler = self.methods.get(request.method)
        if handler is None:
            _answer(session, correlation, Status.UNSUPPORTED, detail=f"no method {request.method[:64]!r}")
            return
        if len(self._running) >= _MAX_RUNNING:
            _answer(session, correlation, Status.OVERLOADED, detail=f"{_MAX_RUNNING} methods are running")
            return
        try:
            result = handler.call(handler.arguments(request.payload))
        except UNDECODABLE as error:
            _answer(session, correlation, Status.BAD_REQUEST, detail=str(error))
            return
        except MethodRefused as error:
            _answer(session, correlation, error.status, detail=error.detail)
            return
        except Exception as error:  # noqa: BLE001 - the border to the application's function
            self._failed(session, correlation, handler, error)
            return
        if isawaitable(result):
            task = asyncio.get_running_loop().create_task(
                self._finish(session, correlation, handler, result, request.timeout_ms / 1000)
            )
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        else:
            self._succeeded(session, correlation, handler, result)

    async def close(self) -> None:
        """Cancels what runs."""
        running = [task for task in self._running if task is not asyncio.current_task()]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    async def _finish(
        self, session: Session, correlation: int, handler: Handler, result: Awaitable[object], timeout_s: float
    ) -> None:
        deadline = Deadline(self._timers, timeout_s if timeout_s > 0 else None)
        try:
            async with deadline:
                value = await result
        except MethodRefused as error:
            _answer(session, correlation, error.status, detail=error.detail)
        except Exception as error:  # noqa: BLE001 - the border to the application's function
            if deadline.is_over:
                _answer(session, correlation, Status.TIMEOUT, detail=f"not done within {timeout_s:g} s")
            else:
                self._failed(session, correlation, handler, error)
        else:
            self._succeeded(session, correlation, handler, value)

    def _succeeded(self, session: Session, correlation: int, handler: Handler, value: object) -> None:
        try:
            payload = b"" if value is None else payload_bytes(value)
        except TypeError as error:
            self._failed(session, correlation, handler, error)
            return
        if len(payload) + _HEADROOM_BYTES > session.max_body_bytes:
            detail = f"answer of {len(payload)} bytes exceeds {session.max_body_bytes - _HEADROOM_BYTES}"
            _answer(session, correlation, Status.TOO_LARGE, detail=detail)
            return
        _answer(session, correlation, Status.OK, payload)

    def _failed(self, session: Session, correlation: int, handler: Handler, error: Exception) -> None:
        # The asker learns that it failed; what the exception says is for this side's log.
        error.add_note(f"in method {handler.name}")
        self._report(error)
        _answer(session, correlation, Status.HANDLER_FAILED, detail=type(error).__name__)


def _answer(session: Session, correlation: int, status: Status, payload: bytes = b"", detail: str = "") -> None:
    session.tell_other(Reply(status, payload, detail[:_MAX_DETAIL_CHARACTERS]), correlation)
