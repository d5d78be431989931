"""The outbox of events for webhooks, the webhooks, and their dead letters."""

from collections.abc import Sequence
from typing import Protocol

from longwire.operations_model import Event, Webhook, WebhookLetter

EVENT_KINDS = (
    "message.acked",
    "message.missed",
    "push.acked",
    "push.completed",
    "presence.online",
    "presence.offline",
    "uplink",
    "uplink.dead_letter",
)
"""Everything that webhooks can be told. ``uplink`` alone is not in the outbox: the uplink log itself is read."""


def consumer_of(webhook_no: int) -> str:
    """As which a webhook reads the uplink log."""
    return f"webhook:{webhook_no}"


class EventLog(Protocol):
    """Receipts put their events into it in their own transaction; presence appends. Order of ``event_no`` holds."""

    def wants(self, kind: str) -> bool:
        """Whether any webhook takes this kind: from memory, so that nobody pays for events that nobody wants."""
        ...

    def append(self, event: Event) -> None:
        """Queues for the next commit; lost with the process before it."""
        ...

    async def read(self, webhook_no: int, after_no: int, limit: int) -> Sequence[Event]:
        """Events with a number above ``after_no`` that the webhook wants, oldest first; waits for the first.

        Everything up to ``after_no`` must have been flushed. Cancelling loses nothing. Raises StoreUnavailable.
        """
        ...

    async def flush(self, webhook_no: int, event_no: int, now_ms: int) -> None:
        """The webhook has taken everything up to there (0: of the uplink log). Raises StoreUnavailable."""
        ...

    async def waiting(self, webhook_no: int) -> int:
        """Events that wait for the webhook, of the outbox and of the uplink log, about; counts to 10,000 of each.

        Raises StoreUnavailable.
        """
        ...


class WebhookStore(Protocol):
    """Raises StoreUnavailable."""

    async def add(self, webhook: Webhook) -> Webhook:
        """With its number; it begins with events from now on."""
        ...

    async def all_webhooks(self) -> Sequence[Webhook]:
        """In the order in which they were made."""
        ...

    async def change(self, webhook: Webhook) -> bool:
        """Keeps url, secret, kinds and whether it is enabled; False where it is deleted."""
        ...

    async def delete(self, webhook_no: int) -> bool:
        """Its letters stay; what waits for it goes."""
        ...

    async def fails(self, webhook_no: int, since_ms: int) -> None:
        """It has been failing since then; an earlier moment that is kept already stays."""
        ...

    async def bury(self, webhook_no: int, event_no: int, body: bytes, error: str, now_ms: int) -> None:
        """Makes a letter of a batch, and moves the cursor past it (0: the batch is not of the outbox)."""
        ...

    async def letters(self, before_no: int, limit: int) -> Sequence[WebhookLetter]:
        """Letters with a number below ``before_no`` (0: from the newest), newest first, without their bodies."""
        ...

    async def letter(self, letter_no: int) -> WebhookLetter | None:
        """The letter of this number."""
        ...

    async def replay(self, letter_no: int, now_ms: int) -> WebhookLetter | None:
        """Puts its events at the end, for this webhook alone; once. None where there is no such letter."""
        ...
