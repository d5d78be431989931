"""Pushes as workers see them: segments under leases, what is due, what is over. Raises StoreUnavailable."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct
from pyroaring import BitMap

from longwire.push_model import Claim, Dispatched, Goes, NewPush


class Due(Struct, frozen=True):
    """A scheduled push whose time has come."""

    push_no: int
    lease_no: int
    new: NewPush


class PushWork(Protocol):
    """A worker that dies leaves leases that run out; what it did is done again, and merges the same."""

    async def wait(self, within_s: float) -> None:
        """Returns when there may be something to claim, at the latest after ``within_s``."""
        ...

    async def claim(self, worker: str, limit: int, lease_ms: int, now_ms: int) -> list[Claim]:
        """Segments that are nobody's or whose lease is over, by priority, then age. A push that is paced gives one
        segment at a time."""
        ...

    async def dispatched(self, done: Dispatched, now_ms: int) -> Goes:
        """Merges what was written, whoever holds the lease; moves the segment on only for its holder."""
        ...

    async def give_back(self, claim: Claim, not_before_ms: int, error: str) -> None:
        """Ends the lease; the segment may be claimed from ``not_before_ms`` on.

        At the tenth error in a row (``""`` is none) the segment is done: ``claim.targets`` that were not written to
        have failed, the others still get the push when they come back.
        """
        ...

    async def due(self, now_ms: int, lease_ms: int, limit: int) -> Sequence[Due]:
        """Scheduled pushes whose time has come, for this caller alone while the lease lasts."""
        ...

    async def begin(self, due: Due, devices: BitMap, unresolved: int, sample: Sequence[str], now_ms: int) -> bool:
        """Gives a due push its audience and starts it; False where the lease is over: somebody else did or will."""
        ...

    async def give_up(self, due: Due, reason: str, now_ms: int) -> None:
        """A due push that cannot be resolved is failed."""
        ...

    async def close(self, now_ms: int, limit: int) -> int:
        """Ends pushes whose time to live is over; how many."""
        ...

    async def half_canceled(self, limit: int) -> Sequence[int]:
        """Pushes that were canceled and whose cancelling was never finished."""
        ...

    async def next_moment_ms(self) -> int | None:
        """When the next push is due or over; None where none is."""
        ...
