"""One message of the outbox: where it stands, who waits for it, and how it looks on the wire."""

import asyncio

import msgspec

from longwire.client.errors import ClientError, refused
from longwire.client.message import SendResult
from longwire.client.storage import Stored
from longwire.reasons import Status
from longwire.wire.packets import Send

Outcome = SendResult | ClientError

_encode = msgspec.msgpack.Encoder().encode
# More than the array, the id, the numbers and the heads of the strings can take.
_SURELY_ENOUGH_BYTES = 64


class Entry:
    """A message of the outbox. Sorts by its place."""

    __slots__ = ("attempts", "expires_at_ms", "is_written", "message", "outcome", "strikes", "waiters")

    def __init__(self, message: Stored, expires_at_ms: int) -> None:
        self.message = message
        self.expires_at_ms = expires_at_ms
        self.is_written = False
        """On the connection there is, and not answered."""
        self.outcome: Outcome | None = None
        self.attempts = 0
        """How often the node refused it for now."""
        self.strikes = 0
        """How often a connection was closed 4009-4011 while this was a suspect."""
        self.waiters: list[asyncio.Future[SendResult]] = []

    def __lt__(self, other: "Entry") -> bool:
        return self.message.seq < other.message.seq

    @property
    def is_over(self) -> bool:
        """Whether its outcome is known; it may still stand in a queue, which then drops it."""
        return self.outcome is not None

    def tell(self, outcome: Outcome) -> bool:
        """Gives those who wait an outcome; whether there was anyone."""
        waiting = [waiter for waiter in self.waiters if not waiter.done()]
        for waiter in waiting:
            if isinstance(outcome, ClientError):
                waiter.set_exception(outcome)
            else:
                waiter.set_result(outcome)
        return bool(waiting)

    def packet(self, now_ms: int) -> Send:
        """The SEND to write now. What is left of the TTL travels, for it counts from ``Device.send``."""
        message = self.message
        ttl_s = message.ttl_s
        if ttl_s > 0:
            ttl_s = min(ttl_s, max(1, -(-(self.expires_at_ms - now_ms) // 1000)))
        return Send(message.message_id, message.to, message.kind, message.payload, ttl_s, message.collapse_key)


def check_size(message: Stored | Send, max_body_bytes: int) -> None:
    """Raises TooLarge where no frame of ``max_body_bytes`` can hold the message."""
    words = 4 * (len(message.to) + len(message.kind) + len(message.collapse_key))
    if len(message.payload) + words + _SURELY_ENOUGH_BYTES <= max_body_bytes:
        return
    m = message
    size = len(_encode(Send(m.message_id, m.to, m.kind, m.payload, m.ttl_s, m.collapse_key)))
    if size > max_body_bytes:
        raise refused(Status.TOO_LARGE, f"body of {size} bytes exceeds {max_body_bytes}")
