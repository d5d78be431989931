"""The OpenAPI 3.1 document: what FastAPI knows of the routes, with the API's own errors and keys."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from longwire.api.doors import FLAGS, DoorRoute, is_write, problem_response
from longwire.api.idempotency import HEADER, KEY_PATTERN
from longwire.api.shapes import ProblemAnswer

_DESCRIPTION = """\
Two doors: `/device/v1` for devices, `/v1` for operators and business backends. Errors are RFC 9457 problems with a
`code`; every answer has an `X-Request-Id`. A call that needs a scope names it in `x-scope`. Writes of operators take an
`Idempotency-Key`. Lists go on at `next_cursor`. Times are RFC 3339 UTC with milliseconds.

A push goes to an audience: everyone, devices, users, groups, an expression of tags, or an uploaded list. It is durable
when the call answers; each device that is online gets it at once, and the others when they come back within `ttl_s`.
For every push, at every moment: targeted = acked + expired + failed + collapsed + canceled + withdrawn + pending.
"""

_IDEMPOTENCY_KEY = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "The same call once more gives the first answer, with `Idempotency-Replayed: true`, for a day",
    "schema": {"type": "string", "pattern": KEY_PATTERN},
    "example": "order-4711-shipped",
}

_SECURITY = {
    "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key, `lwk_…`"},
    "masterSecret": {"type": "http", "scheme": "basic", "description": "Application key : master secret"},
    "session": {"type": "http", "scheme": "bearer", "description": "The token of a person's session, `lws_…`"},
    "deviceToken": {"type": "http", "scheme": "bearer", "description": "A device's token"},
}


def document(app: FastAPI) -> dict[str, Any]:
    """The document; made once, it does not change while the process runs."""
    if app.openapi_schema is None:
        made = get_openapi(
            title="Longwire",
            version="1",
            openapi_version="3.1.0",
            description=_DESCRIPTION,
            routes=app.routes,
        )
        components = made.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        schemas["Problem"] = ProblemAnswer.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schemas["Problem"].pop("$defs", {}))
        components["securitySchemes"] = _SECURITY
        for route in app.routes:
            if isinstance(route, DoorRoute):
                for method in route.methods or ():
                    _complete(made["paths"][route.path_format][method.lower()], route)
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        app.openapi_schema = made
    return app.openapi_schema


def _complete(operation: dict[str, Any], route: DoorRoute) -> None:
    """Says of an operation what FastAPI does not know, and takes out what it only believes."""
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]  # FastAPI's own idea of a validation error; ours is 400.
    for flag in FLAGS:
        operation.pop(flag, None)
    if is_write(route):
        operation.setdefault("parameters", []).append(_IDEMPOTENCY_KEY)
        for status in (409, 422):
            responses.setdefault(str(status), problem_response(status))
