"""The check: a page of segments a minute, whether counts and bitmaps still say the same.

They do by construction (funnel.py). What this finds is a fault of ours or a damaged database, and an operator's
business: it is logged and counted, nothing is changed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.ports.pushes import PushStore

logger = logging.getLogger("longwire.push")

Sleep = Callable[[float], Awaitable[None]]

_EVERY_S = 60.0
_SEGMENTS = 200


class Check:
    """Compares in the background. ``drift`` counts what did not add up since the start; shown in ``/v1/stats``."""

    def __init__(
        self, store: PushStore, clock: Clock, sleep: Sleep = asyncio.sleep, leads: Callable[[], bool] = lambda: True
    ) -> None:
        """``leads``: whether this process is the one that looks."""
        self.drift = 0
        self._store = store
        self._clock = clock
        self._sleep = sleep
        self._leads = leads
        self._at = (0, -1)

    async def run(self) -> None:
        """A page every minute, until cancelled."""
        while True:
            await self._sleep(_EVERY_S)
            if not self._leads():
                continue
            try:
                await self.look()
            except StoreUnavailable as error:
                logger.warning("the counts of pushes are not checked: %s", error)

    async def look(self) -> list[str]:
        """Looks at the next page, from the first again behind the last; what does not add up."""
        found, after = await self._store.drift(self._at, _SEGMENTS, self._clock.now_ms())
        self._at = after or (0, -1)
        self.drift += len(found)
        for fault in found:
            logger.error("a push does not add up: %s", fault)
        return found
