"""The API's outermost layer: every request gets an id, a bound, and an answer.

Pure ASGI. Stands within Starlette's own error layer, which so never sees an exception: what comes up to here is
logged once, with the request's id, and answered 500.
"""

import logging
import re
from collections.abc import Iterable, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from longwire.api.problems import REQUEST_ID_KEY, Code, Problem, answer
from longwire.ids import new_message_id, prefixed

log = logging.getLogger(__name__)

_TAKEN_OVER = re.compile(rb"[A-Za-z0-9._-]{1,64}")
"""Ids that are taken from the client: what could mean something to a log or a header is not in them."""


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
        given = _header(scope["headers"], b"x-request-id")
        if given is not None and _TAKEN_OVER.fullmatch(given):
            request_id = given.decode()
        else:
            request_id = prefixed("req", new_message_id())
        scope[REQUEST_ID_KEY] = request_id
        is_started = False

        async def send_with_id(message: Message) -> None:
            nonlocal is_started
            if message["type"] == "http.response.start":
                is_started = True
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                    (b"cache-control", b"no-store"),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        try:
            announced = _header(scope["headers"], b"content-length")
            if announced is not None and announced.isdigit():
                check_size(int(announced[:19]), self._large.get(scope["path"], self._max_body_bytes))
            await self._app(scope, receive, send_with_id)
        except Problem as problem:
            await answer(problem, request_id)(scope, receive, send_with_id)
        except Exception:
            client = (scope.get("client") or ("",))[0]
            log.exception("%s %s from %s failed (request %s)", scope["method"], scope["path"], client, request_id)
            if not is_started:
                failure = Problem(Code.INTERNAL_ERROR, "the server failed; its log tells why under the request id")
                await answer(failure, request_id)(scope, receive, send_with_id)


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
