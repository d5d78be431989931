"""The uplink log: what devices send to the application, durable and in order."""

from collections.abc import Callable, Sequence
from typing import Protocol

from longwire.model import UplinkRecord
from longwire.reasons import Status

AppendCallback = Callable[[UplinkRecord, Status], None]


class UplinkLog(Protocol):
    """An append-only log with a cursor for each consumer; each device's records keep their order."""

    @property
    def queued_bytes(self) -> int:
        """Bytes accepted by ``append`` and not called back yet; the caller bounds it."""
        ...

    def append(self, record: UplinkRecord, done: AppendCallback) -> None:
        """Queues a record for the next commit; ``done`` runs on the loop, in the order of the calls.

        Status OK: durable. DUPLICATE: the device's message of this id is in the log already. NOT_DURABLE: not
        kept; try again.
        """
        ...

    async def read(self, consumer: str, limit: int) -> Sequence[UplinkRecord]:
        """The next records behind what this consumer has read, oldest first; waits until there is one.

        Records that were read and not flushed come again after a restart. Raises StoreUnavailable.
        """
        ...

    async def flush(self, consumer: str, offset: int) -> None:
        """Durably moves the consumer's cursor: everything up to ``offset`` is done. Raises StoreUnavailable."""
        ...

    async def bury(self, consumer: str, record: UplinkRecord, error: str) -> None:
        """Durably lays a record that its handler will not take among the dead letters. Raises StoreUnavailable."""
        ...
