"""The message store: what was accepted, what waits for whom, and what became of it.

Writes are plain calls that queue; the adapter gathers what is queued into one commit and calls back on the loop
once that commit is durable. So a caller pays no task and no future for a message, and the disk one sync for many.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from longwire.model import Committed, Envelope, InboxQuery, Receipt, Waiting

CommitCallback = Callable[[Envelope, Committed], None]


class MessageStore(Protocol):
    """One-to-one messages, keyed (sender, message id), and the inboxes of the devices."""

    @property
    def queued_bytes(self) -> int:
        """Payload bytes accepted by ``commit`` and not called back yet; the caller bounds it."""
        ...

    def commit(self, envelope: Envelope, done: CommitCallback) -> None:
        """Queues a message for the next commit.

        ``done`` runs on the loop, in the order of the calls, when the message and its inbox rows are durable, or
        with DUPLICATE, OVERLOADED or NOT_DURABLE when nothing was kept of this call. Refused messages are not
        remembered. A message with a collapse key ends those that wait for the same receiver from the same sender
        under the same key. Where a receiver's inbox would exceed its bound, the message is refused for all
        (OVERLOADED) if the envelope says that this receiver is online; otherwise the receiver's oldest ones go
        and count as missed.
        """
        ...

    def acknowledge(self, receipts: Sequence[Receipt]) -> None:
        """Queues the end of inbox rows for the next commit. Rows that are gone already are no error.

        Lost when the process dies before the commit: the messages are delivered again.
        """
        ...

    def told_missed(self, device_no: int, count: int) -> None:
        """Queues that the device knows of ``count`` missed messages; later ones stay counted."""
        ...

    async def waiting(self, queries: Sequence[InboxQuery], now_ms: int) -> list[list[Waiting]]:
        """For each query the unexpired messages behind ``after_seq``, oldest first, at most ``limit``.

        Sees every message whose ``done`` has run. Raises StoreUnavailable.
        """
        ...

    async def who_may_wait(self, device_nos: Sequence[int]) -> set[int]:
        """Those of the devices for whom something may wait: a hint that answers most connects without a query.

        Never leaves out a device for whom something waits whose ``done`` has run. Raises StoreUnavailable.
        """
        ...

    async def oldest_waiting(self, device_nos: Sequence[int], now_ms: int) -> dict[int, int]:
        """The place of the oldest message that waits for each; without those for whom nothing does.

        Raises StoreUnavailable.
        """
        ...

    async def acked_by(self, seq: int) -> set[int]:
        """Who has acknowledged the message at this place, as far as that is committed. Raises StoreUnavailable."""
        ...

    async def still_waiting(self, wanted: Sequence[tuple[int, int]], now_ms: int) -> list[Waiting | None]:
        """For each (device_no, seq) the message, or None where it no longer waits. Raises StoreUnavailable."""
        ...

    async def empty_inbox(self, device_no: int) -> int:
        """Withdraws everything that waits for the device; how many those were. Raises StoreUnavailable."""
        ...
