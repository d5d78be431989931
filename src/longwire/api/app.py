"""The HTTP application, put together from its doors."""

from collections.abc import Mapping, Sequence

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from longwire.accounts.refusals import Refused
from longwire.api import (
    device_routes,
    health,
    operator_audit,
    operator_commands,
    operator_dead_letters,
    operator_devices,
    operator_groups,
    operator_imports,
    operator_inbox,
    operator_keys,
    operator_logs,
    operator_marks,
    operator_messages,
    operator_nodes,
    operator_people,
    operator_presence,
    operator_pushes,
    operator_stats,
    operator_tags,
    operator_trace,
    operator_uplink,
    operator_uploads,
    operator_webhooks,
    pages,
    problems,
)
from longwire.api.direct import Direct, ErrorHandler
from longwire.api.doors import Guard, large_paths, plain_handlers
from longwire.api.idempotency import Idempotency
from longwire.api.problems import Problem
from longwire.api.services import Readiness, Services
from longwire.api.shell import TEMPLATE_KEY, Shell, Tally
from longwire.api.streams import Streams
from longwire.errors import StoreUnavailable

_INTERNAL_MAX_BODY_BYTES = 65_536
_LINK_PATH = "/link/"
_METRICS_PATH = "/metrics"


class Api(FastAPI):
    """The framework's application, and the straight way past it."""

    def __init__(
        self,
        routes: Sequence[BaseRoute],
        errors: dict[int | type[Exception], ErrorHandler],
        max_body_bytes: int,
        large: Mapping[str, int],
    ) -> None:
        super().__init__(
            routes=list(routes),
            openapi_url=None,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            middleware=[Middleware(Shell, max_body_bytes=max_body_bytes, large=large)],
            exception_handlers=errors,
        )
        handlers = plain_handlers(routes)
        self._direct = Shell(Direct(handlers, errors), max_body_bytes, large)
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (scope["method"], scope["path"]) in self._handlers:
            scope["app"] = self
            scope[TEMPLATE_KEY] = scope["path"]
            await self._direct(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_api(services: Services) -> FastAPI:
    """The API for the HTTP port (API.md), to be served on the loop that the services live on."""
    routes: list[BaseRoute] = [
        # A call is held against one route after the other: those that come by the thousand stand first.
        *operator_messages.router.routes,
        *operator_pushes.router.routes,
        *device_routes.plain_router.routes,
        *device_routes.router.routes,
        *operator_devices.router.routes,
        *operator_inbox.router.routes,
        *operator_commands.router.routes,
        *operator_presence.router.routes,
        *operator_tags.router.routes,
        *operator_groups.router.routes,
        *operator_imports.router.routes,
        *operator_uploads.router.routes,
        *operator_stats.router.routes,
        *operator_nodes.router.routes,
        *operator_trace.router.routes,
        *operator_marks.router.routes,
        *operator_logs.router.routes,
        *operator_people.router.routes,
        *operator_keys.router.routes,
        *operator_audit.router.routes,
        *operator_uplink.router.routes,
        *operator_dead_letters.router.routes,
        *operator_webhooks.router.routes,
        *health.router.routes,
        *pages.ROUTES,
    ]
    settings = services.settings
    large = dict.fromkeys(large_paths(routes), settings.max_upload_bytes)
    app = _assemble(routes, services.readiness, settings.max_body_bytes, large)
    app.state.services = services
    app.state.guard = Guard(services)
    app.state.idempotency = Idempotency(services.idempotency, services.clock)
    app.state.streams = Streams(settings.max_streams, settings.stream_s)
    return app


def create_internal_api(readiness: Readiness, link: ASGIApp | None = None, metrics: ASGIApp | None = None) -> ASGIApp:
    """The health pages, for the internal port.

    ``link`` answers other nodes under ``/link/``, ``metrics`` answers ``/metrics``; neither has the API's layers.
    """
    pages = _assemble(health.router.routes, readiness, _INTERNAL_MAX_BODY_BYTES, {})
    if link is None and metrics is None:
        return pages

    async def internal(scope: Scope, receive: Receive, send: Send) -> None:
        answers: ASGIApp | None = pages
        if scope["type"] == "http" and scope["path"].startswith(_LINK_PATH):
            answers = link
        elif scope["type"] == "http" and scope["path"] == _METRICS_PATH:
            answers = metrics
        await (answers or pages)(scope, receive, send)

    return internal


def _assemble(
    routes: Sequence[BaseRoute], readiness: Readiness, max_body_bytes: int, large: Mapping[str, int]
) -> FastAPI:
    errors: dict[int | type[Exception], ErrorHandler] = {
        Problem: problems.on_problem,
        Refused: problems.on_refused,
        StoreUnavailable: problems.on_store_unavailable,
        RequestValidationError: problems.on_invalid,
        HTTPException: problems.on_http,
    }
    app = Api(routes, errors, max_body_bytes, large)
    app.state.readiness = readiness
    app.state.tally = Tally()
    return app
