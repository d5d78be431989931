"""What moves through the system: envelopes, their receivers, and what became of them.

Plain values without behaviour. Times are milliseconds since the Unix epoch; ``device_no`` is the integer the
store gave a device at registration (DESIGN §2), and 0 stands for the application.
"""

from enum import IntEnum

from msgspec import Struct

from longwire.reasons import Status

APPLICATION_NO = 0
"""The ``sender_no`` of messages that the application or the HTTP API sends."""


class Envelope(Struct, gc=False):
    """A reliable one-to-one message on its way into the store."""

    sender_no: int
    sender: str
    """``device:ID``, or "" for the application."""
    message_id: bytes
    to: str
    """As PUSH tells it: "" for a device of its own, else ``user:ID`` or ``group:ID``."""
    kind: str
    payload: bytes
    collapse_key: str
    sent_at_ms: int
    expires_at_ms: int
    receivers: tuple[int, ...]
    online: tuple[int, ...] = ()
    """Those of the receivers that had a session when the message was accepted: nothing may be dropped for them."""
    trace: bytes = b""


class Committed(Struct, gc=False, frozen=True):
    """What the store made of an envelope."""

    status: Status
    """OK, DUPLICATE, OVERLOADED (a receiver with a session has a full inbox) or NOT_DURABLE."""
    seq: int = 0
    """The message's place: rises in the order of commits, and so within every inbox."""
    receivers: tuple[int, ...] = ()
    """Whom to deliver to now: the envelope's receivers, less those for whom a later one replaced it already."""


class Waiting(Struct, gc=False):
    """A message as it lies in a device's inbox."""

    seq: int
    message_id: bytes
    sender: str
    to: str
    kind: str
    payload: bytes
    collapse_key: str
    sent_at_ms: int
    expires_at_ms: int
    trace: bytes = b""


class InboxQuery(Struct, gc=False, frozen=True):
    """A request for what waits for one device, oldest first."""

    device_no: int
    after_seq: int
    limit: int


class Outcome(IntEnum):
    """How a message ended for one receiver (DESIGN §7)."""

    ACKED = 1
    EXPIRED = 2
    COLLAPSED = 3
    WITHDRAWN = 4
    MISSED = 5


class Receipt(Struct, gc=False, frozen=True):
    """A device's acknowledgement, on its way into the store."""

    device_no: int
    seq: int
    acked_at_ms: int
    node_id: str


class UplinkRecord(Struct, gc=False):
    """What a device sent to the application, as it lies in the uplink log."""

    device_no: int
    device_id: str
    message_id: bytes
    kind: str
    payload: bytes
    sent_at_ms: int
    trace: bytes = b""
    offset: int = 0


class Credential(Struct, gc=False, frozen=True):
    """What a token proves: which device, until when, and whether it may connect now."""

    device_no: int
    device_id: str
    expires_at_ms: int
    is_revoked: bool
    is_disabled: bool
    missed: int
    user: str | None = None
    banned_until_ms: int = 0


class Device(Struct, frozen=True):
    """A registered device, as the registry shows it."""

    device_no: int
    device_id: str
    user: str | None
    platform: str
    app_version: str
    registered_at_ms: int
    is_disabled: bool
    banned_until_ms: int = 0


class NodeInfo(Struct, frozen=True):
    """A gateway node as the registry lists it and a client is told of it.

    Written by one release and read by its neighbours: a new field has a default, and an unknown one is passed over.
    """

    node_id: str
    host: str
    port: int
    tls_port: int | None
    ws_url: str
    is_draining: bool = False
    connections: int = 0
    capacity: int = 0
    """The most connections it takes; 0: it does not say."""
    weight: float = 1.0
    """Its share of new devices against the other nodes', above 0."""
    cpu_share: float = 0.0
    """Of one core, in the last seconds."""
    loop_lag_ms: float = 0.0
    """How late its loop was on average in the last seconds."""
    figures_at_ms: int = 0
    """When the figures above were taken, by the node's clock."""
    started_at_ms: int = 0
    internal_url: str = ""
    """Where other nodes reach it, http://host:port; "" where there are no others."""
    link_version: int = 1
    """The newest version of the calls between nodes that it understands."""
