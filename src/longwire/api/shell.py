"""The API's outermost layer: every request gets an id, a bound, an answer, and a line in the log.

    request ─► CALL: its id and trace ─► route ─► answer: X-Request-Id, traceparent ─► tally, log, hop

Pure ASGI. Stands within Starlette's own error layer, which so never sees an exception: what comes up to here is
logged once, with the request's id, and answered 500.
"""

import logging
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from longwire.api.problems import REQUEST_ID_KEY, Code, Problem, answer
from longwire.histogram import Histogram
from longwire.ids import new_message_id, prefixed
from longwire.meters import UNIT_S
from longwire.traces import CALL, Call, is_sampled
from longwire.wire.traces import traceparent_of

log = logging.getLogger(__name__)
calls = logging.getLogger("longwire.api.calls")

AUDITED_KEY: Final = "longwire.audited"
"""In the scope of a call that the audit trail has."""
TEMPLATE_KEY: Final = "longwire.template"
"""In the scope of a call whose route is not known to the framework: the path that its route has."""

_TAKEN_OVER = re.compile(rb"[A-Za-z0-9._-]{1,64}")
"""Ids that are taken from the client: what could mean something to a log or a header is not in them."""


class Tally:
    """Calls that were answered, by door and kind of status, and how long they took, in units of ``UNIT_S``."""

    __slots__ = ("counts", "times")
    DOORS: Final = ("device", "operator", "health")
    STATUSES: Final = ("2xx", "3xx", "4xx", "429", "5xx")

    def __init__(self) -> None:
        self.counts = {(door, status): 0 for door in self.DOORS for status in self.STATUSES}
        self.times = {door: Histogram() for door in self.DOORS}

    def note(self, path: str, status: int, seconds: float) -> None:
        """A call was answered."""
        door = "operator" if path.startswith("/v1/") else "device" if path.startswith("/device/") else "health"
        self.counts[door, "429" if status == 429 else f"{min(max(status // 100, 2), 5)}xx"] += 1
        self.times[door].add(seconds / UNIT_S)


class Shell:
    """Gives ids, refuses bodies whose announced length is above ``max_body_bytes``, catches what is left.

    ``large``: paths with a bound of their own, in bytes.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, large: Mapping[str, int]) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._large = large

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id, call = _call_of(scope)
        scope[REQUEST_ID_KEY] = request_id
        token = CALL.set(call)
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                    (b"cache-control", b"no-store"),
                    (b"x-content-type-options", b"nosniff"),
                ]
                if call.traceparent is not None or (call.is_entered and is_sampled(call.trace)):
                    headers.append((b"traceparent", traceparent_of(call.trace).encode()))
                message["headers"] = headers
            await send(message)

        try:
            announced = _header(scope["headers"], b"content-length")
            if announced is not None and announced.isdigit():
                check_size(int(announced[:19]), self._large.get(scope["path"], self._max_body_bytes))
            await self._app(scope, receive, send_with_id)
        except Problem as problem:
            await answer(problem, request_id)(scope, receive, send_with_id)
        except Exception:
            log.exception("%s %s failed (request %s)", scope["method"], _template(scope), request_id)
            if not status:
                failure = Problem(Code.INTERNAL_ERROR, "the server failed; its log tells why under the request id")
                await answer(failure, request_id)(scope, receive, send_with_id)
        finally:
            _tell(scope, call, status, time.perf_counter() - began)
            CALL.reset(token)


def check_size(size: int, limit: int) -> None:
    """Raises the 413 for a body of ``size`` bytes where that is too much. What follows is not read any more."""
    if size > limit:
        raise Problem(
            Code.PAYLOAD_TOO_LARGE,
            f"body of {size} bytes exceeds {limit}",
            headers={"Connection": "close"},
            more={"limit": limit, "actual": size},
        )


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    for key, value in headers:
        if key == name:
            return value
    return None


def _call_of(scope: Scope) -> tuple[str, Call]:
    """The request's id, taken over from the client or new, and its place in a trace."""
    given: bytes | None = None
    traces: list[bytes] = []
    for key, value in scope["headers"]:
        if key == b"x-request-id" and given is None:
            given = value
        elif key == b"traceparent":
            traces.append(value)
    if given is not None and _TAKEN_OVER.fullmatch(given):
        request_id = given.decode()
    else:
        request_id = prefixed("req", new_message_id())
    # W3C Trace Context §3.2: several are none.
    return request_id, Call(request_id, traces[0].decode("latin-1") if len(traces) == 1 else None)


def _template(scope: Scope) -> str:
    """The path as its route has it: without the ids of devices, and nothing that a stranger made up."""
    template: str = scope.get(TEMPLATE_KEY) or getattr(scope.get("route"), "path", None) or "-"
    return template


def _tell(scope: Scope, call: Call, status: int, seconds: float) -> None:
    """What is known of a call once it is over. ``status`` 0: the client went away before an answer."""
    state: Any = scope["app"].state
    if status:
        state.tally.note(scope["path"], status, seconds)
    # Not 503: while a store is away, that is every call.
    level = logging.INFO if status == 500 or AUDITED_KEY in scope else logging.DEBUG
    is_told = calls.isEnabledFor(level)
    is_traced = call.is_entered and is_sampled(call.trace)
    if not is_told and not is_traced:
        return
    template = _template(scope)
    if is_traced:
        state.services.traces.hop(
            "api.call",
            call.trace,
            began_ns=state.services.traces.now_ns() - int(seconds * 1e9),
            parent=call.parent,
            is_error=status >= 500,
            method=scope["method"],
            route=template,
            status=status,
        )
    if is_told:
        principal = scope.get("state", {}).get("principal")
        client = scope.get("client")
        calls.log(
            level,
            "%s %s %d %.1f ms",
            scope["method"],
            template,
            status,
            seconds * 1000,
            extra={
                "http.request.method": scope["method"],
                "url.path": template,
                "http.response.status_code": status,
                "event.duration": int(seconds * 1e9),
                "client.ip": client[0] if client else None,
                "user.name": principal.name if principal is not None else None,
            },
        )
