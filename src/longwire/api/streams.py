"""Server-Sent Events: what changes, as it changes, to whoever keeps a call open.

    event: progress          the resource, whenever it looks different from the last one
    : alive                  a comment every 15 s, so that nothing on the way takes the call for dead
    event: end               the last one

A reader whose stream ends without ``end`` opens another. So it is when the process stops: each stream is ended in
order, after what there was to tell, and none keeps the process waiting.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from longwire.api.problems import Code, Problem
from longwire.errors import LongwireError

MEDIA_TYPE = "text/event-stream"
_ALIVE_S = 15.0
_RETRY_S = 5.0


def stream_response(shape: str, *events: str) -> dict[str, Any]:
    """A stream in the OpenAPI document: its events, each with a resource of this shape."""
    event = {
        "type": "object",
        "properties": {
            "event": {"type": "string", "enum": list(events)},
            "data": {"type": "string", "contentMediaType": "application/json"},
        },
        "required": ["event", "data"],
    }
    description = f"Server-Sent Events, each with the {shape} as JSON: {', '.join(events)}"
    return {"description": description, "content": {MEDIA_TYPE: {"schema": event}}}


class Look(NamedTuple):
    """A resource as it is now, as JSON; and whether that was its last change."""

    json: str
    is_last: bool = False


class Streams:
    """The open streams of this process, at most ``most``, each of at most ``lasts_s``."""

    def __init__(self, most: int, lasts_s: float) -> None:
        self._most = most
        self._lasts_s = lasts_s
        self._open = 0
        self._has_ended = asyncio.Event()

    def end(self) -> None:
        """Ends those that are open; one that is opened from here on tells what is, and ends."""
        self._has_ended.set()

    def watch(self, look: Callable[[], Awaitable[Look]], every_s: float) -> StreamingResponse:
        """A response that looks every ``every_s`` and tells what is new. Raises Problem (overloaded)."""
        if self._open >= self._most:
            detail = f"{self._open} event streams are open, at most {self._most}"
            raise Problem(Code.OVERLOADED, detail, retry_after_s=_RETRY_S)
        self._open += 1
        return _Stream(self._tell(look, every_s), self._close)

    def _close(self) -> None:
        self._open -= 1

    async def _tell(self, look: Callable[[], Awaitable[Look]], every_s: float) -> AsyncIterator[str]:
        now = asyncio.get_running_loop().time
        ends_at = now() + self._lasts_s
        told_at, told = now(), ""
        while True:
            try:
                found = await look()
            except LongwireError:
                # The answer has begun, so that nothing can be told any more: whoever comes again learns of it.
                return
            if found.is_last:
                yield f"event: end\ndata: {found.json}\n\n"
                return
            if found.json != told:
                told_at, told = now(), found.json
                yield f"event: progress\ndata: {told}\n\n"
            elif now() - told_at >= _ALIVE_S:
                told_at = now()
                yield ": alive\n\n"
            if now() >= ends_at or await self._ends_within(every_s):
                return

    async def _ends_within(self, wait_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._has_ended.wait()
        return self._has_ended.is_set()


class _Stream(StreamingResponse):
    """Gives its place back however it ends."""

    def __init__(self, events: AsyncIterator[str], close: Callable[[], None]) -> None:
        super().__init__(events, media_type=MEDIA_TYPE)
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._close()
