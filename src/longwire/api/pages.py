"""``/openapi.json`` and ``/docs``.

FastAPI's page loads Swagger UI from a CDN, which operators without internet do not have; this one is ours, a
single file (docs.html) that reads the document, lists the calls and tries them. Nothing but this origin may run
or be called in it.
"""

import base64
import hashlib
import json
import re
from importlib.resources import files
from typing import cast

from fastapi import FastAPI, Request, Response
from starlette.routing import Route

from longwire.api.openapi import document

_PAGE = files("longwire.api").joinpath("docs.html").read_text(encoding="utf-8")


def _hash_of(tag: str) -> str:
    """The hash by which the policy lets the page's one <script> or <style> in."""
    inline = re.search(f"<{tag}>(.*?)</{tag}>", _PAGE, re.DOTALL)
    assert inline is not None
    return base64.b64encode(hashlib.sha256(inline[1].encode()).digest()).decode()


_POLICY = (
    f"default-src 'none'; connect-src 'self'; script-src 'sha256-{_hash_of('script')}'; "
    f"style-src 'sha256-{_hash_of('style')}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


async def _openapi(request: Request) -> Response:
    text = json.dumps(document(cast("FastAPI", request.app)))
    return Response(text, media_type="application/json")


async def _docs(_request: Request) -> Response:
    return Response(_PAGE, media_type="text/html", headers={"Content-Security-Policy": _POLICY})


ROUTES = [Route("/openapi.json", _openapi), Route("/docs", _docs)]
