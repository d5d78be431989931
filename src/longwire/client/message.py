"""What an application sends and gets: values without behaviour, and how a payload becomes bytes."""

from typing import NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from longwire.errors import LocalProtocolError
from longwire.ids import MESSAGE_ID_BYTES
from longwire.limits import MAX_KIND_CHARACTERS, MAX_TTL_S
from longwire.reasons import Status

T = TypeVar("T")

Payload = object
"""``bytes`` as they are, ``str`` as UTF-8, everything else as JSON (dicts, lists, structs, dataclasses ...)."""

_encode_json = msgspec.json.Encoder().encode


def payload_bytes(payload: Payload) -> bytes:
    """The bytes that travel. Raises TypeError for a value that JSON cannot say."""
    if isinstance(payload, bytes):
        return payload
    if isinstance(payload, str):
        return payload.encode()
    if isinstance(payload, (bytearray, memoryview)):
        return bytes(payload)
    return _encode_json(payload)


class Message(Struct, frozen=True, gc=False):
    """A message that this device received."""

    sender: str
    """``device:ID``; "" for the application, the HTTP API and pushes."""
    kind: str
    payload: bytes
    to: str
    """"" when it was sent to this device, else the ``user:ID`` or ``group:ID`` it was sent to."""
    message_id: bytes
    """16 bytes; (sender, message_id) names the message."""
    sent_at_ms: int
    """When the node accepted it, in ms since the Unix epoch."""
    collapse_key: str = ""
    is_reliable: bool = True
    """Whether it comes again until it is acknowledged; False: it came this once."""
    trace: bytes = b""
    """24 bytes of trace context (trace id, parent span id), or none."""

    def json(self) -> object:
        """The payload as JSON. Raises ``msgspec.DecodeError`` where it is not."""
        return msgspec.json.decode(self.payload)

    def text(self) -> str:
        """The payload as UTF-8. Raises UnicodeDecodeError where it is not."""
        return self.payload.decode()

    def decode(self, kind: type[T]) -> T:
        """The payload as JSON of this type. Raises ``msgspec.ValidationError`` where it is not."""
        return msgspec.json.decode(self.payload, type=kind)


class SendResult(NamedTuple):
    """What became of a message that was not refused."""

    status: Status
    """OK, or DUPLICATE: it was accepted when it came before."""
    message_id: bytes
    detail: str = ""
    is_confirmed: bool = True
    """False for ``receipt=False``: it was written, and nobody will say what became of it."""

    @property
    def is_duplicate(self) -> bool:
        return self.status is Status.DUPLICATE


class Reply(NamedTuple):
    """The answer to ``Device.request``."""

    payload: bytes
    detail: str = ""

    def json(self) -> object:
        """The payload as JSON. Raises ``msgspec.DecodeError`` where it is not."""
        return msgspec.json.decode(self.payload)

    def text(self) -> str:
        """The payload as UTF-8. Raises UnicodeDecodeError where it is not."""
        return self.payload.decode()


class SetAsideMessage(NamedTuple):
    """A message that the outbox will not send by itself, and why (``Device.set_aside_messages``)."""

    message_id: bytes
    to: str
    kind: str
    payload: bytes
    why: str


def check_message(to: str, kind: str, ttl_s: int, collapse_key: str, message_id: bytes) -> None:
    """Refuses what no node takes. Raises LocalProtocolError, naming the value and the limit."""
    try:
        f"{to}{kind}{collapse_key}".encode()
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"target, kind or collapse key is not UTF-8: {error.reason}") from error
    if not 1 <= len(kind) <= MAX_KIND_CHARACTERS:
        raise LocalProtocolError(f"kind of {len(kind)} characters is not 1-{MAX_KIND_CHARACTERS}")
    if not -1 <= ttl_s <= MAX_TTL_S:
        raise LocalProtocolError(f"ttl_s {ttl_s} is not within -1..{MAX_TTL_S}")
    if len(message_id) != MESSAGE_ID_BYTES:
        raise LocalProtocolError(f"message id of {len(message_id)} bytes is not {MESSAGE_ID_BYTES}")
