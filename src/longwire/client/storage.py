"""What a device keeps: its outbox, the names of the messages it has handled, its credentials.

``Storage`` is the seam; ``MemoryStorage`` keeps it until the process ends, ``state_file.StateFile`` across
crashes. Whatever asks to be told gets its ``done`` in the order of the calls, whichever method was called, so
that the order of messages holds across the disk.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple, Protocol

from msgspec import Struct

Done = Callable[[Exception | None], None]
"""Called once from the event loop: None when it is kept as firmly as this storage can, else why it is not."""

MEMORY_OF_MESSAGES = 4_096


class Stored(Struct, gc=False):
    """A message of the outbox, as it is kept."""

    seq: int
    """Its place: messages go out in this order."""
    message_id: bytes
    to: str
    kind: str
    payload: bytes
    ttl_s: int
    collapse_key: str
    taken_at_ms: int
    """When ``send`` took it, in ms since the Unix epoch."""
    why_aside: str = ""
    """Not empty: it is set aside, for this reason."""


class Kept(NamedTuple):
    """What a storage holds when it is opened."""

    outbox: list[Stored]
    """By ``seq``; those that are set aside too."""
    handled: list[bytes]
    """Oldest first, at most ``MEMORY_OF_MESSAGES``."""
    values: dict[str, str]


def done_sets(future: asyncio.Future[None]) -> Done:
    """A ``done`` that resolves ``future``, whether it was kept or not."""

    def done(error: Exception | None) -> None:
        if not future.done():
            future.set_result(None)

    return done


class Storage(Protocol):
    """Keeps things for one device. Only ``open`` and ``close`` wait; nothing else raises."""

    async def open(self, device_id: str) -> Kept:
        """Reads everything. Raises StateError where it cannot be used, or belongs to another device."""
        ...

    def put(self, message: Stored, done: Done) -> None:
        """Keeps a message of the outbox."""
        ...

    def mark(self, done: Done) -> None:
        """Keeps nothing; ``done`` takes its turn."""
        ...

    def remove(self, message_id: bytes) -> None:
        """Forgets a message of the outbox; a crash may bring it back (the node drops the repeat)."""
        ...

    def set_aside(self, message_id: bytes, why: str) -> None:
        """Marks a message so that it is not sent; "" takes the mark away."""
        ...

    def remember(self, key: bytes, done: Done) -> None:
        """Adds to the names of the messages that were handled; the oldest beyond the bound go."""
        ...

    def keep(self, name: str, value: str, done: Done | None = None) -> None:
        """Sets a named value."""
        ...

    async def close(self) -> None:
        """Writes what is left to write."""
        ...


class MemoryStorage:
    """Keeps nothing: what is in memory already is as firm as it gets. ``done`` comes within the call."""

    __slots__ = ()

    async def open(self, device_id: str) -> Kept:
        return Kept([], [], {})

    def put(self, message: Stored, done: Done) -> None:
        done(None)

    def mark(self, done: Done) -> None:
        done(None)

    def remove(self, message_id: bytes) -> None:
        pass

    def set_aside(self, message_id: bytes, why: str) -> None:
        pass

    def remember(self, key: bytes, done: Done) -> None:
        done(None)

    def keep(self, name: str, value: str, done: Done | None = None) -> None:
        if done is not None:
            done(None)

    async def close(self) -> None:
        pass
