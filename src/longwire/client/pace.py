"""How fast messages leave: a little slower than a node allows, so that it has none to refuse.

A refusal for the rate (13) costs order: of the messages on the way some are refused and later ones are not.
So the outbox keeps within a token bucket like the node's own (PROTOCOL §2, *Rate*), which requests and
messages without receipt count in as well. A node that refuses all the same allows less than the default: the
rate is halved at each refusal, and believed in again after a minute without one.
"""

from longwire.client.timers import Timers

_LEAST_PER_S = 1.0
_FORGIVEN_AFTER_S = 60.0


class Pace:
    """A token bucket of one session. ``per_s`` 0: no bound until the node refuses."""

    __slots__ = ("_burst", "_filled_at", "_most_per_s", "_per_s", "_refused_at", "_timers", "_tokens")

    def __init__(self, timers: Timers, per_s: float, burst: float) -> None:
        self._timers = timers
        self._most_per_s = per_s
        self._burst = burst
        self.begin()

    def begin(self) -> None:
        """A new session: the node's bucket is full again."""
        self._per_s = self._most_per_s
        self._tokens = self._burst
        self._filled_at = self._timers.monotonic()
        self._refused_at: float | None = None

    def wait_s(self) -> float:
        """How long until a message may go; 0: now."""
        if not self._per_s:
            return 0.0
        now = self._timers.monotonic()
        if self._refused_at is not None and now - self._refused_at >= _FORGIVEN_AFTER_S:
            self._per_s, self._refused_at = self._most_per_s, None
        most = self._burst if self._refused_at is None else 1.0
        self._tokens = min(most, self._tokens + (now - self._filled_at) * self._per_s)
        self._filled_at = now
        # Half a token's grace: a timer that comes a hair early is not sent away for another round.
        return 0.0 if self._tokens >= 0.5 else (1.0 - self._tokens) / self._per_s

    def spend(self) -> None:
        """A frame went out that counts."""
        self._tokens -= 1

    def refused(self) -> None:
        """The node says that it was too fast."""
        if self._most_per_s:
            now = self._timers.monotonic()
            if self._refused_at is None or now > self._refused_at:
                self._per_s = max(_LEAST_PER_S, self._per_s / 2)
            self._refused_at = self._filled_at = now
            self._tokens = min(self._tokens, 0.0)
