"""Pacing: how many devices of a push may be handed to nodes now.

A bucket of tokens for each push that has a rate. A grain of a quarter second is gathered before anything is written,
so that a rate costs four writes a second whatever it is; up to two grains may lie in the bucket, so that a step that
took long is made good.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable

from pyroaring import BitMap

from longwire.bitmaps import above
from longwire.clock import Clock

Sleep = Callable[[float], Awaitable[None]]

GRAIN_S = 0.25
_GRAINS = 2
_SHORTEST_SLEEP_S = 0.001
_IDLE_S = 60.0


class _Bucket:
    __slots__ = ("at", "tokens")

    def __init__(self, tokens: float, at: float) -> None:
        self.tokens = tokens
        self.at = at


class Pacing:
    """The buckets of one worker."""

    def __init__(self, clock: Clock, sleep: Sleep = asyncio.sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self._buckets: dict[int, _Bucket] = {}

    async def turn(self, push_no: int, rate_per_s: int) -> int:
        """Waits until a grain is there, a second at most; how many devices may be handed out, at least one."""
        grain = math.ceil(rate_per_s * GRAIN_S)
        while True:
            bucket = self._filled(push_no, rate_per_s, grain)
            if bucket.tokens >= grain:
                return int(bucket.tokens)
            await self._sleep(max(_SHORTEST_SLEEP_S, (grain - bucket.tokens) / rate_per_s))

    def spend(self, push_no: int, devices: int) -> None:
        """Takes what was handed out."""
        bucket = self._buckets.get(push_no)
        if bucket is not None:
            bucket.tokens -= devices

    def forget_idle(self) -> None:
        """Drops the buckets that nobody asked for within a minute: they would be full."""
        now = self._clock.monotonic()
        for push_no in [no for no, bucket in self._buckets.items() if now - bucket.at > _IDLE_S]:
            del self._buckets[push_no]

    def _filled(self, push_no: int, rate_per_s: int, grain: int) -> _Bucket:
        now = self._clock.monotonic()
        bucket = self._buckets.get(push_no)
        if bucket is None:
            bucket = self._buckets[push_no] = _Bucket(grain, now)
        bucket.tokens = min(_GRAINS * grain, bucket.tokens + (now - bucket.at) * rate_per_s)
        bucket.at = now
        return bucket


def first(targets: BitMap, online: BitMap, count: int) -> BitMap:
    """The targets up to and with the ``count``-th that is online; all of them where no more are. ``count`` >= 1.

    Who is away costs nothing: nobody is written to for it.
    """
    return targets if len(online) <= count else targets - above(targets, online[count - 1])
