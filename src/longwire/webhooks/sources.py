"""What a webhook is told, as JSON: events of the outbox, and messages to the application from the uplink log.

Each source gives its items in order and moves its own cursor; replayed letters come through the outbox.
"""

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

import msgspec

from longwire.ids import prefixed
from longwire.model import UplinkRecord
from longwire.operations_model import Event, Webhook
from longwire.ports.events import EventLog, WebhookStore, consumer_of
from longwire.ports.uplink import UplinkReader

MAX_EVENTS = 500

_encode = msgspec.json.encode


class Item(NamedTuple):
    """An event on its way to one webhook."""

    number: int
    """Its place in the source; the cursor."""
    at_ms: int
    text: bytes
    """The JSON object."""


class Source(Protocol):
    """Where the events of one webhook come from. Every call raises StoreUnavailable."""

    async def read(self) -> Sequence[Item]:
        """The next ones, at most 500; waits for the first. Only once everything read before is over."""
        ...

    async def taken(self, number: int, now_ms: int) -> None:
        """The webhook has everything up to there."""
        ...

    async def bury(self, number: int, body: bytes, error: str, now_ms: int) -> None:
        """It will not take what is up to there: makes a letter of it and goes on."""
        ...


class Outbox:
    """Receipts, presence and replayed letters."""

    def __init__(self, webhook: Webhook, events: EventLog, store: WebhookStore) -> None:
        self._webhook_no = webhook.webhook_no
        self._after_no = webhook.cursor
        self._events = events
        self._store = store

    async def read(self) -> Sequence[Item]:
        events = await self._events.read(self._webhook_no, self._after_no, MAX_EVENTS)
        self._after_no = events[-1].event_no
        return [Item(event.event_no, event.at_ms, _event_text(event)) for event in events]

    async def taken(self, number: int, now_ms: int) -> None:
        await self._events.flush(self._webhook_no, number, now_ms)

    async def bury(self, number: int, body: bytes, error: str, now_ms: int) -> None:
        await self._store.bury(self._webhook_no, number, body, error, now_ms)


class Uplink:
    """Messages of devices to the application, read from the log that its handlers read."""

    def __init__(self, webhook: Webhook, uplink: UplinkReader, events: EventLog, store: WebhookStore) -> None:
        self._webhook_no = webhook.webhook_no
        self._consumer = consumer_of(webhook.webhook_no)
        self._uplink = uplink
        self._events = events
        self._store = store

    async def read(self) -> Sequence[Item]:
        records = await self._uplink.read(self._consumer, MAX_EVENTS)
        return [Item(record.offset, record.sent_at_ms, _record_text(record)) for record in records]

    async def taken(self, number: int, now_ms: int) -> None:
        await self._uplink.flush(self._consumer, number)
        await self._events.flush(self._webhook_no, 0, now_ms)

    async def bury(self, number: int, body: bytes, error: str, now_ms: int) -> None:
        await self._store.bury(self._webhook_no, 0, body, error, now_ms)
        await self._uplink.flush(self._consumer, number)


def ping_text(event_id: str, at_ms: int) -> bytes:
    """The event of a test."""
    return _object(event_id, "ping", at_ms, b"{}")


def _event_text(event: Event) -> bytes:
    if event.webhook_no:
        return event.body  # of a letter: whole, with the id it had
    return _object(f"evt_{event.event_no}", event.kind, event.at_ms, event.body)


def _record_text(record: UplinkRecord) -> bytes:
    told: dict[str, object] = {
        "device_id": record.device_id,
        "message_id": prefixed("msg", record.message_id),
        "message_kind": record.kind,
    }
    if _is_json(record.payload):
        told["payload"] = msgspec.Raw(record.payload)
    else:
        told["payload_b64"] = base64.b64encode(record.payload).decode()
    return _object(f"upl_{record.offset}", "uplink", record.sent_at_ms, _encode(told))


def _object(event_id: str, kind: str, at_ms: int, rest: bytes) -> bytes:
    at = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    head = _encode({"id": event_id, "kind": kind, "at": at})
    return head if rest == b"{}" else head[:-1] + b"," + rest[1:]


def _is_json(payload: bytes) -> bool:
    try:
        payload.decode()  # the parser does not look at all of it
        msgspec.json.decode(payload)
    except (ValueError, RecursionError):
        return False
    return True
