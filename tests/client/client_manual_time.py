"""A clock that stands still until a test moves it, and waiting for what the loop has still to do."""

import asyncio
import heapq
from collections.abc import Callable
from itertools import count


class ManualTimer:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class ManualTimers:
    """``longwire.client.timers.Timers`` whose hands a test turns."""

    def __init__(self, now_ms: int = 1_764_000_000_000) -> None:
        self._start_ms = now_ms
        self._now_s = 0.0
        self._due: list[tuple[float, int, ManualTimer]] = []
        self._order = count()

    def now_ms(self) -> int:
        return self._start_ms + int(self._now_s * 1000)

    def monotonic(self) -> float:
        return 1_000.0 + self._now_s

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> ManualTimer:
        timer = ManualTimer(callback)
        heapq.heappush(self._due, (self._now_s + max(delay_s, 0.0), next(self._order), timer))
        return timer

    @property
    def delays(self) -> list[float]:
        """In how many seconds each timer is due, the next one first."""
        return [at - self._now_s for at, _, timer in sorted(self._due) if timer.callback is not None]

    async def advance(self, seconds: float) -> None:
        """Moves on, and stops at every timer on the way so that what it sets off happens in its time."""
        await settle()
        end = self._now_s + seconds
        while self._due and self._due[0][0] <= end:
            at, _, timer = heapq.heappop(self._due)
            self._now_s = max(self._now_s, at)
            if timer.callback is not None:
                timer.callback()
                await settle()
        self._now_s = end
        await settle()


async def settle() -> None:
    """Lets the loop do all that is ready, what comes over loopback sockets included."""
    for _ in range(5):
        await asyncio.sleep(0)
    await asyncio.sleep(0.002)


async def until(fact: Callable[[], object], timeout_s: float = 5.0) -> None:
    """Waits until ``fact`` holds; the wait is for real sockets and files, never for the clock under test."""
    async with asyncio.timeout(timeout_s):
        while not fact():
            await asyncio.sleep(0.001)
