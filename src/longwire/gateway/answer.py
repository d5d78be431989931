"""The answer that a SEND waits for."""

from longwire.gateway.counters import Counters
from longwire.gateway.session import DeviceConnection
from longwire.reasons import Status
from longwire.traces import SAMPLED, Traces
from longwire.wire.packets import Received, Send, Sent

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


class TracedAnswer(Answer):
    """The answer of a traced SEND: with it the entry's hop is told."""

    __slots__ = ("began_ns", "device_id", "is_told", "message_id", "parent", "subject", "trace", "traces")

    def __init__(self, answer: Answer, traces: Traces, trace: bytes, packet: Send, parent: bytes = b"") -> None:
        """``parent``: the span of whoever sent it; b"": it begins the trace."""
        self.connection = answer.connection
        self.correlation = answer.correlation
        self.is_wanted = answer.is_wanted
        self.counters = answer.counters
        self.traces = traces
        self.trace = trace
        self.parent = parent
        self.subject = "message" if packet.to else "uplink"
        self.message_id = packet.message_id.hex()
        session = answer.connection.session
        self.device_id = "" if session is None else session.device_id
        self.began_ns = traces.now_ns()
        self.is_told = False

    def give(self, status: Status, detail: str = "", retry_after_ms: int = 0) -> None:
        if not self.is_told:
            self.is_told = True
            self.traces.hop(
                f"{self.subject}.{'accepted' if status.is_success else 'refused'}",
                self.trace,
                began_ns=self.began_ns,
                parent=self.parent,
                is_error=not status.is_success,
                message_id=self.message_id,
                device_id=self.device_id,
                status=status.label,
            )
        super().give(status, detail, retry_after_ms)


def traced(answer: Answer, traces: Traces, trace: bytes, packet: Send) -> Answer:
    """The answer of a SEND whose context is ``trace`` since its receivers are known."""
    if isinstance(answer, TracedAnswer):
        answer.trace = trace
        return answer
    return TracedAnswer(answer, traces, trace, packet) if trace and trace[23] & SAMPLED else answer
