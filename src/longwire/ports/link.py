"""The link: what the api, push workers and other nodes ask of the node that holds a session."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct
from pyroaring import BitMap

from longwire.model import Envelope
from longwire.operations_model import NodeReport, SessionView
from longwire.push_model import Broadcasted, BroadcastOrder, SegmentReceipts
from longwire.reasons import CloseCode, Status


class Sent(Struct, frozen=True):
    """What became of a one-to-one message."""

    status: Status
    delivered_to: tuple[int, ...] = ()
    """Receivers with a session: it is on its way to them."""
    queued_for: tuple[int, ...] = ()
    acked_by: tuple[int, ...] = ()
    """Those who acknowledged while the caller waited."""


class Called(Struct, frozen=True):
    """A device's answer to a request. TIMEOUT: the outcome is unknown. OFFLINE: it has no session."""

    status: Status
    payload: bytes = b""
    detail: str = ""


class Link(Protocol):
    """Reaches sessions wherever they are."""

    async def close_session(self, device_no: int, code: CloseCode, reason: str) -> bool:
        """Closes the device's session if it has one; whether it had."""
        ...

    async def send(self, envelope: Envelope, wait_ack_s: float = 0.0) -> Sent:
        """Commits a message of the application and delivers it; returns once it is durable or refused, and with
        ``wait_ack_s`` once every receiver acknowledged it, or that time is over."""
        ...

    async def send_many(self, envelopes: Sequence[Envelope]) -> list[Sent]:
        """As ``send``, each with its own outcome, in as few commits as come; nobody waits for acknowledgements."""
        ...

    def number_of(self, device_id: str) -> int | None:
        """The number of a device with a session, where that is known without waiting; None says nothing."""
        ...

    async def broadcast(self, node_id: str, order: BroadcastOrder) -> Broadcasted:
        """Has a node write a push to those of the receivers that are there.

        Refused where the node knows a later lease of the segment, or that the push has ended. Cancelling the caller
        does not undo what is written. Raises StoreUnavailable where the node does not answer.
        """
        ...

    async def end_push(self, push_no: int) -> list[SegmentReceipts]:
        """No node writes this push any more when this returns; what nodes had gathered and not flushed."""
        ...

    async def catch_up(self, devices: BitMap) -> None:
        """Has the sessions of these devices look whether a push waits: after a pause has ended."""
        ...

    async def call(self, device_no: int, command_id: bytes, method: str, payload: bytes, timeout_ms: int) -> Called:
        """Asks a method of the device. A reply that comes after TIMEOUT goes to the command store."""
        ...

    async def sessions(self, device_nos: Sequence[int]) -> list[SessionView | None]:
        """The live session of each device."""
        ...

    async def report(self, node_id: str) -> NodeReport | None:
        """What the node says of itself; None where it does not answer."""
        ...

    def session_count(self) -> int:
        """Sessions, as last known; never waits."""
        ...
