"""Errors as the API tells them: RFC 9457 problems with a code (API §1).

Everything that goes wrong becomes a ``Problem`` here, and every problem is written by ``answer``: so no error has
another shape, and nothing of a client's input comes back but names of fields, cut and made harmless.
"""

import json
import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from msgspec import Struct
from starlette.exceptions import HTTPException
from starlette.routing import Match

from longwire.accounts.refusals import Refused
from longwire.errors import StoreUnavailable

MEDIA_TYPE = "application/problem+json"
REQUEST_ID_KEY = "longwire.request_id"
STORE_RETRY_S = 2.0
_MAX_ERRORS = 20
_MAX_POINTER_CHARACTERS = 200
_CHALLENGE = 'Bearer realm="longwire"'


class Code(StrEnum):
    """Every code that an answer can carry."""

    MALFORMED_JSON = "malformed-json"
    UNKNOWN_FIELD = "unknown-field"
    INVALID_PARAMETER = "invalid-parameter"
    AUTH_MISSING = "auth-missing"
    AUTH_INVALID = "auth-invalid"
    TOKEN_EXPIRED = "token-expired"  # noqa: S105 - a code, not a secret
    SCOPE_MISSING = "scope-missing"
    DEVICE_DISABLED = "device-disabled"
    NOT_FOUND = "not-found"
    METHOD = "method"
    DEVICE_OFFLINE = "device-offline"
    STATE_CONFLICT = "state-conflict"
    ALREADY_EXISTS = "already-exists"
    IDEMPOTENCY_IN_PROGRESS = "idempotency-in-progress"
    PAYLOAD_TOO_LARGE = "payload-too-large"
    NO_TARGET = "no-target"
    AUDIENCE_TOO_COMPLEX = "audience-too-complex"
    TTL_OUT_OF_RANGE = "ttl-out-of-range"
    SCHEDULE_IN_PAST = "schedule-in-past"
    IDEMPOTENCY_KEY_REUSED = "idempotency-key-reused"
    RATE_LIMITED = "rate-limited"
    OVERLOADED = "overloaded"
    DRAINING = "draining"
    STORE_UNAVAILABLE = "store-unavailable"
    NO_NODE = "no-node"
    COMMAND_TIMEOUT = "command-timeout"
    INTERNAL_ERROR = "internal-error"


STATUS: Mapping[str, int] = {
    Code.MALFORMED_JSON: 400,
    Code.UNKNOWN_FIELD: 400,
    Code.INVALID_PARAMETER: 400,
    Code.AUTH_MISSING: 401,
    Code.AUTH_INVALID: 401,
    Code.TOKEN_EXPIRED: 401,
    Code.SCOPE_MISSING: 403,
    Code.DEVICE_DISABLED: 403,
    Code.NOT_FOUND: 404,
    Code.METHOD: 405,
    Code.DEVICE_OFFLINE: 409,
    Code.STATE_CONFLICT: 409,
    Code.ALREADY_EXISTS: 409,
    Code.IDEMPOTENCY_IN_PROGRESS: 409,
    Code.PAYLOAD_TOO_LARGE: 413,
    Code.NO_TARGET: 422,
    Code.AUDIENCE_TOO_COMPLEX: 422,
    Code.TTL_OUT_OF_RANGE: 422,
    Code.SCHEDULE_IN_PAST: 422,
    Code.IDEMPOTENCY_KEY_REUSED: 422,
    Code.RATE_LIMITED: 429,
    Code.OVERLOADED: 503,
    Code.DRAINING: 503,
    Code.STORE_UNAVAILABLE: 503,
    Code.NO_NODE: 503,
    Code.COMMAND_TIMEOUT: 504,
    Code.INTERNAL_ERROR: 500,
}


class FieldError(Struct, frozen=True):
    """What is wrong with one part of the request.

    ``pointer``: ``#/items/0/user`` in the body (RFC 6901), ``?limit`` in the query, ``{device_id}`` in the path.
    """

    pointer: str
    code: str
    detail: str


class Problem(Exception):
    """A request's end with an error. ``more`` are further members: limit, actual, scope."""

    def __init__(
        self,
        code: Code,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.errors = errors
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})
        self.more = more or {}

    @property
    def status(self) -> int:
        return STATUS[self.code]


