"""Time: one clock a process, whose wall time never jumps.

Wall time is read once, at start, and carried on by the monotonic clock, so that a jump of the machine's wall
clock moves no deadline while the process runs (DESIGN §7). After a restart the wall clock is believed again.
``drift_ms`` says how far the two have come apart; an operator who sees it restarts the node.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """What the rest of the system may ask about time."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch, never falling."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never falling."""
        ...


class SystemClock:
    """The machine's clock, anchored at construction."""

    __slots__ = ("_offset_ms", "monotonic")

    def __init__(self) -> None:
        # The function itself: the hot path pays no call of ours around it.
        self.monotonic = time.monotonic
        self._offset_ms = time.time() * 1000 - time.monotonic() * 1000

    def now_ms(self) -> int:
        return int(time.monotonic() * 1000 + self._offset_ms)

    def drift_ms(self) -> int:
        """How far the wall clock has moved away from this one; positive when the wall is ahead."""
        return round(time.time() * 1000) - self.now_ms()
