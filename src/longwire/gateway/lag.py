"""How long the loop was held: looks at itself a hundred times a second and notes how late it was called.

The longest lateness is the longest time that one callback, the collector or the machine kept everybody else waiting,
to within the interval.
"""

import asyncio
import gc
import time

from longwire.histogram import Histogram
from longwire.meters import UNIT_S

_INTERVAL_S = 0.01
_RECENT_S = 10.0


class LoopWatch:
    """The loop's lateness and the collector's pauses, in seconds. Started and stopped with the node."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self.longest_pause_s = 0.0
        self.lag = Histogram()
        """How late each look was; in meters.UNIT_S, as the pauses."""
        self.pauses = Histogram()
        self._recent_s = self._before_s = 0.0
        self._recent_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._collecting_since = 0.0

    def start(self) -> None:
        """Begins to look, on the running loop."""
        gc.callbacks.append(self._collected)
        self._look_again(asyncio.get_running_loop())

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            gc.callbacks.remove(self._collected)

    @property
    def recent_s(self) -> float:
        """How late the loop was at the most in the last ten to twenty seconds."""
        return max(self._recent_s, self._before_s)

    def _look_again(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = loop.time() + _INTERVAL_S
        self._timer = loop.call_later(_INTERVAL_S, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        late_s = loop.time() - self._due
        self.longest_s = max(self.longest_s, late_s)
        self.lag.add(late_s / UNIT_S)
        if loop.time() - self._recent_since > _RECENT_S:
            self._recent_since, self._before_s, self._recent_s = loop.time(), self._recent_s, 0.0
        self._recent_s = max(self._recent_s, late_s)
        self._look_again(loop)

    def _collected(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting_since = time.monotonic()
        else:
            pause_s = time.monotonic() - self._collecting_since
            self.longest_pause_s = max(self.longest_pause_s, pause_s)
            self.pauses.add(pause_s / UNIT_S)
