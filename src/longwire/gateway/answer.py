"""The answer that a SEND waits for."""

from longwire.gateway.counters import Counters
from longwire.gateway.session import DeviceConnection
from longwire.reasons import Status
from longwire.wire.packets import Received, Sent

BUSY_RETRY_MS = 1_000
"""After how long a refusal that is not for good may be tried again."""


class Answer:
    """Who waits for the outcome of a SEND: nobody, or the device under this correlation id."""

    __slots__ = ("connection", "correlation", "counters", "is_wanted")

    def __init__(self, connection: DeviceConnection, frame: Received, counters: Counters) -> None:
        self.connection = connection
        self.correlation = frame.correlation
        self.is_wanted = frame.wants_receipt
        self.counters = counters

    def give(self, status: Status, detail: str = "", retry_after_ms: int = 0) -> None:
        """SENT, where it is wanted; a refusal is counted either way."""
        if not status.is_success:
            self.counters.refused[status.label] += 1
        if self.is_wanted:
            self.connection.send(Sent(int(status), detail, retry_after_ms), self.correlation)
