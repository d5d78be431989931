"""The errors of the system, told apart by whose fault they are.

A remote protocol error is the peer's: the connection it came on is closed with the code it names. A local
protocol error is ours: a caller asked for something that the protocol cannot say. Everything else that the
system raises on purpose derives from ``LongwireError``; messages state the fact and the limit.
"""

from longwire.reasons import CloseCode


class LongwireError(Exception):
    """Base of every error that Longwire raises on purpose."""


class RemoteProtocolError(LongwireError):
    """The peer broke the protocol; its connection closes with ``code`` (PROTOCOL §4).

    ``code`` is one of ours or, for a violation of RFC 6455, a WebSocket close code (1002, 1003, 1007, 1009).
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def reason(self) -> str:
        return str(self)


class LocalProtocolError(LongwireError):
    """Our side asked the codec for something that the protocol cannot express."""


class StoreUnavailable(LongwireError):
    """The store does not take or give this now; nothing of the call was kept, and repeating it is safe."""


class SessionClosed(LongwireError):
    """The connection that this call stood on has ended, with the close code that ended it."""

    def __init__(self, code: CloseCode, reason: str, may_reconnect: bool, retry_after_ms: int) -> None:
        super().__init__(f"connection closed with {int(code)} {code.label}: {reason}")
        self.code = code
        self.reason = reason
        self.may_reconnect = may_reconnect
        self.retry_after_ms = retry_after_ms
