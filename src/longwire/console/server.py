"""The console as an ASGI application: headers, who is signed in, where a request comes from, then NiceGUI.

    every answer      security headers
    own files         stylesheet, script, icon; NiceGUI's own under its version: for anybody
    /sign-in …        sign_in.py
    all others        need the cookie of a session; what is not GET, and the socket, an Origin of our own

NiceGUI's socket takes every Origin and every cookie: the check here, before it is reached, is the only one.
"""

from collections.abc import Iterable

import httpx
from fastapi import FastAPI
from nicegui import __version__, app, ui
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from longwire.console import theme
from longwire.console.sessions import COOKIE, Sessions
from longwire.console.settings import ConsoleSettings
from longwire.console.shell import PASSWORD, Desk, open_desk, sign_in_path
from longwire.console.sign_in import PATHS, SignIn

_STATIC = f"/_nicegui/{__version__}/"
_SOCKET = "/_nicegui_ws/"
_MAX_CALLS = 64
_CSP = "; ".join(
    (
        "default-src 'self'",
        # Vue compiles its templates in the browser, and NiceGUI's page is a script of its own.
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "object-src 'none'",
    )
)
_HEADERS = (
    (b"content-security-policy", _CSP.encode()),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    # Not no-referrer: with it browsers say ``Origin: null`` of their own forms (Fetch §3.2).
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_FOREIGN = "The request came from another site, or console_url is not the address in your browser.\n"
_HSTS = (b"strict-transport-security", b"max-age=31536000")


def create_console(settings: ConsoleSettings) -> ASGIApp:
    """The console. Once a process: NiceGUI is the process's. To be served with ``lifespan="on"``."""
    # One client for everybody: it holds connections and no cookies, and each call brings its own token.
    client = httpx.AsyncClient(
        base_url=settings.api_url,
        limits=httpx.Limits(max_connections=_MAX_CALLS),
        verify=settings.api_url.startswith("https:"),
        cookies=None,
        trust_env=False,
    )
    app.on_shutdown(client.aclose)
    desk = Desk(settings, client, Sessions())
    open_desk(desk)
    import longwire.console.pages  # noqa: F401 - the pages are registered where they are imported

    pages = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    ui.run_with(
        pages,
        title="Longwire",
        dark=None,
        tailwind=False,
        reconnect_timeout=10,
        message_history_length=200,
        show_welcome_message=False,
        binding_refresh_interval=None,
    )
    return Console(pages, desk)


class Console:
    """What stands before the pages."""

    def __init__(self, pages: ASGIApp, desk: Desk) -> None:
        self._pages = pages
        self._desk = desk
        self._sign_in = SignIn(desk)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._pages(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        if scope["type"] == "websocket":
            if self._may_connect(connection):
                await self._pages(scope, receive, send)
            else:
                await receive()
                await send({"type": "websocket.close", "code": 1008})
            return
        request = Request(scope, receive)
        send = self._with_headers(request, send)
        refusal = await self._answer(request)
        await (self._pages if refusal is None else refusal)(scope, receive, send)

    async def _answer(self, request: Request) -> Response | None:
        """What is answered without the pages; None where they are to answer."""
        path = str(request.scope["path"])  # not of request.url, of which the Host header is a part
        is_read = request.method in ("GET", "HEAD")
        if is_read and (found := theme.serve(path)) is not None:
            return found
        if is_read and path.startswith(_STATIC):
            return None
        if (not is_read or path.startswith(_SOCKET)) and not self._is_own(request):
            return Response(_FOREIGN, 403)
        if path in PATHS:
            return await self._sign_in.answer(request)
        person = self._desk.find(request)
        if person is None:
            return _to_sign_in(request)
        if person.must_change_password and not path.startswith(_SOCKET):
            return RedirectResponse(PASSWORD, 303)
        return None

    def _may_connect(self, socket: HTTPConnection) -> bool:
        origin = socket.headers.get("origin", "")
        if not self._desk.settings.is_own_origin(origin, socket.headers.get("host", "")):
            return False
        person = self._desk.sessions.find(socket.cookies.get(COOKIE, ""))
        return person is not None and not person.must_change_password

    def _is_own(self, request: Request) -> bool:
        """Whether one of our own pages makes the request. Old browsers say nothing when they only read."""
        origin = request.headers.get("origin")
        if origin is not None:
            return self._desk.settings.is_own_origin(origin, request.headers.get("host", ""))
        return request.headers.get("sec-fetch-site") == "same-origin"

    def _with_headers(self, request: Request, send: Send) -> Send:
        path = str(request.scope["path"])
        keeps = path.startswith(_STATIC) or path in theme.PATHS

        async def send_with(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers: Iterable[tuple[bytes, bytes]] = message.get("headers", ())
                own = [*_HEADERS, *([_HSTS] if self._desk.settings.is_secure else [])]
                if not keeps:
                    headers = [one for one in headers if one[0] != b"cache-control"]
                    own.append((b"cache-control", b"no-store"))
                message["headers"] = [*headers, *own]
            await send(message)

        return send_with


def _to_sign_in(request: Request) -> Response:
    if request.method != "GET" or request.scope["path"].startswith("/_nicegui"):
        return Response("Sign in first.\n", 401)
    if request.headers.get("sec-fetch-site") == "cross-site":
        # A link in somebody's chat: the cookie, being strict, comes only with what our own page asks for.
        return HTMLResponse('<!doctype html><meta http-equiv="refresh" content="0"><title>Longwire</title>')
    return RedirectResponse(sign_in_path(request), 303)
