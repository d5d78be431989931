"""Hints of who has something waiting: one bit a device, so that a connect costs no query (DESIGN §7).

SQL is the truth. A hint may say yes for nothing, but never no while something waits:

    sender     commit ─► add ─► looks the route up
    receiver   attach ─► who_may_wait ─► yes: asks the store
    ending     ask ─► asks the store ─► clear for whom nothing was found

What was added between ``ask`` and ``clear`` stays. A segment whose hints are not known to be whole (the engine is
new or has lost them) reads as all ones until it is rebuilt from the store. What this cannot cover, a sender that dies
between its commit and ``add`` or an engine that lost its last writes and not its marks, falls to the safety net, which
asks the store itself each minute.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from msgspec import Struct
from pyroaring import BitMap

SegmentQuery = Callable[[int], Awaitable[BitMap]]
"""Asks the store for whom of a segment something waits. Raises StoreUnavailable."""


class Ask(Struct, frozen=True, gc=False):
    """A question to the store that is under way."""

    ticket: int
    device_nos: tuple[int, ...]


class WaitingHints(Protocol):
    """The hints for one kind of what waits."""

    def add(self, device_nos: Sequence[int] | BitMap, done: Callable[[], None]) -> None:
        """Something that waits for these is committed; ``done`` runs on the loop when the hints stand.

        The dones run in the order of the calls; in memory before this returns. Where the engine is away, ``done``
        runs after at most its timeout all the same, and the hints are kept, bounded as bitmaps, and said again.
        """
        ...

    async def who_may_wait(self, device_nos: Sequence[int]) -> set[int]:
        """Those of the devices for whom something may wait. Raises StoreUnavailable."""
        ...

    async def may_wait(self, devices: BitMap) -> BitMap:
        """The same for many. Raises StoreUnavailable."""
        ...

    async def ask(self, device_nos: Sequence[int]) -> Ask:
        """To be called before the store is asked whether anything waits for these. Never raises for the engine."""
        ...

    async def clear(self, ask: Ask, device_nos: Sequence[int]) -> None:
        """For these of the ask the store had nothing: their hints go, but where something was added since.

        Never raises for the engine: a hint too many costs a query.
        """
        ...

    async def rebuild(self, segment: int, query: SegmentQuery) -> bool:
        """Makes the segment's hints what the store says, and what is added meanwhile.

        False where it was not done: another is at it, or the engine lost the segment meanwhile. Raises
        StoreUnavailable of either.
        """
        ...

    async def run(self, query: SegmentQuery) -> None:
        """Until it is cancelled: says again what could not be said, and rebuilds segments that are not whole."""
        ...
