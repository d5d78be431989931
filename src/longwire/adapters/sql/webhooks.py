"""Webhooks, and the batches of events that they would not take."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection

from longwire.adapters.sql import bulk
from longwire.adapters.sql.column_types import fitting
from longwire.adapters.sql.database import Database
from longwire.adapters.sql.domains import Domain, take
from longwire.adapters.sql.events import SqlEvents
from longwire.operations_model import Webhook, WebhookLetter
from longwire.ports.events import consumer_of

T = TypeVar("T")

_COLUMNS = "webhook_no, url, secret, kinds, is_enabled, created_at_ms, cursor, last_success_ms, failing_since_ms"
_ALL = f"SELECT {_COLUMNS} FROM webhooks ORDER BY webhook_no"
_ADD = (
    "INSERT INTO webhooks (webhook_no, url, secret, kinds, is_enabled, created_at_ms, cursor)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_LAST_EVENT = "SELECT COALESCE(MAX(event_no), 0) FROM events"
_CHANGE = "UPDATE webhooks SET url = ?, secret = ?, kinds = ?, is_enabled = ? WHERE webhook_no = ?"
_DELETE = "DELETE FROM webhooks WHERE webhook_no = ?"
_DELETE_EVENTS = "DELETE FROM events WHERE webhook_no = ?"
_FAILS = (
    "UPDATE webhooks SET failing_since_ms = ? WHERE webhook_no = ?"
    " AND (failing_since_ms IS NULL OR failing_since_ms > ?)"
)
_FOLLOW_UPLINK = (
    'INSERT OR IGNORE INTO uplink_cursors (consumer, "offset")'
    ' VALUES (?, (SELECT COALESCE(MAX("offset"), 0) FROM uplink))'
)
_LEAVE_UPLINK = "DELETE FROM uplink_cursors WHERE consumer = ?"
_BURY = "INSERT INTO webhook_letters (letter_no, webhook_no, error, buried_at_ms, body) VALUES (?, ?, ?, ?, ?)"
_MOVE_PAST = "UPDATE webhooks SET cursor = ? WHERE webhook_no = ? AND cursor < ?"
_LETTERS = (
    "SELECT letter_no, webhook_no, x'', error, buried_at_ms, replayed_at_ms FROM webhook_letters"
    " WHERE letter_no < ? ORDER BY letter_no DESC LIMIT ?"
)
_LETTER = (
    "SELECT letter_no, webhook_no, body, error, buried_at_ms, replayed_at_ms FROM webhook_letters WHERE letter_no = ?"
)
_REPLAYED = "UPDATE webhook_letters SET replayed_at_ms = ? WHERE letter_no = ?"
_REPLAY = "INSERT INTO events (event_no, webhook_no, kind, at_ms, device_no, body) VALUES {rows}"
_NEWEST = 1 << 62
_MAX_ERROR_CHARACTERS = 4_000


class _Told(msgspec.Struct):
    """What a replay needs of an event of a batch."""

    kind: str


class _Batch(msgspec.Struct):
    events: list[msgspec.Raw]


class SqlWebhooks:
    """ports.events.WebhookStore on one database. ``start`` lets the outbox know the webhooks."""

    def __init__(self, database: Database, events: SqlEvents) -> None:
        self._database = database
        self._events = events

    async def start(self) -> None:
        """Until then nothing is kept for webhooks. Raises StoreUnavailable."""
        self._events.serve(await self.all_webhooks())

    async def all_webhooks(self) -> Sequence[Webhook]:
        return await self._database.read(lambda c: [_webhook_of(row) for row in c.exec_driver_sql(_ALL)])

    async def add(self, webhook: Webhook) -> Webhook:
        def write(connection: Connection) -> Webhook:
            number = take(connection, Domain.WEBHOOKS, 1)[0]
            cursor: int = connection.exec_driver_sql(_LAST_EVENT).scalar_one()
            told = (webhook.url, webhook.secret, _kinds(webhook), webhook.is_enabled, webhook.created_at_ms)
            result = connection.exec_driver_sql(_ADD, (number, *told, cursor))
            added = replace(webhook, webhook_no=result.lastrowid if number is None else number, cursor=cursor)
            _follow_uplink(connection, added)
            return added

        return await self._write(write)

    async def change(self, webhook: Webhook) -> bool:
        def write(connection: Connection) -> bool:
            values = (webhook.url, webhook.secret, _kinds(webhook), webhook.is_enabled, webhook.webhook_no)
            if connection.exec_driver_sql(_CHANGE, values).rowcount == 0:
                return False
            _follow_uplink(connection, webhook)
            return True

        return await self._write(write)

    async def delete(self, webhook_no: int) -> bool:
        def write(connection: Connection) -> bool:
            connection.exec_driver_sql(_LEAVE_UPLINK, (consumer_of(webhook_no),)).close()
            connection.exec_driver_sql(_DELETE_EVENTS, (webhook_no,)).close()
            return connection.exec_driver_sql(_DELETE, (webhook_no,)).rowcount == 1

        return await self._write(write)

    async def fails(self, webhook_no: int, since_ms: int) -> None:
        values = (since_ms, webhook_no, since_ms)
        await self._database.write(lambda c: c.exec_driver_sql(_FAILS, values).close())

    async def bury(self, webhook_no: int, event_no: int, body: bytes, error: str, now_ms: int) -> None:
        def write(connection: Connection) -> None:
            past = (event_no, webhook_no, event_no)
            if event_no and connection.exec_driver_sql(_MOVE_PAST, past).rowcount == 0:
                return  # another process that delivered for it has come further
            letter_no = take(connection, Domain.WEBHOOK_LETTERS, 1)[0]
            values = (letter_no, webhook_no, fitting(error, _MAX_ERROR_CHARACTERS), now_ms, body)
            connection.exec_driver_sql(_BURY, values).close()

        await self._database.write(write, Domain.WEBHOOKS, Domain.WEBHOOK_LETTERS)

    async def letters(self, before_no: int, limit: int) -> Sequence[WebhookLetter]:
        values = (before_no or _NEWEST, limit)
        return await self._database.read(lambda c: [WebhookLetter(*row) for row in c.exec_driver_sql(_LETTERS, values)])

    async def letter(self, letter_no: int) -> WebhookLetter | None:
        return await self._database.read(lambda c: _letter(c, letter_no))

    async def replay(self, letter_no: int, now_ms: int) -> WebhookLetter | None:
        letter = await self._database.write(
            lambda c: _replay(c, letter_no, now_ms), Domain.WEBHOOK_LETTERS, Domain.EVENTS
        )
        self._events.grow()
        return letter

    async def _write(self, call: Callable[[Connection], T]) -> T:
        """A change of the webhooks, and what the outbox knows of them behind it."""
        result = await self._database.write(call, Domain.WEBHOOKS, Domain.UPLINK, Domain.EVENTS)
        self._events.serve(await self.all_webhooks())
        return result


def _follow_uplink(connection: Connection, webhook: Webhook) -> None:
    """One that takes uplink reads the log from now on, or from where it has read to."""
    statement = _FOLLOW_UPLINK if webhook.takes("uplink") else _LEAVE_UPLINK
    connection.exec_driver_sql(statement, (consumer_of(webhook.webhook_no),)).close()


def _replay(connection: Connection, letter_no: int, now_ms: int) -> WebhookLetter | None:
    letter = _letter(connection, letter_no)
    if letter is None or letter.replayed_at_ms is not None:
        return letter
    # As they were told, with their ids: whoever knows one of them already sees that.
    events = msgspec.json.decode(letter.body, type=_Batch).events
    rows = [
        (event_no, letter.webhook_no, msgspec.json.decode(raw, type=_Told).kind, now_ms, 0, bytes(raw))
        for event_no, raw in zip(take(connection, Domain.EVENTS, len(events)), events, strict=True)
    ]
    bulk.execute(connection, _REPLAY, rows)
    connection.exec_driver_sql(_REPLAYED, (now_ms, letter_no)).close()
    return replace(letter, replayed_at_ms=now_ms)


def _letter(connection: Connection, letter_no: int) -> WebhookLetter | None:
    row: Any = connection.exec_driver_sql(_LETTER, (letter_no,)).one_or_none()
    return None if row is None else WebhookLetter(*row)


def _webhook_of(row: Any) -> Webhook:
    number, url, secret, kinds, is_enabled, *rest = row
    return Webhook(number, url, secret, tuple(kinds.split()), bool(is_enabled), *rest)


def _kinds(webhook: Webhook) -> str:
    return " ".join(webhook.kinds)
