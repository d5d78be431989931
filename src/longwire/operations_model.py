"""What operators see and do beside pushes: presence, commands, imports, the audit, webhooks, nodes.

Plain values. Times are milliseconds since the Unix epoch.
"""

from enum import StrEnum

from msgspec import Struct


class SessionView(Struct, frozen=True):
    """A live session as operators see it."""

    device_no: int
    session_id: str
    node_id: str
    version: int
    """Rises with every change of the device's presence: even while online, odd when it has ended."""
    since_ms: int
    last_seen_ms: int
    transport: str


class LastSession(Struct, frozen=True):
    """How a device's last session ended."""

    device_no: int
    version: int
    ended_at_ms: int
    node_id: str
    transport: str
    close_code: int | None
    """None: the device went away without a word."""
    began_at_ms: int = 0


class PastSession(Struct, frozen=True):
    """A connection that has ended."""

    device_no: int
    epoch: int
    """Rises with every session of the device."""
    began_at_ms: int
    ended_at_ms: int
    node_id: str
    transport: str
    close_code: int | None
    """None: the device went away without a word."""


class CommandStatus(StrEnum):
    """Where a command stands."""

    SENT = "sent"
    REPLIED = "replied"
    FAILED = "failed"
    """The device answered with a status other than ok, or was offline."""
    TIMED_OUT = "timed-out"
    """The outcome is unknown; a late reply still changes this to REPLIED."""


class Command(Struct, frozen=True):
    """A request to a device, and its reply."""

    command_id: bytes
    device_no: int
    device_id: str
    method: str
    payload: bytes
    created_at_ms: int
    timeout_ms: int
    status: CommandStatus = CommandStatus.SENT
    reply_status: int | None = None
    reply: bytes = b""
    detail: str = ""
    replied_at_ms: int | None = None
    is_late: bool = False


class Import(Struct, frozen=True):
    """A job that registers devices from a file."""

    import_id: bytes
    status: str
    """``running``, ``completed`` or ``failed``."""
    format: str
    created_at_ms: int
    lines: int = 0
    done: int = 0
    failed: int = 0
    errors: tuple[tuple[int, str, str], ...] = ()
    """(line, code, detail); the first thousand."""
    ended_at_ms: int | None = None


class AuditEntry(Struct, frozen=True):
    """Who did what."""

    at_ms: int
    caller: str
    action: str
    """``POST /v1/pushes/{push_id}/cancel``."""
    target: str
    status: int
    request_id: str
    audit_no: int = 0


class Event(Struct, frozen=True):
    """Something that webhooks may want to know. ``body`` is a JSON object without id, kind and time."""

    kind: str
    at_ms: int
    device_no: int
    """The store adds ``device_id``; 0: the body names whom it is about itself."""
    body: bytes
    event_no: int = 0
    webhook_no: int = 0
    """Only for this webhook; 0: for all that want the kind."""


class Webhook(Struct, frozen=True):
    """An address that events go to."""

    webhook_no: int
    url: str
    secret: str
    kinds: tuple[str, ...]
    is_enabled: bool
    created_at_ms: int
    cursor: int = 0
    last_success_ms: int | None = None
    failing_since_ms: int | None = None

    def takes(self, kind: str) -> bool:
        """Whether it is to be told events of this kind: by name, or by family (``push.*``)."""
        return kind in self.kinds or f"{kind.partition('.')[0]}.*" in self.kinds

    def __repr__(self) -> str:
        return f"Webhook(webhook_no={self.webhook_no!r}, url={self.url!r})"


class WebhookLetter(Struct, frozen=True):
    """A batch of events that a webhook would not take for a day."""

    letter_no: int
    webhook_no: int
    body: bytes
    error: str
    buried_at_ms: int
    replayed_at_ms: int | None = None


class DrainState(Struct, frozen=True):
    """How far the leaving of a node's devices has come."""

    state: str
    """``draining``, ``drained`` (nobody is left), or ``moving``: some are sent elsewhere, and the node goes on."""
    began_at_ms: int
    within_s: float
    sessions: int
    """At the beginning, that were to leave."""
    left: int
    """Of those that are to leave, here still."""
    told: int
    """Who was sent MOVE."""
    closed: int
    """Who was closed, for they had not gone by themselves."""
    eta_s: float | None
    """Until nobody is left, at the rate of the last seconds; None where that is unknown."""


class NodeReport(Struct, frozen=True):
    """What a node says of itself."""

    node_id: str
    connections: int
    max_connections: int
    connects: int
    uplink: int
    downlink: int
    acks: int
    cpu_share: float
    memory_bytes: int
    loop_late_ms: float
    longest_pause_ms: float
    queued_bytes: int
    ack_latency_ms: tuple[float | None, float | None, float | None] = (None, None, None)
    drain: DrainState | None = None
    """None where nobody is to leave."""
    route_drift: int = 0
    """Sessions and routes that differed when the node last compared its own with the route table's."""
    repaired: int = 0
    """Routes that were put right, since the start."""
    behind: int = 0
    """Devices whose messages could not be carried to their node; they are told to read the store."""
    link_queued_bytes: int = 0
    """What waits to go to other nodes."""
    closes: dict[str, int] = {}
    """Connections that ended, by the label of the close reason; ``peer`` where the device went by itself."""
    bytes_in: int = 0
    bytes_out: int = 0
    shed: int = 0
    """Connections that were turned away for load."""
    slow: int = 0
    """Connections that were closed because the device did not read."""
    recent_ack_latency_ms: tuple[float | None, float | None, float | None] = (None, None, None)
    """As ``ack_latency_ms``, of the last half minute only."""
