"""Messages that the node refused for now, and those held back behind them so that order lasts.

``Holds``: by target, where its inbox is full (14). ``Standstill``: everything, where the session was too fast
or the store did not take it (13, 20).

    refused ─► kept until retry_after is over ─► the first goes out alone ─► SENT ─► the next one alone ...
                      ▲                                 │ refused again                └─ 16 times: all
                      └─────────────────────────────────┘

One at a time, for of several on the way some might be refused and later ones not.
"""

import heapq
import random
from collections.abc import Callable

from longwire.client.entry import Entry
from longwire.client.timers import Timer, Timers

BASE_S = 0.25
MAX_S = 30.0
CAREFUL = 16
"""How many messages in a row go out one at a time after a refusal."""


def retry_delay_s(entry: Entry, retry_after_ms: int, rng: random.Random) -> float:
    """How long to keep a refused message.

    Where the node names no time: a quarter of a second, twice that at each refusal, at most 30 s, jittered.
    """
    if retry_after_ms > 0:
        return retry_after_ms / 1000
    bound = min(MAX_S, BASE_S * 2 ** min(entry.attempts, 10))
    return rng.uniform(bound / 2, bound)


class _Hold:
    __slots__ = ("entries", "probe", "successes", "timer", "until")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.probe: Entry | None = None
        self.successes = 0
        self.timer: Timer | None = None
        self.until = 0.0


class Holds:
    """``release`` gets, sorted, the entries that may go out now."""

    __slots__ = ("_holds", "_random", "_release", "_timers")

    def __init__(self, timers: Timers, rng: random.Random, release: Callable[[list[Entry]], None]) -> None:
        self._timers = timers
        self._random = rng
        self._release = release
        self._holds: dict[str, _Hold] = {}

    def hold(self, entry: Entry, retry_after_ms: int) -> None:
        """Keeps a refused message, and from now on those to its target."""
        delay_s = retry_delay_s(entry, retry_after_ms, self._random)
        target = entry.message.to
        hold = self._holds.setdefault(target, _Hold())
        hold.successes = 0
        if hold.probe is entry:
            hold.probe = None
        heapq.heappush(hold.entries, entry)
        hold.until = max(hold.until, self._timers.monotonic() + delay_s)
        if hold.timer is None:
            hold.timer = self._timers.call_later(delay_s, lambda: self._time_is_over(target, hold))

    def keep(self, entry: Entry) -> bool:
        """Keeps a message whose target is held back; whether it is."""
        hold = self._holds.get(entry.message.to)
        if hold is None or hold.probe is entry:
            return False
        heapq.heappush(hold.entries, entry)
        return True

    def resolved(self, entry: Entry) -> None:
        """The outcome of a message is known; if it was the one that went alone, the next one may go."""
        target = entry.message.to
        hold = self._holds.get(target)
        if hold is None or hold.probe is not entry:
            return
        hold.probe = None
        hold.successes += 1
        if hold.timer is None:
            self._let_go(target, hold)

    def clear(self) -> None:
        """Ends every hold without releasing anything."""
        for hold in self._holds.values():
            if hold.timer is not None:
                hold.timer.cancel()
        self._holds.clear()

    def _time_is_over(self, target: str, hold: _Hold) -> None:
        left_s = hold.until - self._timers.monotonic()
        if left_s > 0.001:
            hold.timer = self._timers.call_later(left_s, lambda: self._time_is_over(target, hold))
            return
        hold.timer = None
        if hold.probe is None:
            self._let_go(target, hold)

    def _let_go(self, target: str, hold: _Hold) -> None:
        while hold.entries and hold.entries[0].is_over:
            heapq.heappop(hold.entries)
        if hold.entries and hold.successes < CAREFUL:
            hold.probe = heapq.heappop(hold.entries)
            self._release([hold.probe])
        else:
            del self._holds[target]
            self._release(sorted(entry for entry in hold.entries if not entry.is_over))


class Standstill:
    """Nothing goes out for a while, and one at a time after that."""

    __slots__ = ("_careful", "_entries", "_random", "_release", "_timer", "_timers", "_until")

    def __init__(self, timers: Timers, rng: random.Random, release: Callable[[list[Entry]], None]) -> None:
        self._timers = timers
        self._random = rng
        self._release = release
        self._entries: list[Entry] = []
        self._careful = 0
        self._timer: Timer | None = None
        self._until = 0.0

    @property
    def is_on(self) -> bool:
        """Whether nothing may go out now."""
        return self._timer is not None

    @property
    def is_careful(self) -> bool:
        """Whether messages go one at a time."""
        return self._careful > 0

    def hold(self, entry: Entry, retry_after_ms: int) -> None:
        """Keeps a refused message, and lets nothing go until its time."""
        delay_s = retry_delay_s(entry, retry_after_ms, self._random)
        self._careful = CAREFUL
        self._entries.append(entry)
        self._until = max(self._until, self._timers.monotonic() + delay_s)
        if self._timer is None:
            self._timer = self._timers.call_later(delay_s, self._time_is_over)

    def resolved(self) -> None:
        """The outcome of a message is known."""
        if self._careful and self._timer is None:
            self._careful -= 1

    def clear(self) -> None:
        """Ends without releasing anything."""
        if self._timer is not None:
            self._timer.cancel()
        self._entries.clear()

    def _time_is_over(self) -> None:
        left_s = self._until - self._timers.monotonic()
        if left_s > 0.001:
            self._timer = self._timers.call_later(left_s, self._time_is_over)
            return
        self._timer = None
        entries, self._entries = self._entries, []
        self._release(sorted(entry for entry in entries if not entry.is_over))
