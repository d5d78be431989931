"""The SDK's time: a clock that can also call back, so that tests turn its hands instead of sleeping.

Everything that waits in the SDK waits through here. ``LoopTimers`` is the real one; a manual one for tests
has the same four methods.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from longwire.clock import Clock, SystemClock

# The event loop caps what it sleeps anyway; a deadline further away than this is asked about again.
MAX_DELAY_S = 86_400.0


class Timer(Protocol):
    """A callback that is due."""

    def cancel(self) -> None:
        """Makes it never come; harmless after it came."""
        ...


class Timers(Clock, Protocol):
    """A clock with callbacks."""

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        """Calls ``callback`` once, after ``delay_s``, from the event loop and never from within this call."""
        ...


class LoopTimers(SystemClock):
    """The machine's clock and the running loop's timers."""

    __slots__ = ()

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(min(delay_s, MAX_DELAY_S), callback)


async def pause(timers: Timers, delay_s: float) -> None:
    """Waits; cancellation leaves nothing behind."""
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end() -> None:
        if not over.done():
            over.set_result(None)

    timer = timers.call_later(delay_s, end)
    try:
        await over
    finally:
        timer.cancel()


class Deadline:
    """``async with Deadline(timers, delay_s)``: ``asyncio.timeout`` by our clock; None is no deadline.

    Raises TimeoutError from the block when the time is over; a cancellation from outside stays one.
    """

    __slots__ = ("_cancelling", "_delay_s", "_task", "_timer", "_timers", "is_over")

    def __init__(self, timers: Timers, delay_s: float | None) -> None:
        self._timers = timers
        self._delay_s = delay_s
        self._timer: Timer | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self.is_over = False

    async def __aenter__(self) -> Self:
        if self._delay_s is not None:
            self._task = asyncio.current_task()
            self._cancelling = self._task.cancelling() if self._task else 0
            self._timer = self._timers.call_later(self._delay_s, self._fire)
        return self

    def _fire(self) -> None:
        self.is_over = True
        if self._task is not None:
            self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        task, self._task = self._task, None
        if (
            self.is_over
            and task is not None
            and task.uncancel() <= self._cancelling
            and kind is not None
            and issubclass(kind, asyncio.CancelledError)
        ):
            raise TimeoutError from error
