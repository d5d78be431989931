"""What the API stands on: the services that its routes call, and its settings."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from longwire.accounts.api_keys import ApiKeys
from longwire.accounts.devices import Devices
from longwire.accounts.placement import Placement
from longwire.accounts.registration import Registration
from longwire.accounts.tokens import Tokens
from longwire.clock import Clock
from longwire.limits import Limits
from longwire.ports.audit import AuditLog
from longwire.ports.idempotency import IdempotencyStore
from longwire.ports.messages import MessageStore
from longwire.ports.push_waiting import PushWaiting
from longwire.ports.uplink import DeadLetters, UplinkHistory
from longwire.traces import NO_TRACES, Traces

if TYPE_CHECKING:
    from longwire.accounts.directives import Directives
    from longwire.accounts.groups import Groups
    from longwire.accounts.imports import Imports
    from longwire.accounts.people import People
    from longwire.accounts.presence import Presence
    from longwire.accounts.tags import Tags
    from longwire.accounts.uploads import Uploads
    from longwire.api.nodes import Nodes
    from longwire.ports.push_progress import PushProgress
    from longwire.push.commands import Commands
    from longwire.push.messages import Messages
    from longwire.push.pushes import Pushes
    from longwire.seeing.history import History
    from longwire.seeing.lookup import Lookup
    from longwire.webhooks.endpoints import Endpoints


class Unready(NamedTuple):
    """Why the process takes no work now; ``/readyz`` answers 503 with it."""

    code: Literal["overloaded", "draining", "store-unavailable", "no-node"]
    detail: str


Readiness = Callable[[], Unready | None]
"""None where the process takes work. Called on the loop for each ``/readyz``; must not wait."""


def always_ready() -> Unready | None:
    """A readiness for processes that serve as soon as they listen."""
    return None


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """The API's own bounds (API §4) and what it tells devices."""

    calls_per_s: float = 200
    """Calls of one key; 0: no limit."""
    call_burst: int = 400
    device_calls_per_s_per_address: float = 200
    """Calls of one client address at the devices' door; 0: no limit. Never applied to loopback."""
    device_call_burst_per_address: int = 2_000
    max_body_bytes: int = 1 << 20
    max_device_body_bytes: int = 131_072
    """A registration with the longest credentials, every character escaped, fits."""
    body_timeout_s: float = 10.0
    """How long a body may take to arrive."""
    max_upload_bytes: int = 80 << 20
    """A body of a route that reads it piece by piece: a million lines."""
    upload_timeout_s: float = 120.0
    upload_idle_s: float = 10.0
    """How long such a body may stand still."""
    max_streams: int = 64
    """Event streams at a time; one more is told to come back."""
    stream_s: float = 3_600.0
    """How long an event stream lasts; its reader opens another."""
    progress_every_s: float = 0.5
    stats_every_s: float = 1.0
    backoff_base_ms: int = 1_000
    backoff_max_ms: int = 120_000
    default_heartbeat_s: int = 60


class _Missing:
    """Stands for a service that this process was built without."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"this process has no service for {name}")


def _missing() -> Any:
    return _Missing()


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that the routes call; the composition root makes it."""

    clock: Clock
    registration: Registration
    tokens: Tokens
    placement: Placement
    devices: Devices
    api_keys: ApiKeys
    dead_letters: DeadLetters
    readiness: Readiness = always_ready
    limits: Limits = field(default_factory=Limits)
    settings: ApiSettings = field(default_factory=ApiSettings)
    pushes: "Pushes" = field(default_factory=_missing)
    messages: "Messages" = field(default_factory=_missing)
    uploads: "Uploads" = field(default_factory=_missing)
    tags: "Tags" = field(default_factory=_missing)
    groups: "Groups" = field(default_factory=_missing)
    imports: "Imports" = field(default_factory=_missing)
    presence: "Presence" = field(default_factory=_missing)
    commands: "Commands" = field(default_factory=_missing)
    webhooks: "Endpoints" = field(default_factory=_missing)
    nodes: "Nodes" = field(default_factory=_missing)
    idempotency: IdempotencyStore = field(default_factory=_missing)
    audit: AuditLog = field(default_factory=_missing)
    uplink: UplinkHistory = field(default_factory=_missing)
    message_store: MessageStore = field(default_factory=_missing)
    push_waiting: PushWaiting = field(default_factory=_missing)
    push_progress: "PushProgress" = field(default_factory=_missing)
    history: "History" = field(default_factory=_missing)
    people: "People" = field(default_factory=_missing)
    directives: "Directives" = field(default_factory=_missing)
    traces: Traces = NO_TRACES
    lookup: "Lookup" = field(default_factory=_missing)
