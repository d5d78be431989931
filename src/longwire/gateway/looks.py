"""When a node of a cluster looks whether what it takes for true still is: its routes, the inboxes, the pushes.

Every half minute, at a moment of its own; and every two seconds while a look is owed: one did not get through, the
list of nodes had been out of date, or the process stood still so long that others may have taken it for dead.
"""

import logging
import random
from collections.abc import Awaitable, Callable, Mapping

from longwire.clock import Clock
from longwire.errors import LongwireError
from longwire.gateway.tasks import Tasks
from longwire.ports.registry import Registry

log = logging.getLogger(__name__)

EVERY_S = 30.0
OWED_EVERY_S = 2.0
_STOOD_STILL_S = 5.0

Look = Callable[[], Awaitable[None]]
"""Raises StoreUnavailable."""


class Looks:
    """Takes the looks one after another, each whatever became of the one before."""

    def __init__(self, looks: Mapping[str, Look], registry: Registry, clock: Clock, tasks: Tasks) -> None:
        self._looks = looks
        self._registry = registry
        self._clock = clock
        self._tasks = tasks
        self._is_owed = False
        self._is_running = False
        self._was_stale = False
        self._ticked_at = self._began_at = clock.monotonic()
        self._next_at = self._ticked_at + random.uniform(0, EVERY_S)  # noqa: S311
        self.failing: set[str] = set()
        """The looks that did not get through the last time."""

    def owe(self) -> None:
        """Something may have been missed: looks within the next two seconds."""
        self._is_owed = True

    def tick(self) -> None:
        """To be called every TICK_S."""
        now = self._clock.monotonic()
        is_stale = self._registry.stale_since_ms is not None
        if now - self._ticked_at > _STOOD_STILL_S or (self._was_stale and not is_stale):
            self._is_owed = True
        self._ticked_at, self._was_stale = now, is_stale
        is_due = now >= self._next_at or (self._is_owed and now - self._began_at >= OWED_EVERY_S)
        if is_due and not self._is_running:
            self._is_running = True
            self._began_at, self._next_at = now, now + EVERY_S
            self._tasks.start(self._run(), "the looks at routes, inboxes and pushes")

    async def _run(self) -> None:
        self._is_owed = False
        try:
            for name, look in self._looks.items():
                await self._take(name, look)
        finally:
            self._is_running = False

    async def _take(self, name: str, look: Look) -> None:
        try:
            await look()
        except LongwireError as error:
            if name not in self.failing:
                log.warning("the look at %s did not get through: %s", name, error)
            self.failing.add(name)
            self._is_owed = True
        else:
            self.failing.discard(name)
