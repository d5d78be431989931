"""How long calls of one kind take: plain attributes, noted where the call is made and read when somebody asks."""

from typing import Final

from longwire.histogram import Histogram

UNIT_S: Final = 0.00001
"""What one unit of a meter's histogram stands for: so it reaches from 10 µs to 10 s."""


class Meter:
    """Round trips of one kind of call. Only one thread may note, any may read."""

    __slots__ = ("failures", "times")

    def __init__(self) -> None:
        self.times = Histogram()
        """Of those that ended well, in units of 10 µs."""
        self.failures = 0

    def note(self, seconds: float) -> None:
        """A call ended well."""
        self.times.add(seconds / UNIT_S)

    def failed(self) -> None:
        """A call failed, or had no answer in time."""
        self.failures += 1
