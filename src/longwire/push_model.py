"""Pushes: a message to an audience, stored once, and what moves while it is being sent.

Plain values. Times are milliseconds since the Unix epoch; sets of devices are Roaring bitmaps (bitmaps.py).
"""

from enum import IntEnum, StrEnum

from msgspec import Struct
from pyroaring import BitMap

from longwire.histogram import Histogram
from longwire.model import APPLICATION_NO, Envelope


class PushStatus(StrEnum):
    """Where a push stands (API §3). ``accepted`` is sending of which no segment was taken yet, and is not stored."""

    ACCEPTED = "accepted"
    SCHEDULED = "scheduled"
    RESOLVING = "resolving"
    SENDING = "sending"
    PAUSED = "paused"
    DISPATCHED = "dispatched"
    COMPLETED = "completed"
    CANCELED = "canceled"
    WITHDRAWN = "withdrawn"
    FAILED = "failed"


ENDED = frozenset({PushStatus.COMPLETED, PushStatus.CANCELED, PushStatus.WITHDRAWN, PushStatus.FAILED})


class Priority(IntEnum):
    """The lane a broadcast goes by; the lower goes first. One-to-one messages go by none and wait for none."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


class RecipientState(StrEnum):
    """What became of one device, in the order of precedence; PENDING last."""

    ACKED = "acked"
    WITHDRAWN = "withdrawn"
    CANCELED = "canceled"
    COLLAPSED = "collapsed"
    FAILED = "failed"
    EXPIRED = "expired"
    PENDING = "pending"


class TagExpression(Struct, frozen=True, omit_defaults=True):
    """Devices that have one of ``any`` (where there is one), all of ``all``, and none of ``none``."""

    any: tuple[str, ...] = ()
    all: tuple[str, ...] = ()
    none: tuple[str, ...] = ()


class Audience(Struct, frozen=True, omit_defaults=True):
    """Whom a push is for: exactly one of the fields says it. Kept as JSON beside the push."""

    everyone: bool = False
    devices: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    tags: TagExpression | None = None
    upload: str = ""
    retry_of: str = ""
    """The push whose devices in ``states`` get this one."""
    states: tuple[RecipientState, ...] = ()
    notice_of: str = ""
    """The push that is withdrawn: whoever has it."""
    sent_to_group: str = ""
    """A group that a device wrote to, with more members than get inbox rows."""


class PushMessage(Struct, frozen=True):
    """A push as its receivers get it."""

    message_id: bytes
    kind: str
    payload: bytes
    sent_at_ms: int
    sender: str = ""
    to: str = ""
    collapse_key: str = ""
    trace: bytes = b""


def push_message_of(envelope: Envelope) -> PushMessage:
    """A one-to-one message as it travels between nodes."""
    return PushMessage(
        envelope.message_id,
        envelope.kind,
        envelope.payload,
        envelope.sent_at_ms,
        envelope.sender,
        envelope.to,
        envelope.collapse_key,
        envelope.trace,
    )


class NewPush(Struct, frozen=True):
    """A push to be kept. ``push_id`` is also its message's id, unless a device sent it."""

    push_id: bytes
    audience: Audience
    message: PushMessage
    created_at_ms: int
    expires_at_ms: int
    sender_no: int = APPLICATION_NO
    caller: str = ""
    """Who made it, as the audit says it."""
    priority: Priority = Priority.NORMAL
    ttl_s: int = 86_400
    """0: only who is online now."""
    send_at_ms: int | None = None
    rate_per_s: int | None = None
    unresolved: int = 0
    unresolved_sample: tuple[str, ...] = ()
    retry_of: int | None = None
    notice_of: int | None = None


class SegmentCounts(Struct, frozen=True):
    """How many of a segment's devices are in which state; see funnel.Segment.settle."""

    targeted: int = 0
    written: int = 0
    acked: int = 0
    withdrawn: int = 0
    canceled: int = 0
    collapsed: int = 0
    failed: int = 0
    expired: int = 0
    rest: int = 0


