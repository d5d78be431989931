"""How a push went over time. The SQL adapter adds up what merges tell it, by the minute."""

from typing import NamedTuple, Protocol

from longwire.histogram import Histogram


class Minute(NamedTuple):
    """What a push came to in one minute: devices written to, and devices that acknowledged."""

    at_ms: int
    """When the minute began."""
    written: int
    acked: int


class Course(NamedTuple):
    """The course of a push. Over all minutes, ``written`` and ``acked`` add up to those of its stats."""

    minutes: tuple[Minute, ...]
    """In order; those in which nothing happened are left out."""
    latency: Histogram
    """From the first write to a segment until each acknowledgement."""
    reasons: dict[str, int]
    """Why devices failed, and how many for each reason."""


class PushProgress(Protocol):
    """Reads courses."""

    async def of(self, push_id: bytes) -> Course | None:
        """None for a push that is not known. Empty once its segments are dropped. Raises StoreUnavailable."""
        ...
