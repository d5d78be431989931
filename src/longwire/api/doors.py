"""The doors: who may come in where, checked before a byte of body is read.

Each route names its door beside its path, and that one fact both guards the route and stands in the OpenAPI
document. A route without a door does not start. Writes of operators go on through the audit trail and the keys of
idempotency:

    door ─ query ─ body ─► audit ─► idempotency ─► the route's function
"""

import base64
import binascii
import functools
import ipaddress
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.routing import BaseRoute

from longwire.accounts.api_keys import Principal, Scope
from longwire.accounts.buckets import Buckets
from longwire.accounts.people import TOKEN_PREFIX, Visitor
from longwire.api.audit_trail import audited
from longwire.api.bodies import BodyStream, JsonRequest, parse, read_body
from longwire.api.idempotency import Idempotency
from longwire.api.problems import Code, FieldError, Problem
from longwire.api.services import ApiSettings, Services
from longwire.model import Credential

_DOOR = "x-door"
_SCOPE = "x-scope"
_STREAMS = "x-streams"
_TELLS_SECRETS = "x-tells-secrets"
FLAGS = (_STREAMS, _TELLS_SECRETS)
"""What the OpenAPI document does not show of a door."""
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_MAX_AUTHORIZATION_CHARACTERS = 1_024

_STATUSES = {
    "open": (503,),
    "address": (400, 401, 403, 413, 429, 503),
    "device": (400, 401, 403, 413, 429, 503),
    "operator": (400, 401, 403, 413, 429, 503),
    "person": (400, 401, 403, 413, 429, 503),
}
_CALLERS: list[dict[str, list[str]]] = [{"apiKey": []}, {"masterSecret": []}, {"session": []}]
_TITLES = {
    400: "The request is not understood",
    401: "Authentication is missing or wrong",
    403: "Not allowed",
    404: "Unknown",
    409: "Not in this state, or a call with this key is still running",
    413: "The body or the payload is too large",
    422: "Understood, and not possible",
    429: "Too many calls; see Retry-After",
    500: "The server failed",
    503: "Not now; see Retry-After",
    504: "No reply in time: the outcome is unknown",
}


def open_door() -> dict[str, Any]:
    """Arguments of a route that anybody may call."""
    return _door("open", [])


def address_door() -> dict[str, Any]:
    """Arguments of a route for devices that prove themselves in the body; rationed by address."""
    return _door("address", [])


def device_door() -> dict[str, Any]:
    """Arguments of a route for a device with its token."""
    return _door("device", [{"deviceToken": []}])


def operator_door(scope: Scope, *more: int, streams: bool = False, tells_secrets: bool = False) -> dict[str, Any]:
    """Arguments of a route for API keys with ``scope``, and the further statuses that it answers.

    ``streams``: the route reads its body itself (dependencies.LargeBody). ``tells_secrets``: its answer is not kept
    under an Idempotency-Key. Answers of a key of idempotency (409, 422) are in the document without being named.
    """
    flags = {name: True for name, is_so in ((_STREAMS, streams), (_TELLS_SECRETS, tells_secrets)) if is_so}
    return _door("operator", _CALLERS, *more, extra={_SCOPE: str(scope)} | flags)


def person_door(*more: int) -> dict[str, Any]:
    """Arguments of a route for whoever has signed in, about themselves: it needs no scope."""
    return _door("person", [{"session": []}], *more)


def _door(kind: str, security: list[Any], *more: int, extra: dict[str, Any] | None = None) -> dict[str, Any]:
    statuses = sorted({*_STATUSES[kind], *more, 500})
    extra = {_DOOR: kind, "security": security} | (extra or {})
    return {
        "openapi_extra": extra,
        "responses": {status: problem_response(status) for status in statuses},
    }


