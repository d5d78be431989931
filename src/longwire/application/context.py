"""The context: what a handler is told of its message, and what it may ask of the system.

Handlers see no node, store or socket. What they ask goes through ``Services``, five lines that the composition
root fills in, so that the same handler runs on the gateway, in the sink and in a test.
"""

import asyncio
import hashlib
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Protocol, TypeVar

from longwire.application.errors import CallEnded, NotBound, SendRefused, UnknownDevice
from longwire.application.payloads import encode, presentable
from longwire.errors import StoreUnavailable
from longwire.ids import is_device_id, message_id_text, new_message_id
from longwire.limits import MAX_KIND_CHARACTERS, MAX_TTL_S
from longwire.model import Device
from longwire.reasons import Status

T = TypeVar("T")

DEFAULT_TTL = -1
"""``ttl_s`` of the node's own default, as in SEND."""


class Services(Protocol):
    """What the composition root gives to handlers; used on the loop only."""

    async def send(
        self,
        to: str,
        kind: str,
        payload: bytes,
        *,
        message_id: bytes,
        ttl_s: int,
        collapse_key: str,
        trace: bytes,
    ) -> Status:
        """Sends a reliable message of the application to ``device:ID``, ``user:ID`` or ``group:ID``.

        OK once it is durable; DUPLICATE where the application has sent this id before, and then nothing is sent
        again; any other status where it is refused. ``ttl_s`` -1 is the node's default. Raises StoreUnavailable.
        """
        ...

    async def find_device(self, device_id: str) -> Device | None:
        """The device as it is registered now. Raises StoreUnavailable."""
        ...


