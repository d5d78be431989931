"""Token buckets by name, a float each: how often a key, an address or an id may do something.

The generic cell rate algorithm (ITU-T I.371): instead of a level and a time, one moment at which the bucket
would be full again.
"""

from collections.abc import Callable

_MAX_NAMES = 65_536


class Buckets:
    """At most ``rate_per_s`` takings a second for each name, with bursts of ``burst``.

    ``rate_per_s`` 0 switches it off. Memory is bounded: at ``max_names`` the full buckets are forgotten, then
    the oldest ones.
    """

    __slots__ = ("_full_at", "_interval_s", "_max_names", "_monotonic", "_tolerance_s")

    def __init__(
        self, rate_per_s: float, burst: int, monotonic: Callable[[], float], max_names: int = _MAX_NAMES
    ) -> None:
        self._interval_s = 1 / rate_per_s if rate_per_s > 0 else 0.0
        self._tolerance_s = self._interval_s * max(burst - 1, 0)
        self._monotonic = monotonic
        self._max_names = max_names
        self._full_at: dict[str, float] = {}

    def take(self, name: str) -> float:
        """Takes one; 0.0 where there was one, else the seconds until there is."""
        if not self._interval_s:
            return 0.0
        now = self._monotonic()
        full_at = self._full_at.get(name)
        if full_at is None:
            if len(self._full_at) >= self._max_names:
                self._forget(now)
            full_at = now
        elif full_at < now:
            full_at = now
        wait_s = full_at - now - self._tolerance_s
        if wait_s > 1e-9:
            return wait_s
        self._full_at[name] = full_at + self._interval_s
        return 0.0

    def wait_s(self, name: str) -> float:
        """The seconds until ``take`` would succeed; takes nothing."""
        full_at = self._full_at.get(name, 0.0)
        wait_s = full_at - self._monotonic() - self._tolerance_s
        return wait_s if wait_s > 1e-9 else 0.0

    def _forget(self, now: float) -> None:
        self._full_at = {name: full_at for name, full_at in self._full_at.items() if full_at > now}
        for name in list(self._full_at)[: max(0, len(self._full_at) - self._max_names // 2)]:
            del self._full_at[name]
