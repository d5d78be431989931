"""The errors of the system, told apart by whose fault they are.

A remote protocol error is the peer's: the connection it came on is closed with the code it names. A local
protocol error is ours: a caller asked for something that the protocol cannot say. Everything else that the
system raises on purpose derives from ``LongwireError``; messages state the fact and the limit.
"""


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


class RegistryUnavailable(LongwireError):
    """The registry does not take this now; nothing of the call was kept, and repeating it is safe."""
