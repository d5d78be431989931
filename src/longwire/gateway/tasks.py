"""The owner of the node's tasks: starts them, logs the ones that fail, cancels and awaits them at the end."""

import asyncio
import logging
from collections.abc import Coroutine

log = logging.getLogger(__name__)

_CANCELLED_WITHIN_S = 0.5


class Tasks:
    """Tasks that nobody awaits one by one."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[None, None, None], what: str) -> None:
        """Runs ``work``; should it raise, that is logged as a failure of ``what``."""
        task = asyncio.get_running_loop().create_task(work, name=what)
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)

    async def stop(self, within_s: float) -> None:
        """Lets the tasks end by themselves for ``within_s``, then cancels them; none can hold this up."""
        if self._running:
            await asyncio.wait(self._running, timeout=within_s)
        for task in list(self._running):
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=_CANCELLED_WITHIN_S)
        if self._running:
            log.warning("%d tasks would not end and are left behind", len(self._running))
