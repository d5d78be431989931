"""The straight way: calls that come by the thousand go to their route past the framework's router and its layers."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
ErrorHandler = Callable[[Request, Exception], Coroutine[Any, Any, Response]]


class Direct:
    """Pure ASGI. ``handlers`` by method and path; ``errors`` by the class of what a handler raises.

    Everything else is the application's, and so is what ``errors`` does not know.
    """

    def __init__(
        self,
        app: ASGIApp,
        handlers: Mapping[tuple[str, str], Handler],
        errors: Mapping[int | type[Exception], ErrorHandler],
    ) -> None:
        self._app = app
        self._handlers = handlers
        self._errors = errors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self._handlers.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if handler is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        try:
            response = await handler(request)
        except Exception as error:
            answer = self._errors.get(type(error))
            if answer is None:
                raise
            response = await answer(request, error)
        await response(scope, receive, send)
