"""Counts what waits in the store twice a minute, for the metrics and the console."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from longwire.errors import StoreUnavailable
from longwire.ports.backlog import Backlog, BacklogStore

log = logging.getLogger(__name__)

EVERY_S = 30.0
_AGAIN_S = 2.0
"""Where there is no count: whether this process leads meanwhile, or the store answers."""

Sleep = Callable[[float], Awaitable[None]]


class BacklogWatch:
    """``latest`` is the last count; None before the first, and where the store does not answer."""

    def __init__(
        self,
        store: BacklogStore,
        *,
        leads: Callable[[], bool] = lambda: True,
        always: bool = True,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """``leads``: whether this is the process whose metrics tell; ``always``: whether it counts where it is not."""
        self.leads = leads
        self.latest: Backlog | None = None
        self._store = store
        self._always = always
        self._sleep = sleep

    async def run(self) -> None:
        """Counts until it is cancelled."""
        while True:
            await self.look()
            await self._sleep(_AGAIN_S if self.latest is None else EVERY_S)

    async def look(self) -> None:
        """Counts once, where somebody wants it."""
        latest = None
        if self._always or self.leads():
            try:
                latest = await self._store.look()
            except StoreUnavailable as error:
                log.debug("what waits is not counted: %s", error)
        self.latest = latest