def problem_response(status: int) -> dict[str, Any]:
    """An error in the OpenAPI document."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": _TITLES[status], "content": {"application/problem+json": {"schema": schema}}}


class Guard:
    """Checks who calls, and how often."""

    def __init__(self, services: Services) -> None:
        settings = services.settings
        self._services = services
        self._calls = Buckets(settings.calls_per_s, settings.call_burst, services.clock.monotonic)
        self._addresses = Buckets(
            settings.device_calls_per_s_per_address,
            settings.device_call_burst_per_address,
            services.clock.monotonic,
        )

    def check_address(self, request: Request) -> None:
        """Raises Problem (rate-limited) for an address that calls too often; loopback is exempt."""
        network = _network_of(request.client.host if request.client else "")
        if network is not None:
            self._ration(self._addresses, network, "this address")

    async def device(self, request: Request) -> Credential:
        """The device whose token the request carries."""
        kind, value = _authorization(request)
        if kind != "bearer":
            raise Problem(Code.AUTH_INVALID, "this door takes a device's bearer token")
        return await self._services.tokens.authenticate(value)

    async def operator(self, request: Request, scope: Scope) -> Principal:
        """The caller, who has ``scope``."""
        kind, value = _authorization(request)
        keys = self._services.api_keys
        principal: Principal
        if kind == "bearer" and value.startswith(TOKEN_PREFIX):
            principal = await self._services.people.authenticate(value)
        elif kind == "bearer":
            principal = await keys.authenticate_key(value)
        elif kind == "basic":
            principal = await keys.authenticate_app(*_user_and_password(value))
        else:
            raise Problem(Code.AUTH_INVALID, "Authorization is neither Bearer nor Basic")
        self._ration(self._calls, principal.name, "this key")
        if not principal.has(scope):
            if isinstance(principal, Visitor) and principal.must_change:
                detail = "the one-time password has to be replaced first: POST /v1/sessions/current/password"
                raise Problem(Code.SCOPE_MISSING, detail, more={"scope": str(scope)})
            raise Problem(Code.SCOPE_MISSING, f"the key lacks the scope {scope}", more={"scope": str(scope)})
        return principal

    async def person(self, request: Request) -> Visitor:
        """The person whose session the request carries."""
        kind, value = _authorization(request)
        if kind != "bearer" or not value.startswith(TOKEN_PREFIX):
            raise Problem(Code.AUTH_INVALID, "this door takes the token of a session, which POST /v1/sessions gives")
        visitor = await self._services.people.authenticate(value)
        self._ration(self._calls, visitor.name, "this person")
        return visitor

    @staticmethod
    def _ration(buckets: Buckets, name: str, whose: str) -> None:
        wait_s = buckets.take(name)
        if wait_s:
            raise Problem(Code.RATE_LIMITED, f"too many calls of {whose}", retry_after_s=wait_s)


class DoorRoute(APIRoute):
    """A route behind its door: address, caller, query and body are checked in this order, then it is called."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = self.inner_handler()
        extra = self.openapi_extra or {}
        door: str = extra[_DOOR]
        scope = Scope(extra[_SCOPE]) if _SCOPE in extra else None
        streams = _STREAMS in extra
        tells_secrets = _TELLS_SECRETS in extra
        known_query = frozenset(field.alias for field in self.dependant.query_params)
        has_body = self.body_field is not None
        reads_body = has_body or "POST" in (self.methods or ())
        is_audited = is_write(self) and not isinstance(self, PlainRoute)

        async def once(request: Request) -> Response:
            keys: Idempotency = request.app.state.idempotency
            return await keys.once(request, handle, tells_secrets=tells_secrets)

        async def guarded(request: Request) -> Response:
            if door != "open":
                await _let_in(request, door, scope)
            _check_query(request, known_query)
            if streams:
                request.state.body = _stream_of(request)
            elif reads_body:
                request = await _with_body(request, is_small=scope is None, has_body=has_body)
            if is_audited:
                return await audited(request, self.path_format, once)
            return await inner(request)

        inner = once if is_write(self) else handle
        return guarded

    def inner_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What is called behind the door."""
        return super().get_route_handler()


class PlainRoute(DoorRoute):
    """A route for calls by the thousand: its function gets ``request`` and the checked ``body``, and makes the answer.

    What FastAPI does for a call, solving dependencies above all, costs more than all the rest of a small one. Such
    calls are not audited.
    """

    def inner_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint = self.endpoint
        assert self.body_field is not None
        model: type[BaseModel] = self.body_field.field_info.annotation  # type: ignore[assignment]
        check = model.model_validate

        async def handle(request: Request) -> Response:
            assert isinstance(request, JsonRequest)
            try:
                body = check(request.parsed)
            except ValidationError as error:
                found = error.errors(include_url=False, include_context=False, include_input=False)
                raise RequestValidationError([{**item, "loc": ("body", *item["loc"])} for item in found]) from None
            answer: Response = await endpoint(request=request, body=body)
            return answer

        return handle


def large_paths(routes: Iterable[BaseRoute]) -> frozenset[str]:
    """Where bodies come that are larger than others: routes whose door says ``streams=True``."""
    return frozenset(
        route.path for route in routes if isinstance(route, DoorRoute) and _STREAMS in (route.openapi_extra or {})
    )


def plain_handlers(routes: Iterable[BaseRoute]) -> dict[tuple[str, str], Callable[[Request], Any]]:
    """By method and path, the routes that are called without the framework (direct.py)."""
    return {
        (method, route.path): route.get_route_handler()
        for route in routes
        if isinstance(route, PlainRoute)
        for method in route.methods or ()
    }


def is_write(route: APIRoute) -> bool:
    """Whether the route changes something on an operator's word: not where it only reads by POST."""
    extra = route.openapi_extra or {}
    is_operators = extra.get(_DOOR) == "person" or (_SCOPE in extra and not extra[_SCOPE].endswith(":read"))
    return is_operators and not _WRITES.isdisjoint(route.methods or ())


