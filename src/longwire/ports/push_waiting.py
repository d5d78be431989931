"""Live pushes as nodes see them: for whom something waits, and what."""

from collections.abc import Sequence
from typing import Protocol

from pyroaring import BitMap

from longwire.push_model import LivePush, PushQuery


class PushWaiting(Protocol):
    """Its memory does not grow with live pushes times devices."""

    async def who_may_wait(self, device_nos: Sequence[int]) -> set[int]:
        """Those of the devices for whom a push may wait: a hint, from memory, that never errs towards no.

        Raises StoreUnavailable.
        """
        ...

    async def online_waiting(self, online: BitMap) -> BitMap:
        """The same for all who are online, for the safety net. Raises StoreUnavailable."""
        ...

    async def waiting(self, queries: Sequence[PushQuery], now_ms: int) -> list[list[int]]:
        """For each query the live pushes behind ``after_push_no`` that target the device, which has not acknowledged
        them; oldest first, at most ``limit``. Paused ones are left out, and of paced ones those whose turn has not
        come. Raises StoreUnavailable.
        """
        ...

    async def messages(self, push_nos: Sequence[int], now_ms: int) -> list[LivePush | None]:
        """The pushes; None for one that has ended. Raises StoreUnavailable.

        One that ended because the last of its devices was deleted may still be given: it waits for nobody.
        """
        ...
