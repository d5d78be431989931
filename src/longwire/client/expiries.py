"""When each message of the outbox stops being worth sending: one heap and one timer for all of them."""

import heapq
from collections.abc import Callable

from longwire.client.entry import Entry
from longwire.client.timers import MAX_DELAY_S, Timer, Timers

_SPARE = 64


class Expiries:
    """``expire`` gets each entry whose time has come and whose outcome is not known."""

    __slots__ = ("_at_ms", "_expire", "_heap", "_timer", "_timers")

    def __init__(self, timers: Timers, expire: Callable[[Entry], None]) -> None:
        self._timers = timers
        self._expire = expire
        self._heap: list[tuple[int, int, Entry]] = []
        self._timer: Timer | None = None
        self._at_ms = 0

    def add(self, entry: Entry, alive: int) -> None:
        """Watches an entry. ``alive``: how many there are; the heap holds at most twice that, and some."""
        if len(self._heap) > 2 * alive + _SPARE:
            self._heap = [item for item in self._heap if not item[2].is_over]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (entry.expires_at_ms, entry.message.seq, entry))
        if self._timer is None or entry.expires_at_ms < self._at_ms:
            self._plan()

    def clear(self) -> None:
        """Watches nothing any more."""
        self._heap.clear()
        self._plan()

    def _plan(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._heap and self._heap[0][2].is_over:
            heapq.heappop(self._heap)
        if self._heap:
            self._at_ms = self._heap[0][0]
            delay_s = max(0, self._at_ms - self._timers.now_ms()) / 1000
            self._timer = self._timers.call_later(min(delay_s, MAX_DELAY_S), self._look)

    def _look(self) -> None:
        now_ms = self._timers.now_ms()
        while self._heap and self._heap[0][0] <= now_ms:
            entry = heapq.heappop(self._heap)[2]
            if not entry.is_over:
                self._expire(entry)
        self._plan()
