"""Bodies: read with a bound and a deadline, and taken only as strict JSON; large ones piece by piece, as text.

Strict: ``application/json``, UTF-8, no repeated names, no NaN, no halves of surrogate pairs, no nesting that
exhausts the parser. What the fields may be is for the routes' models to say.
"""

import asyncio
import hashlib
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect

from longwire.api.problems import Code, Problem
from longwire.api.shell import check_size

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class JsonRequest(Request):
    """A request whose body was read and parsed before its route sees it."""

    whole: bytes = b""
    parsed: Any = None

    async def json(self) -> Any:
        return self.parsed


async def read_body(request: Request, max_bytes: int, timeout_s: float) -> bytes:
    """The whole body. Raises Problem (payload-too-large) as soon as that is known, and for a body too slow."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit():
        check_size(int(announced[:19]), max_bytes)
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            is_all = False
            while not is_all:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise _gone()
                piece = message.get("body", b"")
                size += len(piece)
                check_size(size, max_bytes)
                pieces.append(piece)
                is_all = not message.get("more_body", False)
    except TimeoutError:
        raise _too_slow(timeout_s) from None
    return b"".join(pieces)


class BodyStream:
    """A body that is too large to be held: read once, piece by piece, within its bounds."""

    def __init__(self, request: Request, max_bytes: int, idle_s: float, timeout_s: float) -> None:
        self._request = request
        self._max_bytes = max_bytes
        self._idle_s = idle_s
        self._timeout_s = timeout_s
        self._digest = hashlib.sha256()
        self._pieces = self._read()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces

    async def digest(self) -> bytes:
        """SHA-256 of the whole body; what is left of it is read for that."""
        async for _ in self:
            pass
        return self._digest.digest()

    async def _read(self) -> AsyncIterator[bytes]:
        """Raises Problem: payload-too-large as soon as it is known, malformed-json for a body that stops or crawls."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._timeout_s
        size = 0
        pieces = self._request.stream()
        while True:
            try:
                async with asyncio.timeout(min(self._idle_s, ends_at - loop.time())):
                    piece = await anext(pieces, None)
            except TimeoutError:
                raise _too_slow(self._idle_s if loop.time() < ends_at else self._timeout_s) from None
            except ClientDisconnect:
                raise _gone() from None
            if piece is None:
                return
            size += len(piece)
            check_size(size, self._max_bytes)
            self._digest.update(piece)
            yield piece


def parse(body: bytes, content_type: str) -> Any:
    """The body's JSON value. Raises Problem (malformed-json)."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Problem(Code.MALFORMED_JSON, "the body's Content-Type is not application/json")
    try:
        text = body.decode("utf-8")
        # Python's own parser: it alone tells of repeated names.
        value = _decode(text)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        raise Problem(Code.MALFORMED_JSON, f"{error.msg} at character {error.pos}") from None
    except UnicodeEncodeError:
        raise Problem(Code.MALFORMED_JSON, "half of a surrogate pair stands alone") from None
    except UnicodeDecodeError as error:
        raise Problem(Code.MALFORMED_JSON, f"not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise Problem(Code.MALFORMED_JSON, "nested too deep") from None
    except ValueError as error:
        raise Problem(Code.MALFORMED_JSON, str(error)) from None
    return value


def _too_slow(within_s: float) -> Problem:
    detail = f"body did not arrive within {within_s:g} s"
    return Problem(Code.MALFORMED_JSON, detail, headers={"Connection": "close"})


def _gone() -> Problem:
    return Problem(Code.MALFORMED_JSON, "the client went away before its body was whole")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        repeated, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"the name {repeated!r} stands twice in one object")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


# Made once: json.loads makes a decoder for each call that has a hook.
_decode = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant).decode
