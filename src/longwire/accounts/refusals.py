"""What the services refuse, by code: the HTTP API answers with the same words (API §1)."""

from enum import StrEnum

from longwire.errors import LongwireError


class RefusalCode(StrEnum):
    """Why a service said no."""

    AUTH_INVALID = "auth-invalid"
    TOKEN_EXPIRED = "token-expired"  # noqa: S105 - a code, not a secret
    DEVICE_DISABLED = "device-disabled"
    NOT_FOUND = "not-found"
    RATE_LIMITED = "rate-limited"
    OVERLOADED = "overloaded"
    NO_NODE = "no-node"


class Refused(LongwireError):
    """A service refuses, by its rules; nothing of the call was kept."""

    def __init__(self, code: RefusalCode, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_s = retry_after_s
        """When repeating may help; None where it does not."""
