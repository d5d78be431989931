"""The OpenAPI 3.1 document: what FastAPI knows of the routes, with the API's own errors and keys."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from longwire.api.shapes import ProblemAnswer

_DESCRIPTION = """\
Two doors: `/device/v1` for devices, `/v1` for operators and business backends. Errors are RFC 9457 problems with a
`code`; every answer has an `X-Request-Id`. A call that needs a scope names it in `x-scope`.
"""

_SECURITY = {
    "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key, `lwk_…`"},
    "masterSecret": {"type": "http", "scheme": "basic", "description": "Application key : master secret"},
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
        for operations in made["paths"].values():
            for operation in operations.values():
                # FastAPI's own idea of a validation error; ours is 400.
                operation["responses"].pop("422", None)
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        app.openapi_schema = made
    return app.openapi_schema
