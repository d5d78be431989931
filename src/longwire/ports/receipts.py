"""The log of receipts: who acknowledged which push, on the way from a node to the store."""

from collections.abc import Callable, Sequence
from typing import Protocol

from longwire.push_model import SegmentReceipts
from longwire.reasons import Status

ReceiptsCallback = Callable[[Sequence[SegmentReceipts], Status], None]


class ReceiptLog(Protocol):
    """At least once; merging the same twice changes nothing but the latency's counts."""

    def append(self, receipts: Sequence[SegmentReceipts], done: ReceiptsCallback) -> None:
        """Queues receipts for the next commit; ``done`` runs on the loop: OK when durable, else NOT_DURABLE.

        The caller does not change the bitmaps until then.
        """
        ...