class Context:
    """One call of a handler. Methods are coroutines; a sync handler runs them with ``wait``."""

    __slots__ = (
        "_content_sent",
        "_has_ended",
        "_loop",
        "_pending",
        "_services",
        "attempt",
        "device_id",
        "device_no",
        "kind",
        "message_id",
        "sent_at_ms",
        "trace",
        "user",
    )

    def __init__(
        self,
        *,
        kind: str,
        device_id: str,
        device_no: int,
        sent_at_ms: int,
        services: Services | None,
        message_id: bytes = b"",
        user: str | None = None,
        trace: bytes = b"",
        attempt: int = 1,
    ) -> None:
        self.message_id = message_id or new_message_id()
        """Names the message together with the device; the same on every attempt. New for each request."""
        self.kind = kind
        """The message's kind, or the request's method."""
        self.device_id = device_id
        self.device_no = device_no
        self.user = user
        """The user of the sender's session, where the handler runs in place. Records of the uplink log carry no
        user: there it is always None, and ``device()`` knows."""
        self.sent_at_ms = sent_at_ms
        """When the node accepted the message."""
        self.trace = trace
        """16 bytes of trace id and 8 of span id, or nothing."""
        self.attempt = attempt
        """1 on the first try since the sink started, then rising; always 1 in place."""
        self._services = services
        self._content_sent: dict[bytes, int] = {}
        self._has_ended = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pending: set[Future[object]] = set()

    @property
    def trace_id(self) -> str:
        """The trace id as W3C writes it, 32 hex digits, or ""."""
        return self.trace[:16].hex()

    async def reply(
        self, kind: str, payload: object = None, *, ttl_s: int = DEFAULT_TTL, collapse_key: str = ""
    ) -> Status:
        """A reliable message to the device that sent this one; otherwise as ``push``."""
        return await self.push(f"device:{self.device_id}", kind, payload, ttl_s=ttl_s, collapse_key=collapse_key)

    async def push(
        self,
        to: str,
        kind: str,
        payload: object = None,
        *,
        ttl_s: int = DEFAULT_TTL,
        collapse_key: str = "",
    ) -> Status:
        """A reliable message to ``device:ID``, ``user:ID`` or ``group:ID``, durable when this returns.

        The payload is bytes, text (sent as UTF-8), None (empty) or anything that JSON can say. The message id
        follows from this call's message and what is sent, so that a handler that is run again does not send the
        same thing twice: then the answer is DUPLICATE. What differs between two attempts is sent both times.

        Raises SendRefused; StoreUnavailable, after which a durable handler is run again without that counting as
        one of its attempts; CallEnded; ValueError or TypeError for what cannot be sent at all.
        """
        services = self._services_now()
        body = encode(payload)
        message_id = self._id_of(to, kind, body, collapse_key)
        return await send(services, to, kind, body, message_id, ttl_s, collapse_key, self.trace)

    async def device(self) -> Device:
        """The sender as it is registered now: user, platform, version, since when.

        Raises UnknownDevice where it is not registered any more, StoreUnavailable, CallEnded.
        """
        found = await self._services_now().find_device(self.device_id)
        if found is None:
            raise UnknownDevice(f"device {self.device_id!r} is not registered")
        return found

    def wait(self, coroutine: Coroutine[object, object, T]) -> T:
        """Runs one of the methods above from a sync handler: ``ctx.wait(ctx.reply("done"))``.

        Raises what the coroutine raises, CallEnded when the handler's budget is spent, and RuntimeError outside
        of a sync handler's thread.
        """
        loop = self._loop
        if loop is None or _runs_a_loop():
            coroutine.close()
            raise RuntimeError("ctx.wait is for sync handlers; an async one awaits")
        if self._has_ended:
            coroutine.close()
            raise CallEnded(self._ended_text())
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        self._pending.add(future)  # type: ignore[arg-type]
        try:
            if self._has_ended:  # by now; end() may have missed this one
                future.cancel()
            return future.result()
        except CancelledError as error:
            raise CallEnded(self._ended_text()) from error
        finally:
            self._pending.discard(future)

    def begin_in_thread(self) -> None:
        """Lets ``wait`` reach the running loop; called there before a sync handler is started."""
        self._loop = asyncio.get_running_loop()

    def end(self) -> None:
        """Refuses whatever the handler still asks for: its call was given up, and may be made again."""
        self._has_ended = True
        for future in tuple(self._pending):
            future.cancel()

    def log_fields(self) -> dict[str, object]:
        """What a log line about this call carries besides its text (``extra``), escaped."""
        return {
            "trace.id": self.trace_id,
            "longwire.kind": presentable(self.kind),
            "longwire.device_id": presentable(self.device_id),
            "longwire.message_id": message_id_text(self.message_id),
            "longwire.attempt": self.attempt,
        }

    def _services_now(self) -> Services:
        if self._has_ended:
            raise CallEnded(self._ended_text())
        if self._services is None:
            raise NotBound("the application is not run by a node or a sink: it cannot send or look up")
        return self._services

    def _ended_text(self) -> str:
        return f"the call for {self.kind!r} from {self.device_id!r} is over"

    def _id_of(self, to: str, kind: str, payload: bytes, collapse_key: str) -> bytes:
        """Sixteen bytes (UUIDv8) that are the same for the n-th sending of the same content by every attempt."""
        digest = hashlib.blake2b(self.device_no.to_bytes(8, "big") + self.message_id, digest_size=16)
        for part in (to.encode(), kind.encode(), payload, collapse_key.encode()):
            digest.update(len(part).to_bytes(4, "big") + part)
        content = digest.digest()
        repeat = self._content_sent.get(content, 0)
        self._content_sent[content] = repeat + 1
        tail = hashlib.blake2b(content + repeat.to_bytes(4, "big"), digest_size=10).digest()
        return (self.sent_at_ms & (1 << 48) - 1).to_bytes(6, "big") + bytes(
            [0x80 | tail[0] & 0x0F, tail[1], 0x80 | tail[2] & 0x3F, *tail[3:]]
        )


async def send(
    services: Services,
    to: str,
    kind: str,
    payload: bytes,
    message_id: bytes,
    ttl_s: int,
    collapse_key: str,
    trace: bytes = b"",
) -> Status:
    """Checks a message of the application and sends it: OK or DUPLICATE, or an exception as ``Context.push``."""
    scheme, _, name = to.partition(":")
    if scheme not in ("device", "user", "group") or not is_device_id(name):
        raise ValueError(f"to {to!r} is not device:ID, user:ID or group:ID")
    if not 1 <= len(kind) <= MAX_KIND_CHARACTERS:
        raise ValueError(f"kind of {len(kind)} characters is not 1 to {MAX_KIND_CHARACTERS} long")
    if not DEFAULT_TTL <= ttl_s <= MAX_TTL_S:
        raise ValueError(f"ttl_s {ttl_s} is not {DEFAULT_TTL} to {MAX_TTL_S}")
    status = await services.send(
        to, kind, payload, message_id=message_id, ttl_s=ttl_s, collapse_key=collapse_key, trace=trace
    )
    if status is Status.NOT_DURABLE:
        raise StoreUnavailable(f"message to {to!r} was not kept: the store does not take it now")
    if not status.is_success:
        raise SendRefused(status, to)
    return status


def _runs_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
