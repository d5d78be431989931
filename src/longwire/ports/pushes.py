"""Pushes as operators see them: made, read, steered. Durable when a call returns; raises StoreUnavailable."""

from collections.abc import Sequence
from typing import Protocol

from pyroaring import BitMap

from longwire.errors import LongwireError
from longwire.push_model import KeptAnswer, NewPush, Push, PushStatus, RecipientState, SegmentReceipts


class AnsweredBefore(LongwireError):
    """A call with this Idempotency-Key was answered; nothing of the new one was kept."""

    def __init__(self, kept: KeptAnswer) -> None:
        super().__init__(f"key {kept.key!r} was answered before")
        self.kept = kept


class TooManyPushes(LongwireError):
    """As many pushes are live as may be; nothing of the new one was kept."""


class StateConflict(LongwireError):
    """What the push is now does not allow it."""


class PushStore(Protocol):
    """Rows a push grow with segments, never with devices."""

    async def create(self, new: NewPush, devices: BitMap, keep: KeptAnswer | None = None) -> tuple[Push, bool]:
        """Keeps the push, its audience by segment, what it collapses, and the answer: all or nothing.

        With the push, whether it is new: a sender's message id that is known gives the push it made. A push with
        ``send_at_ms`` is kept as scheduled, and ``devices`` are not looked at. Raises AnsweredBefore, TooManyPushes.
        """
        ...

    async def find(self, push_id: bytes, now_ms: int) -> Push | None: ...

    async def page(self, before_no: int, limit: int, status: PushStatus | None, now_ms: int) -> list[Push]:
        """Newest first, below ``before_no`` (0: from the newest), without notices and pushes of devices."""
        ...

    async def set_paused(self, push_no: int, is_paused: bool) -> bool:
        """False where it is not being sent. As it is already: True."""
        ...

    async def set_rate(self, push_no: int, rate_per_s: int | None) -> bool:
        """False where it is sent, or has ended."""
        ...

    async def cancel(self, push_no: int, now_ms: int) -> bool:
        """Ends every lease; no claim and no catch-up gives this push any more. Canceled before: True; False where it
        had ended otherwise."""
        ...

    async def finish_cancel(self, push_no: int, receipts: Sequence[SegmentReceipts], now_ms: int) -> None:
        """Merges the receipts, then ends who was not written to as canceled. Repeating it is no error."""
        ...

    async def withdraw(
        self, push_no: int, receipts: Sequence[SegmentReceipts], notice: NewPush, now_ms: int
    ) -> tuple[Push, bool]:
        """Merges the receipts, ends the rest as withdrawn, and keeps the notice for who was written to or acked.

        With the notice, whether anybody is to get it. Withdrawn before: the notice of then. Raises StateConflict
        where there is no such push, or it failed.
        """
        ...

    async def in_state(self, push_no: int, state: RecipientState, now_ms: int) -> BitMap | None:
        """The devices in this state; None where the detail is no longer kept."""
        ...

    async def state_of(self, push_no: int, device_no: int, now_ms: int) -> tuple[RecipientState, bool, str] | None:
        """A device's state, whether it was written to, and the reason of a failure; None outside the audience."""
        ...

    async def reasons(self, push_no: int, device_nos: Sequence[int]) -> dict[int, str]:
        """Why it failed, by device, for those of the devices for whom that is kept."""
        ...

    async def drift(self, after: tuple[int, int], limit: int, now_ms: int) -> tuple[list[str], tuple[int, int] | None]:
        """Looks at ``limit`` segments behind (push_no, segment): what does not add up, and where to go on."""
        ...
