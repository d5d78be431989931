"""What the outbox of a device may hold and how fast it empties."""

from dataclasses import dataclass

from longwire.limits import Limits

_NODE = Limits()


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """Bounds of the outbox; beyond the first two ``send`` raises OutboxFull."""

    max_messages: int = 10_000
    max_bytes: int = 64 << 20
    max_age_s: int = 86_400
    in_flight: int = 256
    """Messages written and not answered at a time, at most."""
    in_flight_bytes: int = 1 << 20
    per_s: float = 0.9 * _NODE.sends_per_s
    """SEND and REQUEST frames a second, after a burst of ``burst``; 0: as fast as they come."""
    burst: int = _NODE.send_burst * 9 // 10
