"""The link: what the api, push workers and other nodes ask of the node that holds a session.

``Link`` is for who asks, wherever the session is; ``LinkedNode`` is what a node does when another process asks it.
"""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct
from pyroaring import BitMap

from longwire.model import Envelope
from longwire.operations_model import NodeReport, SessionView
from longwire.push_model import Broadcasted, BroadcastOrder, PushMessage, SegmentReceipts
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


class Forward(Struct, array_like=True, gc=False):
    """A message for sessions of one node."""

    message: PushMessage
    receivers: tuple[int, ...]
    seq: int = 0
    """Its place, where it is committed; 0: it goes at most once, and is not stored."""


class Taken(Struct, array_like=True, gc=False):
    """What a node did of a Forward. Who is in neither is there, and gets it later or does not read."""

    gone: tuple[int, ...] = ()
    """They have no session here, and none is about to stand."""
    written: tuple[int, ...] = ()
    """Who was written to; told only of what goes at most once."""


class Asked(Protocol):
    """What is asked in the same words of all nodes at once and of one, which answers for the sessions that it has."""

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

    async def call(
        self, device_no: int, command_id: bytes, method: str, payload: bytes, timeout_ms: int, trace: bytes = b""
    ) -> Called:
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


class Link(Asked, Protocol):
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

    async def drain(self, node_id: str, within_s: float) -> bool:
        """Has a node send its devices elsewhere; False where no such node lives. Raises StoreUnavailable."""
        ...

    async def undrain(self, node_id: str) -> bool:
        """Has a node take devices again; False where no such node lives. Raises StoreUnavailable."""
        ...

    async def move(self, node_id: str, count: int, within_s: float) -> int:
        """Has a node send so many of its devices elsewhere; how many it told.

        0 where no such node lives. Raises StoreUnavailable.
        """
        ...


class LinkedNode(Asked, Protocol):
    """What a node does when another process asks. The plain calls run in one turn of the loop and do not raise."""

    @property
    def node_id(self) -> str: ...

    def has(self, device_no: int) -> bool:
        """Whether a session of the device stands here."""
        ...

    def arrive(self, forwards: Sequence[Forward]) -> list[Taken]:
        """Offers messages to the sessions here, in their order; what became of each."""
        ...

    def spread(self, message: PushMessage, receivers: BitMap) -> None:
        """Writes a message at most once to those of the receivers who are here."""
        ...

    def end_older(self, sessions: Sequence[tuple[int, int]]) -> None:
        """Ends the sessions of these (device_no, epoch) that are older than the epoch: they are taken over."""
        ...

    def nudge(self, devices: BitMap) -> BitMap:
        """Has the devices' sessions read their inboxes; gives those who are not here."""
        ...

    def strike(self, device_no: int, code: CloseCode, reason: str) -> bool:
        """Closes the device's session, also one that is about to stand; whether one stood."""
        ...

    def begin_drain(self, within_s: float) -> None:
        """Begins to send the devices elsewhere, all within this time."""
        ...

    def end_drain(self) -> None:
        """Takes devices again."""
        ...

    def move_away(self, count: int, within_s: float) -> int:
        """Sends so many devices elsewhere; how many are told."""
        ...
