"""What the SDK raises, told apart by what the caller can do about it.

ClientError
├── Refused            the node or the application said no: ``status``, ``detail``, ``retry_after_ms``
│   └── UnknownTarget, NotPermitted, TooLarge, ...  one class for each status of PROTOCOL §3
├── NotSent            the outbox could not get the message out: Expired, SetAside, OutboxFull, SendTimeout
├── NotConnected       there is no session now: DeviceStopped, DeviceClosed, ConnectionLost, RequestTimeout
└── StateError         the state file cannot be used
"""

from longwire.errors import LongwireError
from longwire.reasons import Status


class ClientError(LongwireError):
    """Base of every error that the SDK raises on purpose."""


class Refused(ClientError):
    """A SEND or a REQUEST was answered with a status other than success.

    ``retry_after_ms``: how long to wait before trying again; 0 where the answer named no time.
    """

    def __init__(self, status: int, detail: str = "", retry_after_ms: int = 0, payload: bytes = b"") -> None:
        label = _label(status)
        super().__init__(f"{label} ({status}): {detail}" if detail else f"{label} ({status})")
        self.status = status
        self.detail = detail
        self.retry_after_ms = retry_after_ms
        self.payload = payload
        """What came with the refusal of a REQUEST."""


class UnknownTarget(Refused):
    """10: no such device, user or group is registered."""


class NotPermitted(Refused):
    """11: this device may not send there."""


class TooLarge(Refused):
    """12: the message exceeds what a frame or the node's payload limit allows. Also found without asking."""


class RateLimited(Refused):
    """13: more frames a second than the node grants this session."""


class Overloaded(Refused):
    """14: the receiver's inbox or the node is full."""


class Unsupported(Refused):
    """15: nobody handles this method, or the node does not support this kind of target."""


class BadRequest(Refused):
    """16: a value that cannot be: a malformed target, kind, TTL or message id, or an undecodable payload."""


class HandlerFailed(Refused):
    """17: the handler on the other side raised."""


class TimedOut(Refused):
    """18: the other side had no answer in time."""


class Offline(Refused):
    """19: the target is not online now, and the message was for now only. Also found without asking."""


class NotDurable(Refused):
    """20: the store or log did not take it."""


class NotSent(ClientError):
    """The outbox gives a message up, or stops waiting for it."""

    def __init__(self, message: str, message_id: bytes = b"") -> None:
        super().__init__(message)
        self.message_id = message_id


class OutboxFull(NotSent):
    """The outbox holds as much as it may; this message was not taken."""


class Expired(NotSent):
    """The message waited in the outbox for as long as it was worth sending."""


class SetAside(NotSent):
    """The node closed connections over this message (4009-4011); it is kept aside and not sent again.

    See ``Device.set_aside_messages``, ``retry`` and ``discard``.
    """


class Discarded(NotSent):
    """``Device.discard`` took the message out of the outbox."""


class SendTimeout(NotSent, TimeoutError):
    """``send`` waited its ``timeout_s``. The message stays in the outbox and goes on being sent.

    Send again with the same ``message_id`` to wait for its outcome, or ``Device.discard`` it.
    """


class NotConnected(ClientError):
    """There is no session, and this call needs one now."""


class ConnectionLost(NotConnected):
    """The connection went before the answer came; whether the call was carried out is unknown."""


class RequestTimeout(NotConnected, TimeoutError):
    """No REPLY came in time; whether the call was carried out is unknown."""


class DeviceStopped(NotConnected):
    """The device does not reconnect by itself: taken over, kicked, disabled, or out of credentials.

    ``Device.reconnect`` tries again. What waits in the outbox stays there.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"stopped by {code}: {reason}")
        self.code = code
        self.reason = reason


class DeviceClosed(NotConnected):
    """``Device.close`` was called, or the ``async with`` block has ended."""


class StateError(ClientError):
    """The state file cannot be used: unreadable, full, of another device, or open in another process."""


class UndecodableMessage(ClientError):
    """A message's payload is not of the type that its callback's annotation asks for. Reported, never raised."""


class Unhandled(ClientError):
    """A message that no callback is for and nobody iterates over was let go. Reported, never raised."""


_BY_STATUS: dict[int, type[Refused]] = {
    Status.UNKNOWN_TARGET: UnknownTarget,
    Status.NOT_PERMITTED: NotPermitted,
    Status.TOO_LARGE: TooLarge,
    Status.RATE_LIMITED: RateLimited,
    Status.OVERLOADED: Overloaded,
    Status.UNSUPPORTED: Unsupported,
    Status.BAD_REQUEST: BadRequest,
    Status.HANDLER_FAILED: HandlerFailed,
    Status.TIMEOUT: TimedOut,
    Status.OFFLINE: Offline,
    Status.NOT_DURABLE: NotDurable,
}


def refused(status: int, detail: str = "", retry_after_ms: int = 0, payload: bytes = b"") -> Refused:
    """The error of the class that ``status`` names; plain ``Refused`` for a status of a later version."""
    return _BY_STATUS.get(status, Refused)(status, detail, retry_after_ms, payload)


def _label(status: int) -> str:
    try:
        return Status(status).label
    except ValueError:
        return "status"