async def _let_in(request: Request, door: str, scope: Scope | None) -> None:
    guard: Guard = request.app.state.guard
    if scope is not None:
        request.state.principal = await guard.operator(request, scope)
        return
    if door == "person":
        request.state.principal = await guard.person(request)
        return
    guard.check_address(request)
    if door == "device":
        request.state.credential = await guard.device(request)


async def _with_body(request: Request, *, is_small: bool, has_body: bool) -> Request:
    settings = _settings_of(request)
    limit = settings.max_device_body_bytes if is_small else settings.max_body_bytes
    body = await read_body(request, limit, settings.body_timeout_s)
    whole = JsonRequest(request.scope, request.receive)
    whole.whole = whole._body = body  # noqa: SLF001 - as Starlette's own cached requests have it
    if body:
        whole.parsed = parse(body, request.headers.get("content-type", ""))
        if not has_body and whole.parsed not in ({}, None):
            raise Problem(Code.UNKNOWN_FIELD, "this call takes no body")
    return whole


def _stream_of(request: Request) -> BodyStream:
    settings = _settings_of(request)
    return BodyStream(request, settings.max_upload_bytes, settings.upload_idle_s, settings.upload_timeout_s)


def _settings_of(request: Request) -> ApiSettings:
    settings: ApiSettings = request.app.state.services.settings
    return settings


def _check_query(request: Request, known: frozenset[str]) -> None:
    if not request.scope["query_string"]:
        return
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if name not in known or names.count(name) > 1:
            why = "stands twice" if name in known else "is not a parameter of this call"
            error = FieldError(f"?{name}", Code.INVALID_PARAMETER, why)
            raise Problem(Code.INVALID_PARAMETER, f"?{name} {why}", errors=[error])


def _authorization(request: Request) -> tuple[str, str]:
    header = request.headers.get("authorization")
    if not header:
        raise Problem(Code.AUTH_MISSING, "there is no Authorization header")
    kind, _, value = header.partition(" ")
    value = value.strip()
    if not value or len(header) > _MAX_AUTHORIZATION_CHARACTERS:
        raise Problem(Code.AUTH_INVALID, "the Authorization header is malformed")
    return kind.lower(), value


def _user_and_password(value: str) -> tuple[str, str]:
    try:
        user, colon, password = base64.b64decode(value, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, ValueError):
        user = colon = password = ""
    if not colon:
        raise Problem(Code.AUTH_INVALID, "the Basic credentials are malformed")
    return user, password


@functools.lru_cache(maxsize=1_024)
def _network_of(address: str) -> str | None:
    """What is rationed as one address: an IPv4 address, a /64 of IPv6; None for loopback and Unix sockets."""
    if not address:
        return None
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is None:
            return None if ip.is_loopback else ip.packed[:8].hex()
        ip = ip.ipv4_mapped
    return None if ip.is_loopback else str(ip)
