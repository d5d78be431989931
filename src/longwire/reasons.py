"""Why a connection ends and how a message fared: every close code and status of the protocol, once.

The same numbers stand in CLOSE, in the WebSocket close frame and as the metrics' labels (PROTOCOL §3, §4).
40xx: the device may reconnect; 41xx: not until its user or its credentials change.
"""

from enum import IntEnum

PROTOCOL_FAULT_RETRY_MS = 60_000


class CloseCode(IntEnum):
    """A connection's end (PROTOCOL §4)."""

    DRAINING = 4000
    TOKEN_EXPIRED = 4001
    REBALANCED = 4002
    OVERLOADED = 4003
    SLOW_CONSUMER = 4004
    HEARTBEAT_TIMEOUT = 4005
    HANDSHAKE_TIMEOUT = 4006
    INTERNAL_ERROR = 4007
    SESSION_LOST = 4008
    PROTOCOL_ERROR = 4009
    TOO_LARGE = 4010
    UNSUPPORTED = 4011
    TAKEN_OVER = 4100
    KICKED = 4101
    DISABLED = 4102
    BANNED = 4103
    BAD_CREDENTIALS = 4104
    NOT_PERMITTED = 4105

    @property
    def label(self) -> str:
        """The code's name as metrics and logs say it: ``heartbeat_timeout``."""
        return self.name.lower()

    @property
    def may_reconnect(self) -> bool:
        """Whether a device may come back by itself after this code."""
        return self < 4100

    @property
    def least_retry_after_ms(self) -> int:
        """The shortest ``retry_after_ms`` that goes out with this code."""
        return PROTOCOL_FAULT_RETRY_MS if 4009 <= self <= 4011 else 0


class Status(IntEnum):
    """How a SEND, a REQUEST or a SUBSCRIBE fared (PROTOCOL §3)."""

    OK = 0
    DUPLICATE = 1
    UNKNOWN_TARGET = 10
    NOT_PERMITTED = 11
    TOO_LARGE = 12
    RATE_LIMITED = 13
    OVERLOADED = 14
    UNSUPPORTED = 15
    BAD_REQUEST = 16
    HANDLER_FAILED = 17
    TIMEOUT = 18
    OFFLINE = 19
    NOT_DURABLE = 20

    @property
    def label(self) -> str:
        """The status's name as metrics and logs say it: ``rate_limited``."""
        return self.name.lower()

    @property
    def is_success(self) -> bool:
        """Whether the message was accepted: now, or when it first came."""
        return self <= Status.DUPLICATE
