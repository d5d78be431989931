"""Latencies in geometric buckets: eight an octave from 1 ms to 17 minutes, so that a percentile is right within 9 %."""

import math
from array import array
from collections.abc import Sequence
from itertools import accumulate

_AN_OCTAVE = 8
BUCKETS = 20 * _AN_OCTAVE + 1


class Histogram:
    """Counts by bucket; merging is adding."""

    __slots__ = ("counts", "total")

    def __init__(self, counts: Sequence[int] | None = None) -> None:
        # One that is kept as long as the process would run over in 32 bits.
        self.counts = array("Q", [0] * BUCKETS if counts is None else counts)
        self.total = sum(self.counts)

    def add(self, latency_ms: float) -> None:
        bucket = int(math.log2(latency_ms) * _AN_OCTAVE) + 1 if latency_ms > 1 else 0
        self.counts[min(bucket, BUCKETS - 1)] += 1
        self.total += 1

    def merge(self, other: "Histogram") -> None:
        for bucket, count in enumerate(other.counts):
            if count:
                self.counts[bucket] += count
        self.total += other.total

    def percentile_ms(self, share: float) -> float | None:
        """The latency that ``share`` (0 to 1) of all did not exceed; None where there are none."""
        if not self.total:
            return None
        running = accumulate(self.counts)
        bucket = next(bucket for bucket, seen in enumerate(running) if seen and seen >= share * self.total)
        return round(2 ** (bucket / _AN_OCTAVE), 1)

    def octaves(self) -> list[tuple[int, int]]:
        """(``below_ms``, count) by doubling bounds, from the first that holds something to the last."""
        counts = [self.counts[0]]
        counts += [sum(self.counts[at : at + _AN_OCTAVE]) for at in range(1, BUCKETS, _AN_OCTAVE)]
        held = [octave for octave, count in enumerate(counts) if count]
        return [(2**octave, counts[octave]) for octave in range(held[0], held[-1] + 1)] if held else []

    def dump(self) -> bytes | None:
        """None for an empty one; else big-endian, whatever the machine."""
        if not self.total:
            return None
        counts = array("I", self.counts)
        if _IS_LITTLE:
            counts.byteswap()
        return counts.tobytes()

    @classmethod
    def load(cls, blob: bytes | None) -> "Histogram":
        if blob is None:
            return cls()
        counts = array("I")
        counts.frombytes(blob)
        if _IS_LITTLE:
            counts.byteswap()
        return cls(counts)


_IS_LITTLE = array("I", [1]).tobytes()[0] == 1
