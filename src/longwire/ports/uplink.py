"""The uplink log: what devices send to the application, durable and in order."""

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

from longwire.model import UplinkRecord
from longwire.reasons import Status

AppendCallback = Callable[[UplinkRecord, Status], None]


class UplinkWriter(Protocol):
    """Where a node puts what devices send to the application; each device's records keep their order."""

    @property
    def queued_bytes(self) -> int:
        """Bytes accepted by ``append`` and not called back yet; the caller bounds it."""
        ...

    def append(self, record: UplinkRecord, done: AppendCallback) -> None:
        """Queues a record for the next commit; ``done`` runs on the loop, a device's in the order of the calls.

        Status OK: durable. DUPLICATE: the device's message of this id is in the log already; where the engine cannot
        tell, it is OK and the readers get it once. NOT_DURABLE: not kept; try again. Records that are refused at
        once may be told before those that are under way.
        """
        ...


class UplinkReader(Protocol):
    """The log as a consumer sees it: its records once, in order a device, and a cursor.

    Offsets rise in the order in which records are read; they are those of this reader.
    """

    async def read(self, consumer: str, limit: int) -> Sequence[UplinkRecord]:
        """The next records behind what this consumer has read, oldest first; waits until there is one.

        Records that were read and not flushed come again after a restart, here or at another reader of the same
        name. Raises StoreUnavailable.
        """
        ...

    def holds(self, consumer: str, record: UplinkRecord) -> bool:
        """Whether a record that was read is this reader's to handle; False: another has taken it over."""
        ...

    async def flush(self, consumer: str, offset: int) -> None:
        """Durably moves the consumer's cursor: everything up to ``offset`` is done. Raises StoreUnavailable."""
        ...

    async def bury(self, consumer: str, record: UplinkRecord, error: str) -> None:
        """Durably lays a record that its handler will not take among the dead letters. Raises StoreUnavailable."""
        ...


class UplinkHistory(Protocol):
    """The records of the last days, to be looked through."""

    async def records(
        self, before: int, device_no: int | None, kind: str | None, since_ms: int, limit: int
    ) -> tuple[Sequence[UplinkRecord], int | None]:
        """Records with an offset below ``before`` (0: from the newest), newest first, and where to go on (None: done).

        A call looks at a bounded number of records and may give fewer than ``limit``. Raises StoreUnavailable.
        """
        ...


class UplinkLog(UplinkWriter, UplinkReader, UplinkHistory, Protocol):
    """All of it in one, as one process has it."""


class DeadLetter(Struct, frozen=True):
    """A record that its consumer's handler would not take, and what has become of it."""

    letter_no: int
    consumer: str
    record: UplinkRecord
    """As it was read; its offset is the one it had then."""
    error: str
    buried_at_ms: int
    replayed_at_ms: int | None = None


class DeadLetters(Protocol):
    """The dead letters of an uplink log. Every call raises StoreUnavailable where the store does not answer."""

    async def dead_letters(self, after: int, limit: int) -> Sequence[DeadLetter]:
        """Letters with a number below ``after`` (0: from the newest), newest first."""
        ...

    async def dead_letter(self, letter_no: int) -> DeadLetter | None:
        """The letter of this number."""
        ...

    async def replay(self, letter_no: int) -> DeadLetter | None:
        """Durably puts the letter's record at the log's end, under its own message id, and marks the letter.

        Every consumer reads it once more; if the handler fails again, that makes a letter of its own. A letter
        that was replayed before is given back as it is, and nothing happens. None where there is no such letter.
        """
        ...
