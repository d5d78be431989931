"""The HTTP application, put together from its doors."""

from collections.abc import Sequence

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from longwire.accounts.refusals import Refused
from longwire.api import device_routes, health, operator_dead_letters, operator_devices, operator_keys, pages, problems
from longwire.api.doors import Guard
from longwire.api.problems import Problem
from longwire.api.services import Readiness, Services
from longwire.api.shell import Shell
from longwire.errors import StoreUnavailable

_INTERNAL_MAX_BODY_BYTES = 65_536


def create_api(services: Services) -> FastAPI:
    """The API for the HTTP port (API.md), to be served on the loop that the services live on."""
    routes = [
        *device_routes.router.routes,
        *operator_devices.router.routes,
        *operator_keys.router.routes,
        *operator_dead_letters.router.routes,
        *health.router.routes,
        *pages.ROUTES,
    ]
    app = _assemble(routes, services.readiness, services.settings.max_body_bytes)
    app.state.services = services
    app.state.guard = Guard(services)
    return app


def create_internal_api(readiness: Readiness) -> FastAPI:
    """The health pages alone, for the internal port."""
    return _assemble(health.router.routes, readiness, _INTERNAL_MAX_BODY_BYTES)


def _assemble(routes: Sequence[BaseRoute], readiness: Readiness, max_body_bytes: int) -> FastAPI:
    app = FastAPI(
        routes=list(routes),
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        middleware=[Middleware(Shell, max_body_bytes=max_body_bytes)],
        exception_handlers={
            Problem: problems.on_problem,
            Refused: problems.on_refused,
            StoreUnavailable: problems.on_store_unavailable,
            RequestValidationError: problems.on_invalid,
            HTTPException: problems.on_http,
        },
    )
    app.state.readiness = readiness
    return app
