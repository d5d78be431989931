"""What a node publishes of its load, for the api to choose nodes by: connections, processor, and how late its loop is.

Node._tick ──► Load.tick ──► (every two seconds, where it changed noticeably) ──► registry.update
"""

import os
from collections.abc import Callable

from msgspec.structs import replace

from longwire.clock import Clock
from longwire.model import NodeInfo
from longwire.net.wheel import TICK_S
from longwire.ports.registry import Registry

WINDOW_S = 2.0
"""Figures are taken over this time, and published no more often."""
REPEATED_AFTER_S = 15.0
"""They are published at least this often: what the api gave a node counts on top of them until it hears anew."""
_APART_S = 1.0
_CONNECTIONS_SHARE = 0.02
_CONNECTIONS_LEAST = 20
_CPU_STEP = 0.1
_LAG_STEP_MS = 10.0


class CpuShare:
    """How much of one core the process used."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._before = (clock.monotonic(), _cpu_s())
        self._share = 0.0

    def look(self) -> float:
        """The share since the look before, a second ago at least."""
        now, used_s = self._clock.monotonic(), _cpu_s()
        before, used_before_s = self._before
        if now - before >= _APART_S:
            self._before = (now, used_s)
            self._share = round((used_s - used_before_s) / (now - before), 3)
        return self._share


class Load:
    """Takes a node's figures on its tick and publishes them; plain calls that never wait.

    ``info`` gives the node as the registry is to list it; it asks for ``cpu_share`` and ``loop_lag_ms`` here.
    """

    def __init__(self, registry: Registry, info: Callable[[], NodeInfo], clock: Clock) -> None:
        self.cpu_share = 0.0
        self.loop_lag_ms = 0.0
        self._registry = registry
        self._info = info
        self._clock = clock
        self._cpu = CpuShare(clock)
        self._ticked_at = self._window_since = self._published_at = clock.monotonic()
        self._late_s = 0.0
        self._ticks = 0
        self._published: NodeInfo | None = None

    def tick(self) -> None:
        """To be called every TICK_S; how late it is called is how late the loop is."""
        now = self._clock.monotonic()
        self._late_s += max(now - self._ticked_at - TICK_S, 0.0)
        self._ticked_at = now
        self._ticks += 1
        if now - self._window_since >= WINDOW_S:
            self.loop_lag_ms = round(self._late_s / self._ticks * 1000, 1)
            self.cpu_share = self._cpu.look()
            self._window_since, self._late_s, self._ticks = now, 0.0, 0
            self._publish(now)

    def _publish(self, now: float) -> None:
        info = self._info()
        if self._published is None or now - self._published_at >= REPEATED_AFTER_S or _differs(self._published, info):
            self._published, self._published_at = info, now
            self._registry.update(replace(info, figures_at_ms=self._clock.now_ms()))


def _differs(before: NodeInfo, now: NodeInfo) -> bool:
    """Whether the figures differ by enough to choose another node."""
    step = max(_CONNECTIONS_LEAST, _CONNECTIONS_SHARE * before.connections)
    return (
        abs(now.connections - before.connections) >= step
        or abs(now.cpu_share - before.cpu_share) >= _CPU_STEP
        or abs(now.loop_lag_ms - before.loop_lag_ms) >= _LAG_STEP_MS
        or now.is_draining != before.is_draining
    )


def _cpu_s() -> float:
    used = os.times()
    return used.user + used.system
