"""The straight way: calls that come by the thousand go to their route past the framework's router and its layers."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Handlers = Mapping[tuple[str, str], Handler]
ErrorHandler = Callable[[Request, Exception], Coroutine[Any, Any, Response]]


class Direct:
    """Pure ASGI: calls the handler of the method and path. ``errors`` by the class of what a handler raises.

    What ``errors`` does not know is the caller's.
    """

    def __init__(self, handlers: Handlers, errors: Mapping[int | type[Exception], ErrorHandler]) -> None:
        self._handlers = handlers
        self._errors = errors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        try:
            response = await self._handlers[scope["method"], scope["path"]](request)
        except Exception as error:
            answer = self._errors.get(type(error))
            if answer is None:
                raise
            response = await answer(request, error)
        await response(scope, receive, send)
