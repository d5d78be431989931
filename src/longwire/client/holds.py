"""Messages that the node refused for now, and those held back behind them so that order lasts.

A hold is on one target (status 14: its inbox is full) or on everything (13, 20). It ends when the longest
``retry_after`` of those in it is over; then all that it kept is released, in the order of the outbox.
"""

import random
from collections.abc import Callable

from longwire.client.entry import Entry
from longwire.client.timers import Timer, Timers

_BASE_S = 0.25
_MAX_S = 30.0


class _Hold:
    __slots__ = ("entries", "timer", "until")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.until = 0.0
        self.timer: Timer | None = None


class Holds:
    """``release`` gets what a hold kept, sorted, from a timer."""

    __slots__ = ("_holds", "_random", "_release", "_timers")

    def __init__(self, timers: Timers, rng: random.Random, release: Callable[[list[Entry]], None]) -> None:
        self._timers = timers
        self._random = rng
        self._release = release
        self._holds: dict[str | None, _Hold] = {}

    @property
    def holds_all(self) -> bool:
        """Whether nothing at all may go out now."""
        return None in self._holds

    def hold(self, target: str | None, entry: Entry, retry_after_ms: int) -> None:
        """Keeps a refused message and holds back its target, or with None everything.

        Where the node named no time: a quarter of a second, twice that at each refusal, at most 30 s, jittered.
        """
        delay_s = retry_after_ms / 1000
        if delay_s <= 0:
            bound = min(_MAX_S, _BASE_S * 2 ** min(entry.attempts, 10))
            delay_s = self._random.uniform(bound / 2, bound)
        hold = self._holds.setdefault(target, _Hold())
        hold.entries.append(entry)
        hold.until = max(hold.until, self._timers.monotonic() + delay_s)
        if hold.timer is None:
            hold.timer = self._timers.call_later(delay_s, lambda: self._end(target, hold))

    def keep(self, target: str, entry: Entry) -> bool:
        """Keeps a message whose target is held back; whether it is."""
        hold = self._holds.get(target)
        if hold is not None:
            hold.entries.append(entry)
        return hold is not None

    def clear(self) -> None:
        """Ends every hold without releasing anything."""
        for hold in self._holds.values():
            if hold.timer is not None:
                hold.timer.cancel()
        self._holds.clear()

    def _end(self, target: str | None, hold: _Hold) -> None:
        left_s = hold.until - self._timers.monotonic()
        if left_s > 0.001:
            hold.timer = self._timers.call_later(left_s, lambda: self._end(target, hold))
            return
        del self._holds[target]
        self._release(sorted(entry for entry in hold.entries if not entry.is_over))