class PushStats(Struct, frozen=True):
    """targeted = acked + expired + failed + collapsed + canceled + withdrawn + pending, always."""

    targeted: int = 0
    online_at_send: int = 0
    written: int = 0
    acked: int = 0
    expired: int = 0
    failed: int = 0
    collapsed: int = 0
    canceled: int = 0
    withdrawn: int = 0
    pending: int = 0


class Push(Struct, frozen=True):
    """A push as the store has it."""

    push_no: int
    new: NewPush
    status: PushStatus
    dispatched: int
    """Devices handled: written to, or found to be away."""
    stats: PushStats
    latency_ms: tuple[float | None, float | None, float | None]
    """p50, p95, p99."""
    rate_per_s: int | None
    """As it is now."""
    started_at_ms: int | None
    ended_at_ms: int | None
    failure: str = ""


class Claim(Struct):
    """A segment that this worker may have written until its lease ends."""

    push_no: int
    segment: int
    lease_no: int
    lease_until_ms: int
    message: PushMessage
    expires_at_ms: int
    priority: Priority
    is_online_only: bool
    rate_per_s: int | None
    cursor: int
    targets: BitMap
    """Those still to be handled."""


class Dispatched(Struct):
    """What a worker has done of a claim."""

    push_no: int
    segment: int
    lease_no: int
    written: BitMap
    online: int
    cursor: int
    """Everybody up to this number is handled."""
    handled: int
    is_done: bool
    lease_until_ms: int
    """The lease goes on until then where it is not done."""


class Goes(Struct, frozen=True):
    """Whether a worker goes on with its segment, and how."""

    is_held: bool
    """False: the lease is another's, or the push has ended or pauses."""
    rate_per_s: int | None = None


class SegmentReceipts(Struct):
    """What a node tells of a segment: who acknowledged, and who was written to on coming back."""

    push_no: int
    segment: int
    acked: BitMap
    written: BitMap
    latency: Histogram


class BroadcastOrder(Struct):
    """A node's share of a segment."""

    push_no: int
    segment: int
    lease_no: int
    message: PushMessage
    ttl_left_ms: int
    priority: Priority
    receivers: BitMap


class Broadcasted(Struct):
    """What a node did of an order."""

    written: BitMap
    is_refused: bool = False
    """The lease was old, or the push has ended: nothing further was written."""


class PushQuery(Struct, frozen=True, gc=False):
    """A request for the live pushes that wait for one device, oldest first."""

    device_no: int
    after_push_no: int
    limit: int


class LivePush(Struct, frozen=True):
    """A push that devices may be written, as nodes need it."""

    push_no: int
    message: PushMessage
    expires_at_ms: int


class KeptAnswer(Struct, frozen=True):
    """What a call with an Idempotency-Key answered."""

    caller: str
    key: str
    fingerprint: bytes
    status: int
    """0: the call told secrets, and what it answered is not kept."""
    body: bytes
    created_at_ms: int
    location: str = ""
    """Its Location header."""


class SetKind(IntEnum):
    """What a set of devices is for."""

    EVERYONE = 0
    TAG = 1
    GROUP = 2
    UPLOAD = 3


class SetChange(Struct, frozen=True):
    """Tags or groups that a device gets and loses. ``replaces``: ``add`` is all that it has of this kind (own tags)."""

    device_no: int
    kind: SetKind
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    replaces: bool = False


class SetCount(Struct, frozen=True):
    """A tag or group and how many devices are in it."""

    name: str
    devices: int
    created_at_ms: int


class Group(Struct, frozen=True):
    """A group: devices of its own, and users whose devices are members."""

    group_id: str
    title: str
    created_at_ms: int
    devices: int
    users: int


class Members(Struct, frozen=True):
    """Members of a group to add or to remove."""

    devices: tuple[int, ...] = ()
    users: tuple[str, ...] = ()
