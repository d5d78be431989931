"""How long to wait before the next connection (PROTOCOL §7, §4). Pure arithmetic; time and chance come in.

    failure              1st      2nd      3rd     ...       8th and on
    waits, at random     0-1 s    0-2 s    0-4 s             0-120 s      and never less than retry_after

    4009-4011            60 s     180 s    540 s   ...       an hour at most, so that a node that is
                                                             mended never has a device locked out

After a session that was stable for 30 s both series begin anew.
"""

import random

from longwire.reasons import PROTOCOL_FAULT_RETRY_MS

STABLE_AFTER_S = 30.0
FAULT_FACTOR = 3.0
MAX_FAULT_DELAY_S = 3_600.0


class Backoff:
    """Counts failures in a row and says what each one costs."""

    __slots__ = ("_failures", "_faults", "_random", "base_s", "max_s")

    def __init__(self, rng: random.Random, base_s: float = 1.0, max_s: float = 120.0) -> None:
        self._random = rng
        self._failures = 0
        self._faults = 0
        self.base_s = base_s
        self.max_s = max_s

    def next_delay_s(self, retry_after_ms: int = 0) -> float:
        """The wait after one more failure: full jitter over a bound that doubles, never sooner than told."""
        # 2 to the 30th is beyond every bound, and keeps a year of failures from becoming a huge number.
        bound = min(self.max_s, self.base_s * 2 ** min(self._failures, 30))
        self._failures += 1
        return max(self._random.uniform(0, bound), retry_after_ms / 1000)

    def fault_delay_s(self, retry_after_ms: int = 0) -> float:
        """The wait after the node said that this device broke the protocol: thrice the last one."""
        first_s = max(retry_after_ms, PROTOCOL_FAULT_RETRY_MS) / 1000
        delay_s = min(first_s * FAULT_FACTOR ** min(self._faults, 10), max(first_s, MAX_FAULT_DELAY_S))
        self._faults += 1
        return delay_s

    def settle(self, session_s: float) -> None:
        """Takes note of how long a session lasted; a stable one wipes the slate."""
        if session_s >= STABLE_AFTER_S:
            self._failures = 0
            self._faults = 0
