"""What is kept of a message's way, to be read when somebody asks where it is."""

from collections.abc import Sequence
from enum import IntEnum, StrEnum
from typing import Protocol

from msgspec import Struct

from longwire.model import Outcome
from longwire.operations_model import AuditEntry, PastSession


class RefKind(IntEnum):
    """What a trace points to. The numbers are kept."""

    MESSAGE = 1
    UPLINK = 2
    PUSH = 3
    COMMAND = 4


class TraceRef(Struct, frozen=True):
    """Something that belongs to a trace, by its id."""

    kind: RefKind
    ref: bytes
    at_ms: int


class MessageRow(Struct, frozen=True):
    """A reliable message as it is kept, without its payload."""

    seq: int
    sender_no: int
    sender: str
    message_id: bytes
    to: str
    kind: str
    sent_at_ms: int
    expires_at_ms: int
    trace: bytes
    payload_bytes: int
    receivers: tuple[int, ...] | None
    """Rising. None: a process of an older release kept it."""


class ReceiverRow(Struct, frozen=True):
    """One receiver of a message: what lies in its inbox, or how it ended there."""

    device_no: int
    outcome: Outcome | None
    """None: it has not ended there."""
    at_ms: int
    """When it ended; 0 before."""
    node_id: str
    """Of an acknowledgement: where the device was."""
    is_waiting: bool = False
    """It lies in the inbox."""


class Letter(Struct, frozen=True):
    """A dead letter, without its record."""

    letter_no: int
    consumer: str
    error: str
    buried_at_ms: int
    replayed_at_ms: int | None


class UplinkRow(Struct, frozen=True):
    """What a device sent to the application, without its payload. ``offset`` 0: only its dead letters are left."""

    device_no: int
    device_id: str
    message_id: bytes
    kind: str
    sent_at_ms: int
    trace: bytes
    payload_bytes: int
    offset: int
    behind: int | None
    """Records up to and with this one that the application has not handled; 0: it is past it. None: the log is of
    another engine, and this is what its reader has taken."""
    letters: tuple[Letter, ...] = ()
    """Newest first."""


class ReceiverMessage(Struct, frozen=True):
    """A message as one device has it."""

    seq: int
    message_id: bytes
    sender: str
    to: str
    kind: str
    sent_at_ms: int
    expires_at_ms: int
    outcome: Outcome | None
    at_ms: int


class WebhookProgress(StrEnum):
    """What webhooks know of an acknowledgement."""

    NOBODY = "nobody"
    """No webhook takes message.acked."""
    WAITING = "waiting"
    TOLD = "told"
    BURIED = "buried"
    """A webhook would not take it."""
    UNKNOWN = "unknown"
    """More waits, or was buried, than is looked through."""


class TraceRows(Protocol):
    """Reads only; every list is bounded. Raises StoreUnavailable."""

    async def messages(self, message_id: bytes) -> list[MessageRow]:
        """Messages of this id, of whichever senders."""
        ...

    async def receivers(self, message: MessageRow, device_nos: Sequence[int] | None, limit: int) -> list[ReceiverRow]:
        """What became of a message at its receivers, or at those of ``device_nos`` that it had."""
        ...

    async def before(self, device_no: int, seq: int, now_ms: int) -> int:
        """How many messages wait for a device before this place; counts to 1,000."""
        ...

    async def uplink(self, message_id: bytes) -> list[UplinkRow]:
        """Records of this id, of whichever devices, and those of which only a dead letter is left."""
        ...

    async def refs(self, trace_id: bytes, limit: int = 100) -> list[TraceRef]:
        """What belongs to the trace, oldest first."""
        ...

    async def past_sessions(self, device_no: int, before_epoch: int, limit: int) -> list[PastSession]:
        """Connections that have ended, newest first, below ``before_epoch`` (0: from the newest)."""
        ...

    async def sessions_at(self, device_no: int, from_ms: int, until_ms: int, limit: int) -> list[PastSession]:
        """Connections that have ended and stood at some time between, oldest first."""
        ...

    async def recent_messages(self, device_no: int, limit: int) -> list[ReceiverMessage]:
        """The newest messages of a device: what waits, and what has ended among the last messages of all."""
        ...

    async def webhook_progress(self, message: MessageRow, device_no: int, acked_at_ms: int) -> WebhookProgress:
        """Whether webhooks have been told of an acknowledgement."""
        ...

    async def request(self, request_id: str) -> AuditEntry | None:
        """The audited call of this request id."""
        ...
