"""The log of receipts in one process: straight into the store, which merges what comes together in one commit."""

from collections.abc import Sequence

from longwire.adapters.sql.pushes import SqlPushes
from longwire.ports.receipts import ReceiptsCallback
from longwire.push_model import SegmentReceipts


class EmbeddedReceipts:
    """ports.receipts.ReceiptLog; what waits is bounded by the nodes, which have one batch of a push under way."""

    def __init__(self, pushes: SqlPushes) -> None:
        self._pushes = pushes

    def append(self, receipts: Sequence[SegmentReceipts], done: ReceiptsCallback) -> None:
        self._pushes.merge(receipts, done)
