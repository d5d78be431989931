"""The sink's bounds, in one place; each says what happens when it is reached."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """Validated when made: every value is above 0. Raises ValueError, naming the value."""

    consumer: str = "application"
    """The name of the cursor in the uplink log."""
    max_calls: int = 256
    """Handlers that run at once; further devices wait for their turn, in order."""
    window_records: int = 4_096
    """Records held that are not done; when they are as many, reading pauses."""
    window_bytes: int = 32 << 20
    """Payload bytes of these; when they are as many, reading pauses. One read may go over it."""
    max_span: int = 65_536
    """Records read since the oldest that is not done, so the most that come again after a crash. Then reading
    pauses."""
    read_records: int = 256
    """Records asked of the log at a time."""
    fair_share: int = 256
    """Waiting records of one device above which it loses its retries while the window is full."""
    attempts: int = 5
    """Calls that may fail before a record becomes a dead letter."""
    retry_base_s: float = 0.2
    retry_max_s: float = 30.0
    """The pause after the n-th failure is random between half and all of ``retry_base_s`` × 2^(n-1), at most this."""
    flush_every_s: float = 0.2
    """The cursor is written at most this often, and once more at stop."""
    stop_within_s: float = 5.0
    """Time that running handlers get at stop; what is not done then comes again after the next start."""
    last_flush_within_s: float = 2.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, str) and not value > 0:
                raise ValueError(f"sink setting {field.name} is {value}, not above 0")
        if not self.consumer:
            raise ValueError("sink setting consumer is empty")
