"""The schedule: begins what is due, closes what is over, finishes what was canceled by half.

Each step is guarded by the store: a push fires once, whoever runs this and however often it is interrupted.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from longwire.accounts.refusals import Refused
from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.ports.link import Link
from longwire.ports.push_work import Due, PushWork
from longwire.ports.pushes import PushStore
from longwire.push.audience import Audiences
from longwire.push.ending import finish_cancel

logger = logging.getLogger("longwire.push")

Sleep = Callable[[float], Awaitable[None]]

_EVERY_S = 0.25
_SWEEP_EVERY_S = 5.0
_LEASE_MS = 60_000
_PAGE = 100
_ATTEMPTS = 5


class Schedule:
    """Runs in every process that has workers."""

    def __init__(
        self,
        work: PushWork,
        store: PushStore,
        audiences: Audiences,
        link: Link,
        clock: Clock,
        sleep: Sleep = asyncio.sleep,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        """``leads``: whether this process looks for what was canceled by half; the store fences everything else."""
        self._work = work
        self._store = store
        self._audiences = audiences
        self._link = link
        self._clock = clock
        self._sleep = sleep
        self._leads = leads
        self._swept_at: float | None = None
        self._half_canceled: set[int] = set()
        self._is_away = False

    async def run(self) -> None:
        """Looks four times a second, until cancelled."""
        while True:
            try:
                await self.look()
            except StoreUnavailable as error:
                if not self._is_away:
                    logger.warning("scheduled pushes wait for the store: %s", error)
                self._is_away = True
            else:
                self._is_away = False
            await self._sleep(_EVERY_S)

    async def look(self) -> None:
        """Does what is to be done now. Raises StoreUnavailable."""
        now_ms, now = self._clock.now_ms(), self._clock.monotonic()
        moment_ms = await self._work.next_moment_ms()
        is_sweep = self._swept_at is None or now - self._swept_at >= _SWEEP_EVERY_S
        if is_sweep:
            if self._leads():
                await self._finish_half_canceled(now_ms)
            self._swept_at = now
        if is_sweep or (moment_ms is not None and moment_ms <= now_ms):
            while await self._work.close(now_ms, _PAGE) == _PAGE:
                pass
            for due in await self._work.due(now_ms, _LEASE_MS, _PAGE):
                await self._begin(due)

    async def _finish_half_canceled(self, now_ms: int) -> None:
        """Those that were so at the last sweep already: their caller has died. At the start, all."""
        found = set(await self._work.half_canceled(_PAGE))
        left = found if self._swept_at is None else found & self._half_canceled
        for push_no in left:
            await finish_cancel(self._store, self._link, push_no, now_ms)
        self._half_canceled = found - left

    async def _begin(self, due: Due) -> None:
        """One push that fails must not keep the others."""
        try:
            resolved = await self._audiences.resolve(due.new.audience)
            await self._work.begin(due, resolved.devices, resolved.unresolved, resolved.sample, self._clock.now_ms())
        except Refused as refused:
            await self._work.give_up(due, f"{refused.code}: {refused}", self._clock.now_ms())
        except StoreUnavailable as error:
            # The lease runs out and it is taken again.
            logger.warning("push %s did not begin: %s", due.new.push_id.hex(), error)
            if due.lease_no >= _ATTEMPTS:
                await self._work.give_up(
                    due, f"its audience was not found in {_ATTEMPTS} attempts", self._clock.now_ms()
                )
