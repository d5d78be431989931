"""What a look-up finds: steps in the order of time, a verdict, and where to look on. Plain values."""

from enum import StrEnum

from msgspec import Struct


class Code(StrEnum):
    """What a verdict says, for programs."""

    ACKED = "acked"
    WRITTEN_UNACKED = "written-unacked"
    WAITING_ONLINE = "waiting-online"
    WAITING_OFFLINE = "waiting-offline"
    WAITING_NEVER_CONNECTED = "waiting-never-connected"
    WAITING_UNKNOWN = "waiting-unknown"
    EXPIRED = "expired"
    MISSED = "missed"
    COLLAPSED = "collapsed"
    WITHDRAWN = "withdrawn"
    CANCELED = "canceled"
    FAILED = "failed"
    NOT_KEPT = "not-kept"
    SOME_RECEIVERS = "some-receivers"
    NOT_IN_AUDIENCE = "not-in-audience"
    PUSH_SCHEDULED = "push-scheduled"
    PUSH_PAUSED = "push-paused"
    PUSH_SENDING = "push-sending"
    PUSH_ENDED = "push-ended"
    HANDLED = "handled"
    TAKEN = "taken"
    LOGGED = "logged"
    BURIED = "buried"
    COMMAND_SENT = "command-sent"
    COMMAND_REPLIED = "command-replied"
    COMMAND_LATE = "command-late"
    COMMAND_TIMEOUT = "command-timeout"
    COMMAND_OFFLINE = "command-offline"
    COMMAND_FAILED = "command-failed"
    DEVICE_ONLINE = "device-online"
    DEVICE_OFFLINE = "device-offline"
    DEVICE_DISABLED = "device-disabled"
    DEVICE_BANNED = "device-banned"
    DEVICE_UNKNOWN = "device-unknown"
    USER = "user"
    TRACE = "trace"
    CALL_ONLY = "call-only"
    TOO_OLD = "too-old"
    UNKNOWN = "unknown"


class Verdict(Struct, frozen=True):
    """One sentence for who asks where it is."""

    code: Code
    text: str
    is_final: bool
    """Nothing will change it."""


class State(StrEnum):
    """Whether a step was done."""

    DONE = "done"
    FAILED = "failed"
    AHEAD = "ahead"
    UNKNOWN = "unknown"


class Step(Struct, frozen=True):
    """Something on the way. ``at_ms`` None: its time is not kept."""

    step: str
    """accepted, resolved, queued, routed, written, acked, expired, missed, collapsed, withdrawn, canceled, failed,
    scheduled, started, paused, ended, logged, handled, buried, webhook, command-sent, command-replied, connected,
    disconnected, expires or called."""
    at_ms: int | None
    text: str
    state: State = State.DONE
    node_id: str | None = None
    session_id: str | None = None
    device_id: str | None = None
    detail: dict[str, str | int] = {}


class Receiver(Struct, frozen=True):
    """One device that a message or a push was for. ``device_id`` None: it has been deleted since."""

    device_id: str | None
    verdict: Verdict
    state: str
    at_ms: int | None


class Related(Struct, frozen=True):
    """Something else to look at, by what it is found by."""

    kind: str
    id: str
    text: str


class Span(Struct, frozen=True):
    """A connection. ``ended_at_ms`` None: it stands."""

    began_at_ms: int
    ended_at_ms: int | None
    node_id: str
    transport: str
    session_id: str
    close_code: int | None = None


class Found(Struct, frozen=True):
    """An answer. Times among the facts are named ``…_at_ms``."""

    kind: str
    """message, uplink, push, command, device, user, trace, request or unknown."""
    id: str
    verdict: Verdict
    trace_id: str | None = None
    facts: dict[str, str | int | bool | None] = {}
    timeline: tuple[Step, ...] = ()
    receivers: tuple[Receiver, ...] = ()
    receivers_more: int = 0
    related: tuple[Related, ...] = ()
    sessions: tuple[Span, ...] = ()
    kept_until_ms: int | None = None