def answer(problem: Problem, request_id: str) -> Response:
    """The problem as a response, with the headers that its status asks for."""
    status = problem.status
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": harmless(problem.detail),
        "code": str(problem.code),
        "request_id": request_id,
    }
    if problem.errors:
        body["errors"] = [
            {"pointer": harmless(error.pointer), "code": error.code, "detail": harmless(error.detail)}
            for error in problem.errors[:_MAX_ERRORS]
        ]
    headers = dict(problem.headers)
    if problem.retry_after_s is not None:
        # Rounded up: a client that waits as told finds the way free. The milliseconds keep the jitter apart.
        body["retry_after_s"] = max(1, math.ceil(problem.retry_after_s))
        body["retry_after_ms"] = math.ceil(problem.retry_after_s * 1000)
        headers["Retry-After"] = str(body["retry_after_s"])
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = _CHALLENGE
    # What every problem says stands over what one of them adds.
    return Response(json.dumps({**problem.more, **body}), status, headers, MEDIA_TYPE)


def status_of(error: Exception) -> int:
    """The status that an error is answered with."""
    if isinstance(error, Problem):
        return error.status
    if isinstance(error, Refused):
        return STATUS[error.code]
    if isinstance(error, StoreUnavailable):
        return STATUS[Code.STORE_UNAVAILABLE]
    return 400 if isinstance(error, RequestValidationError) else 500


def harmless(text: str) -> str:
    """Text that may stem from a client: valid Unicode, cut."""
    return text.encode("utf-8", "replace").decode()[:_MAX_POINTER_CHARACTERS]


def pointer_to(location: Sequence[str | int]) -> str:
    """Where in the request, from the place that pydantic names: ``("body", "items", 0)`` is ``#/items/0``."""
    kind, *path = location or ("body",)
    if kind == "body":
        # RFC 6901: "~" and "/" in a name are written "~0" and "~1".
        return "#" + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
    name = ".".join(map(str, path))
    return f"?{name}" if kind == "query" else f"{{{name}}}"


# -- what others raise --------------------------------------------------------------------------------------------


async def on_problem(request: Request, error: Exception) -> Response:
    """Exception handler: a Problem."""
    assert isinstance(error, Problem)
    return answer(error, request_id_of(request))


async def on_refused(request: Request, error: Exception) -> Response:
    """Exception handler: a service's refusal; its codes are the API's."""
    assert isinstance(error, Refused)
    problem = Problem(Code(error.code), str(error), retry_after_s=error.retry_after_s, more=error.more)
    return answer(problem, request_id_of(request))


async def on_store_unavailable(request: Request, _error: Exception) -> Response:
    """Exception handler: the store. It logs its own state; here it is one call's answer."""
    detail = "the store does not answer now; nothing of the call was kept"
    return answer(Problem(Code.STORE_UNAVAILABLE, detail, retry_after_s=STORE_RETRY_S), request_id_of(request))


async def on_invalid(request: Request, error: Exception) -> Response:
    """Exception handler: a request that its route's model does not take."""
    assert isinstance(error, RequestValidationError)
    found = [
        FieldError(
            pointer_to(item["loc"]),
            Code.UNKNOWN_FIELD if item["type"] == "extra_forbidden" else Code.INVALID_PARAMETER,
            str(item["msg"]).removeprefix("Value error, "),
        )
        for item in error.errors()
    ]
    # A typo is the likelier cause where both kinds stand together.
    unknown = [item for item in found if item.code == Code.UNKNOWN_FIELD]
    first = (unknown or found)[0]
    problem = Problem(
        Code(first.code),
        f"{first.pointer}: {first.detail}",
        errors=unknown + [item for item in found if item.code != Code.UNKNOWN_FIELD],
    )
    return answer(problem, request_id_of(request))


async def on_http(request: Request, error: Exception) -> Response:
    """Exception handler: what the router itself says: no such path, or not with this method."""
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = sorted(_methods(request))
        problem = Problem(Code.METHOD, f"allowed here: {', '.join(allowed)}", headers={"Allow": ", ".join(allowed)})
    elif error.status_code == HTTPStatus.NOT_FOUND:
        problem = Problem(Code.NOT_FOUND, "there is nothing at this path")
    else:
        problem = Problem(Code.INVALID_PARAMETER, str(error.detail))
    return answer(problem, request_id_of(request))


def request_id_of(request: Request) -> str:
    """The id that the shell gave this request."""
    request_id: str = request.scope[REQUEST_ID_KEY]
    return request_id


def _methods(request: Request) -> set[str]:
    """Every method of the path that the router found; it knows only of the first route with this path.

    A path in full goes before one with a parameter, as in OpenAPI: ``/devices/batch`` is not ``/devices/{id}``.
    """
    found: set[str] = set()
    path: str | None = None
    for route in request.app.routes:
        if path is None and route.matches(request.scope)[0] is not Match.NONE:
            path = route.path
        if route.path == path:
            found |= route.methods or set()
    return found
