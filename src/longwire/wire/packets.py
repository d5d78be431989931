"""Every packet of the device protocol as a typed value (PROTOCOL §2).

A packet is the body of a frame; its class names its command. On the native protocol a body is a msgpack array
of the fields in this order: fields with a default may be left out at the end, further ones are ignored. The
frame's own facts (flags, correlation id, trace context) travel beside it in ``Received``.
"""

from enum import IntEnum
from typing import ClassVar

from msgspec import Struct

FLAG_RECEIPT = 2
"""The sender wants a receipt (SEND) or an acknowledgement (PUSH)."""
FLAG_TRACE = 4
"""The body begins with a 24-byte trace context."""
TRACE_BYTES = 24


class Command(IntEnum):
    """The third byte of a frame."""

    CONNECT = 0x01
    CONNECTED = 0x02
    PING = 0x03
    PONG = 0x04
    RENEW = 0x05
    RENEWED = 0x06
    MOVE = 0x07
    CLOSE = 0x08
    SEND = 0x10
    SENT = 0x11
    PUSH = 0x20
    ACK = 0x21
    REQUEST = 0x30
    REPLY = 0x31
    SUBSCRIBE = 0x40
    SUBSCRIBED = 0x41
    UNSUBSCRIBE = 0x42
    UNSUBSCRIBED = 0x43


class Packet(Struct, array_like=True, gc=False):
    """Base of all packets."""

    command: ClassVar[Command]


class Connect(Packet):
    """Proves who the device is; the first frame of a connection."""

    command: ClassVar = Command.CONNECT
    token: str
    device_id: str
    heartbeat_s: int = 60
    platform: str = ""
    app_version: str = ""


class Connected(Packet):
    """The session stands, under these terms."""

    command: ClassVar = Command.CONNECTED
    session_id: str
    heartbeat_s: int
    node_id: str
    server_time_ms: int
    missed: int
    max_body_bytes: int
    token_expires_in_s: int


class Ping(Packet):
    """Asks for a PONG; has no body."""

    command: ClassVar = Command.PING


class Pong(Packet):
    """Answers a PING; has no body."""

    command: ClassVar = Command.PONG


class Renew(Packet):
    """Asks for a new token, or puts the session under the one given."""

    command: ClassVar = Command.RENEW
    token: str = ""


class Renewed(Packet):
    """The token the session goes on under."""

    command: ClassVar = Command.RENEWED
    token: str
    expires_in_s: int


class Move(Packet):
    """Go to another node: within so many ms, to ``address`` or, where it is "", to one the api names."""

    command: ClassVar = Command.MOVE
    within_ms: int
    reason: str
    address: str


class Close(Packet):
    """The connection ends, and why; see reasons.CloseCode."""

    command: ClassVar = Command.CLOSE
    code: int
    reason: str
    may_reconnect: bool
    retry_after_ms: int


class Send(Packet):
    """A message of the device to ``to``: "" the application, ``device:``, ``user:``, ``group:``, ``topic:``."""

    command: ClassVar = Command.SEND
    message_id: bytes
    to: str
    kind: str
    payload: bytes
    ttl_s: int = -1
    collapse_key: str = ""


class Sent(Packet):
    """How the SEND of the same correlation id fared; see reasons.Status."""

    command: ClassVar = Command.SENT
    status: int
    detail: str = ""
    retry_after_ms: int = 0


class Push(Packet):
    """A message to the device; the frame's correlation id is the node's handle for it."""

    command: ClassVar = Command.PUSH
    message_id: bytes
    kind: str
    sender: str
    payload: bytes
    sent_at_ms: int
    collapse_key: str = ""
    to: str = ""


class Ack(Struct, gc=False):
    """The application has the message of the frame's handle, and those of the further ones."""

    command: ClassVar = Command.ACK
    handles: list[int] = []


class Request(Packet):
    """A call with an answer."""

    command: ClassVar = Command.REQUEST
    method: str
    payload: bytes
    timeout_ms: int = 10_000


class Reply(Packet):
    """The answer to the REQUEST of the same correlation id."""

    command: ClassVar = Command.REPLY
    status: int
    payload: bytes
    detail: str = ""


class Subscribe(Packet):
    """Asks for the messages of topics."""

    command: ClassVar = Command.SUBSCRIBE
    topics: list[str]


class Subscribed(Packet):
    """A status for each topic, in order."""

    command: ClassVar = Command.SUBSCRIBED
    statuses: list[int]


class Unsubscribe(Packet):
    """Asks for no more messages of topics."""

    command: ClassVar = Command.UNSUBSCRIBE
    topics: list[str]


class Unsubscribed(Packet):
    """A status for each topic, in order."""

    command: ClassVar = Command.UNSUBSCRIBED
    statuses: list[int]


AnyPacket = Packet | Ack


class Received(Struct, gc=False):
    """A decoded frame: its packet and what its header said."""

    command: int
    flags: int
    correlation: int
    packet: AnyPacket
    trace: bytes = b""

    @property
    def wants_receipt(self) -> bool:
        return self.flags & FLAG_RECEIPT != 0


FROM_DEVICE: tuple[type[AnyPacket], ...] = (
    Connect,
    Ping,
    Pong,
    Renew,
    Close,
    Send,
    Ack,
    Request,
    Reply,
    Subscribe,
    Unsubscribe,
)
FROM_NODE: tuple[type[AnyPacket], ...] = (
    Connected,
    Ping,
    Pong,
    Renewed,
    Move,
    Close,
    Sent,
    Push,
    Request,
    Reply,
    Subscribed,
    Unsubscribed,
)
