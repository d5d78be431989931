"""Idempotency keys: the same write once more gives the answer of the first (API §1).

    running here             409 idempotency-in-progress, Retry-After
    answered, same call      the answer, with Idempotency-Replayed: true
    answered, another call   422 idempotency-key-reused
    else                     the deed is done; a 2xx is kept for a day

A deed and its answer are two commits, unless the service keeps both in one (pushes) or gives the deed an id that
follows from the key (``derived_id``): then the store itself knows the repeat, also after a crash between the two.
"""

import hashlib
import logging
import re
from collections.abc import Awaitable, Callable

from fastapi import Request, Response
from msgspec import Struct

from longwire.api.bodies import BodyStream, JsonRequest
from longwire.api.problems import Code, Problem
from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.ids import MESSAGE_ID_BYTES
from longwire.ports.idempotency import IdempotencyStore
from longwire.ports.pushes import AnsweredBefore
from longwire.push_model import KeptAnswer

log = logging.getLogger(__name__)

HEADER = "Idempotency-Key"
KEY_PATTERN = r"^[\x21-\x7e]{1,255}$"
KEPT_MS = 86_400_000
_KEY = re.compile(KEY_PATTERN[1:-1])
_REPLAYED = "Idempotency-Replayed"
_RETRY_S = 1.0
_MAX_KEPT_BYTES = 262_144
_TOLD_SECRETS = 0

Handle = Callable[[Request], Awaitable[Response]]


class Keeping(Struct):
    """A call's key, while the call runs."""

    caller: str
    key: str
    fingerprint: bytes
    is_kept: bool = False
    """Whether the service has kept the answer with the deed."""

    def answer(self, status: int, body: bytes, now_ms: int, location: str = "") -> KeptAnswer:
        """The record for a service that keeps it in the transaction of the deed."""
        self.is_kept = True
        return KeptAnswer(self.caller, self.key, self.fingerprint, status, body, now_ms, location)

    def derived_id(self, index: int) -> bytes:
        """An id (UUIDv8) that follows from caller, key, call and ``index``: a repeat has it too."""
        text = f"{self.caller}\n{self.key}\n{index}\n".encode() + self.fingerprint
        number = int.from_bytes(hashlib.sha256(text).digest()[:MESSAGE_ID_BYTES], "big")
        # RFC 9562 §5.8: four bits of version, two of variant.
        number = number & ~(0xF << 76) | 0x8 << 76
        number = number & ~(0x3 << 62) | 0x2 << 62
        return number.to_bytes(MESSAGE_ID_BYTES, "big")


class Idempotency:
    """Answers kept under keys, and the keys whose calls run in this process."""

    def __init__(self, store: IdempotencyStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._running: set[tuple[str, str]] = set()

    async def once(self, request: Request, handle: Handle, *, tells_secrets: bool) -> Response:
        """Does what ``handle`` does, once for a key; without a key simply that. Raises Problem, and as ``handle``."""
        key = _key_of(request)
        if key is None:
            return await handle(request)
        caller: str = request.state.principal.name
        running = (caller, key)
        if running in self._running:
            detail = "a call with this Idempotency-Key is still running"
            raise Problem(Code.IDEMPOTENCY_IN_PROGRESS, detail, retry_after_s=_RETRY_S)
        self._running.add(running)
        try:
            return await self._once(request, handle, caller, key, tells_secrets=tells_secrets)
        finally:
            self._running.discard(running)

    async def _once(self, request: Request, handle: Handle, caller: str, key: str, *, tells_secrets: bool) -> Response:
        found = await self._store.find(caller, key)
        if found is not None and found.created_at_ms > self._clock.now_ms() - KEPT_MS:
            return _replay(found, await _fingerprint(request))
        stream: BodyStream | None = getattr(request.state, "body", None)
        # Of a body that is read piece by piece more is known only once its route has read it.
        keeping = Keeping(caller, key, b"" if stream is not None else await _fingerprint(request))
        request.state.keeping = keeping
        try:
            answer = await handle(request)
        except AnsweredBefore as before:
            return _replay(before.kept, keeping.fingerprint)
        if 200 <= answer.status_code < 300 and not keeping.is_kept:
            keeping.fingerprint = await _fingerprint(request)
            await self._keep(keeping, answer, tells_secrets=tells_secrets)
        return answer

    async def _keep(self, keeping: Keeping, answer: Response, *, tells_secrets: bool) -> None:
        body = bytes(answer.body)
        if len(body) > _MAX_KEPT_BYTES:
            return
        status, body = (_TOLD_SECRETS, b"") if tells_secrets else (answer.status_code, body)
        kept = keeping.answer(status, body, self._clock.now_ms(), answer.headers.get("location", ""))
        try:
            await self._store.keep(kept)
        except StoreUnavailable as error:
            # The deed is done, and its caller is told so: only a repeat will not be known as one.
            log.warning("the answer to key %r of %s is not kept: %s", keeping.key, keeping.caller, error)


def keeping_of(request: Request) -> Keeping | None:
    """The key of this call; None where it has none."""
    keeping: Keeping | None = getattr(request.state, "keeping", None)
    return keeping


def derived_id(request: Request) -> bytes | None:
    """The id that what the call makes has, the first time and every time; None without a key."""
    keeping = keeping_of(request)
    return None if keeping is None else keeping.derived_id(0)


def _key_of(request: Request) -> str | None:
    keys = request.headers.getlist(HEADER)
    if not keys:
        return None
    if len(keys) > 1 or _KEY.fullmatch(keys[0]) is None:
        raise Problem(Code.INVALID_PARAMETER, f"{HEADER} is not one of 1 to 255 visible ASCII characters")
    return keys[0]


async def _fingerprint(request: Request) -> bytes:
    """SHA-256 over method, path, query and body: what makes two calls the same."""
    stream: BodyStream | None = getattr(request.state, "body", None)
    whole = request.whole if isinstance(request, JsonRequest) else b""
    body = hashlib.sha256(whole).digest() if stream is None else await stream.digest()
    told = "\n".join((request.method, request.scope["path"], request.scope["query_string"].decode("latin-1"), ""))
    return hashlib.sha256(told.encode("utf-8", "surrogateescape") + body).digest()


def _replay(kept: KeptAnswer, fingerprint: bytes) -> Response:
    if kept.fingerprint != fingerprint:
        detail = "this Idempotency-Key stood with another call: method, path, query or body differ"
        raise Problem(Code.IDEMPOTENCY_KEY_REUSED, detail)
    if kept.status == _TOLD_SECRETS:
        detail = "the call was done, and what it told is not kept: it tells secrets"
        raise Problem(Code.STATE_CONFLICT, detail)
    headers = {_REPLAYED: "true"} | ({"Location": kept.location} if kept.location else {})
    return Response(kept.body, kept.status, headers, "application/json" if kept.body else None)
