"""A clock that moves when a test says so, and a sleep that waits for it.

    clock = ManualClock()
    sink = Sink(log, app, clock=clock, sleep=clock.sleep)
    await clock.run_for(0.2)         # everything that this time makes due has happened

``advance`` is for plain code; ``run_for`` is for coroutines: it goes from one sleeper's moment to the next and
lets the loop run at each, as time would.
"""

import asyncio
import heapq
import itertools

_NS = 1_000_000_000
SETTLE_TURNS = 64


class ManualClock:
    """Implements ``longwire.clock.Clock``; time never passes by itself. For one event loop at a time."""

    def __init__(self, now_ms: int = 1_764_000_000_000) -> None:
        self._now_ns = 0
        self._epoch_ms = now_ms
        self._order = itertools.count()
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch; at first the ``now_ms`` it was made with."""
        return self._epoch_ms + self._now_ns // 1_000_000

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._now_ns / _NS

    @property
    def sleepers(self) -> int:
        """How many coroutines wait in ``sleep``."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        """Waits until the clock has been moved on by ``seconds``; 0 or less only lets the loop turn."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now_ns + round(seconds * _NS), next(self._order), future))
        await future

    def advance(self, seconds: float) -> None:
        """Moves the clock on at once and wakes whose time has come; they run when the loop next turns.

        A coroutine that sleeps in a loop wakes once, however far the clock moved. Raises ValueError for a step back.
        """
        if seconds < 0:
            raise ValueError(f"the clock cannot go back by {-seconds} s")
        self._now_ns += round(seconds * _NS)
        while self._sleepers and self._sleepers[0][0] <= self._now_ns:
            future = heapq.heappop(self._sleepers)[2]
            if not future.done():
                future.set_result(None)

    async def run_for(self, seconds: float) -> None:
        """Moves the clock on from one sleeper's moment to the next, letting the loop settle at each."""
        end_ns = self._now_ns + round(seconds * _NS)
        await settle()
        while (due_ns := self._next_due_ns()) is not None and due_ns <= end_ns:
            self.advance((due_ns - self._now_ns) / _NS)
            await settle()
        self.advance((end_ns - self._now_ns) / _NS)
        await settle()

    def _next_due_ns(self) -> int | None:
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)  # cancelled
        return self._sleepers[0][0] if self._sleepers else None


async def settle(turns: int = SETTLE_TURNS) -> None:
    """Lets the loop turn until what can go on without time, sockets or threads has gone on."""
    for _ in range(turns):
        await asyncio.sleep(0)
