"""The numbers of the last day, in memory: a ring of seconds over 15 minutes, and one of tens of seconds over a day.

    Nodes ── a sample a second while somebody reads, else one each ten ──► rings ──► GET /v1/stats/history

A restart begins anew: the long memory is a metrics server's. A sample's rates hold for the whole time since the one
before; a longer gap stays unknown. Takes about 1 MB, however many nodes and devices there are.
"""

import asyncio
import logging
import math
from array import array
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple

from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.ports.backlog import Backlog

log = logging.getLogger(__name__)

Sleep = Callable[[float], Awaitable[None]]

FINE_SPAN_S = 900
LONGEST_SPAN_S = 86_400
MOST_POINTS = 450
_COARSE_S = 10
_READ_WITHIN_S = 10.0
_GAP_S = 15
"""A sample older than this tells nothing of the time since."""
_MOST_REASONS = 32
HIGHEST = ("p50", "p95", "p99")
"""Of these a longer step shows the highest; of all others the mean."""


class Sample(NamedTuple):
    """What the system held and did at a moment. Rates are by the second; None: unknown."""

    online: float | None
    connects: float | None = None
    closes: float | None = None
    up: float | None = None
    down: float | None = None
    acks: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    closes_by_reason: Mapping[str, float] = {}


class Span(NamedTuple):
    """A part of the history: values by name, one for each of ``at_ms``; None: unknown."""

    step_s: int
    at_ms: list[int]
    """When each step begins."""
    values: dict[str, list[float | None]]
    closes_by_reason: dict[str, list[float | None]]


NAMES = ("online", "connects", "closes", "up", "down", "acks", "p50", "p95", "p99", "inbox")


class History:
    """Samples and keeps. ``look`` gives a sample; ``backlog`` what was last found to wait, None where unknown."""

    def __init__(
        self,
        look: Callable[[], Awaitable[Sample]],
        backlog: Callable[[], Backlog | None],
        clock: Clock,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.backlog = backlog
        self.began_ms = clock.now_ms()
        self._look = look
        self._clock = clock
        self._sleep = sleep
        self._fine = _Ring(1, FINE_SPAN_S)
        self._coarse = _Ring(_COARSE_S, LONGEST_SPAN_S // _COARSE_S)
        self._read_at = -math.inf
        self._sampled_at = -math.inf
        self._last_s = 0

    async def run(self) -> None:
        """Samples until cancelled."""
        while True:
            now = self._clock.monotonic()
            if now - self._read_at <= _READ_WITHIN_S or now - self._sampled_at >= _COARSE_S:
                self._sampled_at = now
                try:
                    await self.sample()
                except StoreUnavailable as error:
                    log.debug("the nodes cannot be looked at: %s", error)
            await self._sleep(1)

    async def sample(self) -> None:
        """Looks once, and keeps it for every second since the look before."""
        found = await self._look()
        waiting = self.backlog()
        values: dict[str, float | None] = dict(zip(Sample._fields[:-1], found[:-1], strict=True))
        values["inbox"] = None if waiting is None else waiting.inbox
        values |= {f"close:{reason}": rate for reason, rate in list(found.closes_by_reason.items())[:_MOST_REASONS]}
        now_s = self._clock.now_ms() // 1000
        first_s = self._last_s + 1 if now_s - self._last_s <= _GAP_S else now_s
        self._last_s = now_s
        for second in range(min(first_s, now_s), now_s + 1):
            self._fine.put(second, values)
        for slot in range(min(first_s, now_s) // _COARSE_S, now_s // _COARSE_S + 1):
            begin = slot * _COARSE_S
            names = self._fine.columns
            self._coarse.put(slot, {name: self._fine.fold(name, begin, begin + _COARSE_S) for name in names})

    def span(self, span_s: int) -> Span:
        """The last ``span_s`` seconds (60 to 86,400) until the last look, in at most 450 steps."""
        self._read_at = self._clock.monotonic()
        ring = self._fine if span_s <= FINE_SPAN_S else self._coarse
        slots = math.ceil(span_s / (ring.step_s * MOST_POINTS))
        step_s = slots * ring.step_s
        now_s = self._clock.now_ms() // 1000
        # A second that nobody has looked at yet is not one of which nothing is known.
        last = (self._last_s if now_s - self._last_s <= _GAP_S else now_s) // step_s
        steps = range(last - span_s // step_s + 1, last + 1)

        def folded(name: str) -> list[float | None]:
            return [ring.fold(name, step * slots, (step + 1) * slots) for step in steps]

        reasons = sorted(name for name in ring.columns if name.startswith("close:"))
        values = {name: folded(name) for name in NAMES}
        by_reason = {}
        for name in reasons:
            rates = folded(name)
            if any(rates):
                # A reason that nobody told of while closes were counted had none.
                known = zip(rates, values["closes"], strict=True)
                by_reason[name.partition(":")[2]] = [rate if all_ is None else rate or 0.0 for rate, all_ in known]
        return Span(step_s, [step * step_s * 1000 for step in steps], values, by_reason)


class _Ring:
    """Values by name and slot of time; the newest take the place of the oldest."""

    __slots__ = ("_size", "_slots", "columns", "step_s")

    def __init__(self, step_s: int, size: int) -> None:
        self.step_s = step_s
        self._size = size
        self._slots = array("q", [-1]) * size
        self.columns: dict[str, array[Any]] = {}

    def put(self, slot: int, values: Mapping[str, float | None]) -> None:
        at = slot % self._size
        self._slots[at] = slot
        for name in values.keys() - self.columns.keys():
            # Counts of devices are exact; rates need no more than seven digits.
            kind = "d" if name in ("online", "inbox") else "f"
            self.columns[name] = array(kind, [math.nan]) * self._size
        for name, column in self.columns.items():
            value = values.get(name)
            column[at] = math.nan if value is None else value

    def fold(self, name: str, first: int, end: int) -> float | None:
        """The mean, or the highest, of the slots from ``first`` until before ``end``; None where none is known."""
        column = self.columns.get(name)
        if column is None:
            return None
        known = [value for value in self._known(column, range(first, end)) if not math.isnan(value)]
        if not known:
            return None
        return round(max(known) if name in HIGHEST else sum(known) / len(known), 1)

    def _known(self, column: "array[Any]", slots: Iterable[int]) -> Iterable[float]:
        for slot in slots:
            at = slot % self._size
            if self._slots[at] == slot:
                yield column[at]
