"""What the services refuse, by code: the HTTP API answers with the same words (API §1)."""

from collections.abc import Mapping
from enum import StrEnum

from longwire.errors import LongwireError


class RefusalCode(StrEnum):
    """Why a service said no."""

    AUTH_INVALID = "auth-invalid"
    TOKEN_EXPIRED = "token-expired"  # noqa: S105 - a code, not a secret
    DEVICE_DISABLED = "device-disabled"
    NOT_FOUND = "not-found"
    DEVICE_OFFLINE = "device-offline"
    STATE_CONFLICT = "state-conflict"
    ALREADY_EXISTS = "already-exists"
    IDEMPOTENCY_IN_PROGRESS = "idempotency-in-progress"
    IDEMPOTENCY_KEY_REUSED = "idempotency-key-reused"
    PAYLOAD_TOO_LARGE = "payload-too-large"
    INVALID_PARAMETER = "invalid-parameter"
    NO_TARGET = "no-target"
    AUDIENCE_TOO_COMPLEX = "audience-too-complex"
    TTL_OUT_OF_RANGE = "ttl-out-of-range"
    SCHEDULE_IN_PAST = "schedule-in-past"
    COMMAND_TIMEOUT = "command-timeout"
    RATE_LIMITED = "rate-limited"
    OVERLOADED = "overloaded"
    NO_NODE = "no-node"


class Refused(LongwireError):
    """A service refuses, by its rules; nothing of the call was kept."""

    def __init__(
        self,
        code: RefusalCode,
        message: str,
        retry_after_s: float | None = None,
        more: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_s = retry_after_s
        """When repeating may help; None where it does not."""
        self.more = more or {}
        """Further members of the answer: limit, actual, command_id."""
