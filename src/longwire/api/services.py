"""What the API stands on: the services that its routes call, and its settings."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from longwire.accounts.api_keys import ApiKeys
from longwire.accounts.devices import Devices
from longwire.accounts.placement import Placement
from longwire.accounts.registration import Registration
from longwire.accounts.tokens import Tokens
from longwire.clock import Clock
from longwire.limits import Limits
from longwire.ports.uplink import DeadLetters


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
    backoff_base_ms: int = 1_000
    backoff_max_ms: int = 120_000
    default_heartbeat_s: int = 60


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
